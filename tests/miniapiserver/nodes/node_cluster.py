"""An API server core that does nothing but hand requests to the endpoints, and a kubelet on its own TLS port."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import yaml
from aiohttp import web
from stub_kubelet import DISCOVERY, POD
from wire_certificates import Certificates

from miniapiserver.egress.selector import EgressSelector
from miniapiserver.endpoints import containerlogs, portforward, proxy, remotecommand
from miniapiserver.endpoints.noderequest import NodeRequest
from miniapiserver.errors import APIError, Forbidden, NotFound
from miniapiserver.kubelet import NodePath
from wire.connections import Ledger
from wire.errors import ConnectionLost
from wire.http import HTTPServer
from wire.net import dial_tcp
from wire.stream import Stream, open_stream
from wire.tls import server_context

JSON = dict[str, Any]
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

ENDPOINTS = {"log": containerlogs.handle, "exec": remotecommand.handle, "attach": remotecommand.handle,
             "portforward": portforward.handle, "proxy": proxy.handle}  # fmt: skip


def node_at(host: str, port: int, *features: str) -> JSON:
    status: JSON = {
        "addresses": [{"type": "InternalIP", "address": host}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    if features:
        status["declaredFeatures"] = list(features)
    return {"metadata": {"name": "n"}, "status": status}


@dataclass
class Objects:
    """Objects by name, as the core would look them up."""

    pods: dict[tuple[str, str], JSON] = field(default_factory=lambda: {("default", "p"): dict(POD)})
    nodes: dict[str, JSON] = field(default_factory=dict)
    services: dict[tuple[str, str], JSON] = field(default_factory=dict)
    endpoints: dict[tuple[str, str], JSON] = field(default_factory=dict)

    async def get_pod(self, namespace: str, name: str) -> JSON:
        return found(self.pods, (namespace, name), "pods", name)

    async def get_node(self, name: str) -> JSON:
        return found(self.nodes, name, "nodes", name)

    async def get_service(self, namespace: str, name: str) -> JSON:
        return found(self.services, (namespace, name), "services", name)

    async def get_endpoints(self, namespace: str, name: str) -> JSON:
        return found(self.endpoints, (namespace, name), "endpoints", name)


def found(objects: dict[Any, JSON], key: Any, plural: str, name: str) -> JSON:
    if key not in objects:
        raise NotFound.resource(plural, "", name)
    return objects[key]


@dataclass
class Cluster:
    """A running core. `may_create` is the answer of the second authorization."""

    path: NodePath
    objects: Objects
    ledger: Ledger
    annotations: dict[str, str] = field(default_factory=dict, kw_only=True)
    port: int = 0
    kubelet_port: int = 0
    may_create: bool = True

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw, _, query = request.raw_path.partition("?")
        if request.path in DISCOVERY:
            return web.Response(body=orjson.dumps(DISCOVERY[request.path]), content_type="application/json")
        parts = raw.strip("/").split("/")[2:]
        namespace = ""
        if parts[0] == "namespaces":
            namespace, parts = parts[1], parts[2:]
        resource, name, subresource = parts[0], unquote(parts[1]), parts[2]
        tail = raw.split(f"/{parts[1]}/{subresource}", 1)[1]
        info = NodeRequest(
            namespace=namespace,
            name=name,
            subresource=subresource,
            objects=self.objects,
            path=self.path,
            resource=resource,
            tail=tail,
            query=list(request.query.items()),
            raw_query=query,
            authorize_create=self.authorize_create,
            annotate=self.annotations.__setitem__,
            headers={"Cache-Control": "no-cache, private"},
        )
        try:
            return await ENDPOINTS[subresource](request, info)
        except APIError as error:
            return web.Response(body=orjson.dumps(error.status()), status=error.code, content_type="application/json")

    async def authorize_create(self) -> None:
        if not self.may_create:
            raise Forbidden.resource("pods", "", "p", "no create for you")

    async def connect(self) -> Stream:
        return await open_stream(await dial_tcp("127.0.0.1", self.port))

    async def ask(self, target: str, method: str = "GET", headers: str = "", body: bytes = b"") -> tuple[int, bytes]:
        """One request on a connection of its own; status and everything behind the head."""
        status, _, rest = await self.exchange(target, method, headers, body)
        return status, rest

    async def exchange(
        self, target: str, method: str = "GET", headers: str = "", body: bytes = b""
    ) -> tuple[int, str, bytes]:
        stream = await self.connect()
        stream.write(f"{method} {target} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n{headers}\r\n".encode() + body)
        head = (await stream.read_until(b"\r\n\r\n", 65536)).decode()
        rest = bytearray()
        with contextlib.suppress(ConnectionLost):
            while data := await stream.read():
                rest += data
        await stream.aclose()
        return int(head.split()[1]), head, bytes(rest)


@contextlib.asynccontextmanager
async def cluster(
    certificates: Certificates,
    kubelet: Handler | None,
    *features: str,
    verify: bool = True,
    tls: bool = False,
    allowed: tuple[str, ...] = ("127.0.0.0/8",),
) -> AsyncIterator[Cluster]:
    """A core in front of one kubelet. With `tls` the core itself speaks TLS, for kubectl."""
    ledger = Ledger()
    path = NodePath(
        EgressSelector(),
        ledger,
        kubelet_ca=Path(certificates.ca) if verify else None,
        client_cert=Path(certificates.client_cert),
        client_key=Path(certificates.client_key),
        preferred=("InternalIP",),
        allowed_cidrs=allowed,
    )
    made = Cluster(path, Objects(), ledger)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(path.aclose)
        if kubelet is not None:
            server = await stack.enter_async_context(HTTPServer(kubelet, grace=0.05))
            context = server_context(certificates.cert, certificates.key, [certificates.ca], require=True)
            made.kubelet_port = await server.listen(ssl_context=context)
        else:
            made.kubelet_port = 1
        made.objects.nodes["n"] = node_at("127.0.0.1", made.kubelet_port, *features)
        core = await stack.enter_async_context(HTTPServer(made.handle, grace=0.05))
        own = server_context(certificates.cert, certificates.key, [certificates.ca]) if tls else None
        made.port = await core.listen(ssl_context=own)
        async with asyncio.timeout(60):
            yield made


def kubectl_flags(made: Cluster, certificates: Certificates, folder: Path) -> list[str]:
    config = folder / "config"
    entry = {"server": f"https://127.0.0.1:{made.port}", "certificate-authority": certificates.ca}
    user = {"client-certificate": certificates.client_cert, "client-key": certificates.client_key}
    config.write_text(
        yaml.safe_dump(
            {
                "kind": "Config",
                "apiVersion": "v1",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": entry}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return ["--kubeconfig", str(config), "--cache-dir", str(folder / "cache")]
