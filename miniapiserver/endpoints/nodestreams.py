"""log, exec, attach, portforward and proxy: from the API server's core to the endpoints that reach into the nodes'
network.

My job: hand an admitted request to its endpoint with what it may look up, and own the one NodePath (egress, TLS,
ledger) all of them share. `subresources` calls me; `containerlogs`, `remotecommand`, `portforward` and `proxy` do the
work.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from miniapiserver.apiserver import APIServer
from miniapiserver.authorization.interface import Attributes, Decision
from miniapiserver.config import Config, ConfigError
from miniapiserver.connectionmetrics import add_connection_metrics
from miniapiserver.egress.interface import EgressType
from miniapiserver.egress.nodetunnels import ssh_tunnels
from miniapiserver.egress.selector import EgressSelector, InvalidEgressConfiguration
from miniapiserver.endpoints import containerlogs, portforward, proxy, remotecommand
from miniapiserver.endpoints.noderequest import NodeRequest
from miniapiserver.errors import Forbidden, MethodNotAllowed, NotFound
from miniapiserver.filters import attributes_of
from miniapiserver.kubelet import NodePath
from miniapiserver.registry.registry import Registry
from miniapiserver.request import Request
from miniapiserver.resources.resource import Resource
from wire.connections import Ledger
from wire.ledgerfeed import serve_ledger

JSON = dict[str, Any]

Endpoint = Callable[[web.BaseRequest, NodeRequest], Awaitable[web.StreamResponse]]

ENDPOINTS: dict[str, Endpoint] = {"log": containerlogs.handle, "exec": remotecommand.handle,
                                  "attach": remotecommand.handle, "portforward": portforward.handle,
                                  "proxy": proxy.handle}
METHODS: dict[str, tuple[str, ...]] = {
    "log": ("GET",), "exec": ("GET", "POST"), "attach": ("GET", "POST"), "portforward": ("GET", "POST"),
    "proxy": ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
#: What the filters read and no backend may see (facts of CVE-2018-1002105's kin: credentials never travel on).
REMOVED_HEADERS = ("Authorization", "X-Remote-User", "X-Remote-Uid", "X-Remote-Group")


class _Lookups:
    """The registry as the endpoints see it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def _get(self, storage: str, namespace: str, name: str) -> JSON:
        await self._registry.ready_storage(storage)
        found = self._registry.get(storage, namespace, name)
        if found is None:
            raise NotFound.resource(storage, "", name)
        return found

    async def get_pod(self, namespace: str, name: str) -> JSON:
        return await self._get("pods", namespace, name)

    async def get_node(self, name: str) -> JSON:
        return await self._get("nodes", "", name)

    async def get_service(self, namespace: str, name: str) -> JSON:
        return await self._get("services", namespace, name)

    async def get_endpoints(self, namespace: str, name: str) -> JSON:
        return await self._get("endpoints", namespace, name)


class NodeStreams:
    """Lives as long as the server."""

    def __init__(self, server: APIServer, path: NodePath) -> None:
        self._server, self._path = server, path
        self._lookups = _Lookups(server.registry)

    @property
    def ledger(self) -> Ledger:
        return self._path.ledger

    @classmethod
    @contextlib.asynccontextmanager
    async def build(cls, server: APIServer) -> AsyncIterator["NodeStreams"]:
        """With its path into the nodes' network, which ends with it. Raises ConfigError."""
        config, ledger = server.config, Ledger()
        async with contextlib.AsyncExitStack() as stack:
            selector = await egress(server, stack, ledger)
            stack.push_async_callback(selector.aclose)
            path = NodePath(selector, ledger, kubelet_ca=config.kubelet_certificate_authority,
                            client_cert=config.kubelet_client_certificate, client_key=config.kubelet_client_key,
                            preferred=config.kubelet_preferred_address_types, allowed_cidrs=config.proxy_allow_cidrs)
            stack.push_async_callback(path.aclose)
            add_connection_metrics(server.metrics, ledger)
            if config.connections_socket is not None:
                await stack.enter_async_context(serve_ledger(ledger, str(config.connections_socket)))
            yield cls(server, path)

    async def serve(self, request: Request, row: Resource) -> web.StreamResponse:
        info, http = request.info, request.http
        if http.method not in METHODS[info.subresource]:
            raise MethodNotAllowed("the server does not allow this method on the requested resource", details={})
        target = NodeRequest(
            namespace=info.namespace, name=info.name, subresource=info.subresource, objects=self._lookups,
            path=self._path,
            resource=row.plural, tail=info.tail, query=request.query_list, raw_query=http.raw_path.partition("?")[2],
            user=request.user.name, authorize_create=lambda: self._authorize_create(request),
            annotate=request.annotations.__setitem__,
            headers={"Audit-Id": request.audit_id, "Cache-Control": "no-cache, private"})
        return await ENDPOINTS[info.subresource](http, target)

    async def _authorize_create(self, request: Request) -> None:
        """A WebSocket upgrade is a GET; running something still needs the verb create (upstream 1.35). Raises
        Forbidden."""
        info = request.info
        if info.verb == "create":
            return
        asked = attributes_of(request.user, info)
        question = Attributes(asked.user, "create", True, asked.namespace, asked.group, asked.version, asked.resource,
                              asked.subresource, asked.name, asked.path)
        verdict = await self._server.authorizer.authorize(question)
        if verdict.decision is not Decision.ALLOW:
            raise Forbidden.resource(info.resource, info.group, info.name, verdict.reason)


async def egress(server: APIServer, stack: contextlib.AsyncExitStack, ledger: Ledger) -> EgressSelector:
    """What the flags ask for; what it holds open ends with the stack. Raises ConfigError."""
    config = server.config
    if not config.ssh_user:
        return egress_selector(config)
    if config.egress_selector_config_file is not None:
        raise ConfigError("--ssh-user and --egress-selector-config-file exclude each other")
    tunnels = await stack.enter_async_context(
        ssh_tunnels(config, server.registry.store_of("nodes").cache, server.health, server.metrics, ledger))
    return EgressSelector({EgressType.CLUSTER: tunnels})


def egress_selector(config: Config) -> EgressSelector:
    """Raises ConfigError."""
    if config.egress_selector_config_file is None:
        return EgressSelector()
    try:
        return EgressSelector.from_file(config.egress_selector_config_file)
    except InvalidEgressConfiguration as error:
        raise ConfigError(f"--egress-selector-config-file {config.egress_selector_config_file}: {error}") from error
