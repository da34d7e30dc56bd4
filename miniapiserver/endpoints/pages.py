"""Paths that are no resources: version, health, metrics, discovery, OpenAPI, token keys.

My job: the table of such paths, and the documents' caching headers. The documents themselves are built by
`discovery` and `openapi` from the type table, and again when a row comes or goes. `dispatch` calls me.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from miniapiserver import version
from miniapiserver.apiserver import APIServer
from miniapiserver.endpoints import discovery, openapi
from miniapiserver.endpoints.negotiation import JSON
from miniapiserver.endpoints.responses import headers, json_object, not_found_page
from miniapiserver.errors import MethodNotAllowed, NotFound
from miniapiserver.request import Request

Page = Callable[[Request], Awaitable[web.StreamResponse]]

KEYS_MAX_AGE = "public, max-age=3600"
HEALTH = ("healthz", "livez", "readyz")


class Pages:
    """Lives as long as the server. `keys` is the JWKS of the token verifier, None without service account keys."""

    def __init__(self, server: APIServer, keys: dict[str, list[dict[str, str]]] | None) -> None:
        self._server, self._keys = server, keys
        self._documents = discovery.Documents(server.table, server.config.external_address, server.config.secure_port)
        self._openapi = openapi.Documents(server.table)
        self._exact: dict[str, Page] = {
            "/": self._root, "/version": self._version, "/metrics": self._metrics, "/api": self._discovery,
            "/apis": self._discovery, "/.well-known/openid-configuration": self._issuer,
            "/openid/v1/jwks": self._token_keys, "/openapi/v2": self._openapi_document,
            "/openapi/v3": self._openapi_document}

    async def serve(self, request: Request) -> web.StreamResponse:
        path = request.info.path.rstrip("/") or "/"
        page = self._exact.get(path)
        if page is None:
            first = path.lstrip("/").partition("/")[0] if path.startswith("/") else ""  # `*` is no path
            if first in HEALTH:
                page = self._health
            elif first in ("api", "apis"):
                page = self._discovery
            elif path.startswith("/openapi/v3/"):
                page = self._openapi_document
        if page is None:
            return not_found_page(request)
        if request.http.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("the server does not allow this method on the requested resource", details={})
        return await page(request)

    async def _root(self, request: Request) -> web.StreamResponse:
        groups = sorted({(row.group, row.version) for row in self._server.table.rows()})
        paths = ["/api", "/api/v1", "/apis", *(f"/apis/{group}" for group in sorted({g for g, _ in groups if g})),
                 *(f"/apis/{group}/{name}" for group, name in groups if group),
                 *(f"/{endpoint}" for endpoint in HEALTH), "/metrics", "/openapi/v2", "/openapi/v3", "/version"]
        return await json_object(request, {"paths": sorted(paths)})

    async def _version(self, request: Request) -> web.StreamResponse:
        return await json_object(request, version.document())

    async def _metrics(self, request: Request) -> web.StreamResponse:
        return web.Response(body=self._server.metrics.page().encode(),
                            headers=headers(request, "text/plain; version=0.0.4; charset=utf-8"))

    async def _health(self, request: Request) -> web.StreamResponse:
        return await self._server.health.answer(request)

    async def _discovery(self, request: Request) -> web.StreamResponse:
        found = self._documents.answer(request.info.path.rstrip("/"), request.http.headers.get("Accept", ""))
        if found is not None:
            return self._document(request, found)
        parts = request.info.path.strip("/").split("/")
        if len(parts) == 3 and self._server.table.has_group(parts[1]):
            raise NotFound.path()  # another version of a group that exists
        return not_found_page(request)

    async def _openapi_document(self, request: Request) -> web.StreamResponse:
        found = self._openapi.answer(request.info.path.rstrip("/"), request.http.headers.get("Accept", ""),
                                     request.query.get("hash", ""))
        return not_found_page(request) if found is None else self._document(request, found)

    def _document(self, request: Request, found: discovery.Document) -> web.Response:
        sent = headers(request, found.content_type)
        sent.update(found.headers)
        if found.etag and request.http.headers.get("If-None-Match") == found.etag:
            return web.Response(status=304, headers=sent)
        if found.gzipped is not None and "gzip" in request.http.headers.get("Accept-Encoding", ""):
            sent["Content-Encoding"] = "gzip"
            return web.Response(body=found.gzipped, status=found.status, headers=sent)
        return web.Response(body=found.body, status=found.status, headers=sent)

    async def _issuer(self, request: Request) -> web.StreamResponse:
        """OIDC discovery for service account tokens (KEP-1393)."""
        if self._keys is None:
            return not_found_page(request)
        config = self._server.config
        body = {"issuer": config.service_account_issuer[0],
                "jwks_uri": f"https://{config.external_address}:{config.secure_port}/openid/v1/jwks",
                "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": sorted({key["alg"] for key in self._keys["keys"]})}
        return self._cacheable(request, body, JSON)

    async def _token_keys(self, request: Request) -> web.StreamResponse:
        if self._keys is None:
            return not_found_page(request)
        return self._cacheable(request, self._keys, "application/jwk-set+json")

    def _cacheable(self, request: Request, body: dict[str, Any], content_type: str) -> web.Response:
        sent = headers(request, content_type)
        sent["Cache-Control"] = KEYS_MAX_AGE
        return web.Response(body=orjson.dumps(body), headers=sent)

