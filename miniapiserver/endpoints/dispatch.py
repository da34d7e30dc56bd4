"""Which endpoint serves a request.

My job: two tables: paths that are no resources, and verbs on rows. What matches none is refused as upstream refuses
it (404 as Status or as the plain page, 405). The filters call me last.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

from miniapiserver.apiserver import APIServer
from miniapiserver.endpoints import reading, watch, writing
from miniapiserver.endpoints.componentstatuses import componentstatuses
from miniapiserver.endpoints.pages import Pages
from miniapiserver.endpoints.responses import not_found_page
from miniapiserver.endpoints.subresources import Subresources
from miniapiserver.errors import MethodNotAllowed, NotFound
from miniapiserver.request import Request
from miniapiserver.requestinfo import RequestInfo
from miniapiserver.resources.resource import Resource

Endpoint = Callable[[APIServer, Request, Resource], Awaitable[web.StreamResponse]]

#: Upstream routes no HEAD and no OPTIONS to a resource, although it authorizes HEAD as a get.
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})

COLLECTION: dict[str, Endpoint] = {"create": writing.create, "list": reading.list_, "watch": watch.watch,
                                   "deletecollection": writing.delete_collection}
OBJECT: dict[str, Endpoint] = {"get": reading.get, "update": writing.replace, "patch": writing.patch,
                               "delete": writing.delete}

#: Kinds whose every answer says so (k8s.io/api `APILifecycleDeprecated`)
DEPRECATED = {
    ("", "componentstatuses"): "v1 ComponentStatus is deprecated in v1.19+",
    ("", "endpoints"): "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
}


class Dispatch:
    """Lives as long as the server."""

    def __init__(self, server: APIServer, pages: Pages, subresources: Subresources) -> None:
        self._server, self._pages, self._subresources = server, pages, subresources

    async def __call__(self, request: Request) -> web.StreamResponse:
        info = request.info
        if not info.is_resource:
            return await self._pages.serve(request)
        row = self._server.table.find(info.group, info.version, info.resource)
        if row is None or (info.verb and not _fits(info, row)):
            return self._unknown(request)
        if info.subresource != "proxy" and request.http.method not in METHODS:
            raise not_allowed()
        if info.verb == "watch" and request.http.method != "GET":  # below the legacy /watch/ prefix
            raise not_allowed()
        if warning := DEPRECATED.get((row.group, row.plural)):
            request.warnings.append(warning)
        if row.storage:
            await self._server.registry.ready(row)
        if info.subresource:
            return await self._subresources.serve(request, row)
        if row.plural == "componentstatuses":
            return await componentstatuses(self._server, request, row)
        if not row.storage:
            return await self._subresources.review(request, row)
        endpoint = _endpoint(info, row)
        if endpoint is None:
            raise not_allowed()
        return await endpoint(self._server, request, row)

    def _unknown(self, request: Request) -> web.StreamResponse:
        """Below a group that exists upstream answers a Status, elsewhere the page of its path recorder."""
        info = request.info
        if info.api_prefix == "api" or self._server.table.has_group(info.group):
            raise NotFound.path()
        return not_found_page(request)


def not_allowed() -> MethodNotAllowed:
    return MethodNotAllowed("the server does not allow this method on the requested resource", details={})


def _fits(info: RequestInfo, row: Resource) -> bool:
    """Cluster-scoped rows have no URL below a namespace; namespaced ones without a namespace can only be listed."""
    if row.namespaced:
        return bool(info.namespace) or not _is_named(info)
    return not info.namespace or row.plural == "namespaces"


def _is_named(info: RequestInfo) -> bool:
    return info.verb not in COLLECTION or (bool(info.name) and info.verb == "create")


def _endpoint(info: RequestInfo, row: Resource) -> Endpoint | None:
    if info.verb not in row.verbs:
        return None
    if info.verb == "create" and (info.name or (row.namespaced and not info.namespace)):
        return None
    if info.verb in OBJECT:
        return OBJECT[info.verb] if info.name else None
    if info.verb == "deletecollection" and row.namespaced and not info.namespace:
        return None
    return COLLECTION.get(info.verb)
