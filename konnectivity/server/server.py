"""The proxy server, put together.

Job: compose. `async with Server(config) as server:` serves until left; leaving ends every connection. Neighbours: every
file beside this one is a part. Rule: no decisions here.
"""

import asyncio
import contextlib
import logging
import random
from types import TracebackType
from typing import Self

from konnectivity.health import health_handler
from konnectivity.listener import Factory, bind_tcp, listen_unix, serve_tls
from konnectivity.server.agentservice import AgentService
from konnectivity.server.authentication import TOKEN_REVIEWS, Authenticate, TokenAuthentication, allow_all
from konnectivity.server.backends import Backends
from konnectivity.server.config import Config, new_server_id
from konnectivity.server.dials import Backend, DialDesk
from konnectivity.server.frontends.httpconnect import ConnectService
from konnectivity.server.frontends.proxyservice import ProxyService
from konnectivity.server.leases import LeaseKeeper
from konnectivity.server.metrics import Metrics
from konnectivity.tls import ServerTLS
from wire.apiclient import Client
from wire.http import HTTPServer

_log = logging.getLogger("konnectivity.server")


class Server:
    """One proxy server. `front_port`, `agent_port`, `health_port` are what was bound."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.server_id = config.server_id or new_server_id()
        self.metrics = Metrics()
        self.backends: Backends[Backend] = Backends(config.proxy_strategies, random.SystemRandom())
        self.front_port = self.agent_port = self.health_port = self.admin_port = 0
        self._ended = asyncio.Event()
        self._scope = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        try:
            await self._start()
        except BaseException:
            await self._scope.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._scope.aclose()

    async def _start(self) -> None:
        config = self.config
        client = await self._open_client()
        group = await self._scope.enter_async_context(asyncio.TaskGroup())
        desk = DialDesk(
            self.backends,
            config.backend_dial_timeout,
            random.SystemRandom(),
            self.metrics.dial_seconds.observe,
            self.metrics.dial_failures.add,
        )
        self.agents = AgentService(
            self.backends,
            self.metrics,
            self._authentication(client),
            self.server_id,
            config.server_count,
            config.keepalive_time,
            group,
        )
        self.connect = ConnectService(desk, self._on_ended, self.metrics.front_write_seconds.observe)
        self._scope.callback(desk.deadlines.stop)
        self.proxy = ProxyService(desk, self._on_ended, self.metrics)
        self._scope.callback(self._end_connections)
        tasks = await self._listen(group)
        if config.mode == "grpc":
            tasks.append(group.create_task(self.proxy.keep_alive(config.frontend_keepalive_time), name="keepalive"))
        if client is not None and config.enable_lease_controller:
            keeper = LeaseKeeper(client, self.server_id, config.lease_namespace, config.lease_label, self.metrics)
            tasks.append(group.create_task(keeper.run(), name="lease"))
        self._scope.callback(lambda: [task.cancel() for task in tasks])
        _log.info(
            "server.ready id=%s mode=%s front=%s agents=%d",
            self.server_id,
            config.mode,
            config.uds_name or self.front_port,
            self.agent_port,
        )

    async def _open_client(self) -> Client | None:
        if not self.config.kubeconfig:
            return None
        client = Client.from_kubeconfig(self.config.kubeconfig, user_agent="konnectivity-server")
        return await self._scope.enter_async_context(client)

    def _authentication(self, client: Client | None) -> Authenticate:
        if not self.config.has_token_authentication or client is None:
            return allow_all
        return TokenAuthentication(
            lambda review: client.create(TOKEN_REVIEWS, review),
            self.config.agent_namespace,
            self.config.agent_service_account,
            self.config.authentication_audience,
        )

    async def _listen(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        config = self.config
        tasks = []
        agents = bind_tcp(config.agent_bind_address, config.agent_port)
        self.agent_port = agents.getsockname()[1]
        agent_tls = ServerTLS(
            config.cluster_cert,
            config.cluster_key,
            config.cluster_ca_cert,
            ("h2",),
            config.minimum_tls,
            ":".join(config.cipher_suites),
        )
        _ = agent_tls.context  # unreadable files are an error now, not at the first handshake
        tasks.append(group.create_task(serve_tls(agents, agent_tls, self.agents), name="agent port"))
        http = config.mode == "http-connect"
        factory: Factory = self.connect if http else self.proxy
        if config.uds_name:
            front = listen_unix(config.uds_name, factory, config.delete_existing_uds_file)
            await self._scope.enter_async_context(front)
        else:
            sock = bind_tcp(config.server_bind_address, config.server_port)
            self.front_port = sock.getsockname()[1]
            front_tls = ServerTLS(
                config.server_cert,
                config.server_key,
                config.server_ca_cert,
                ("http/1.1",) if http else ("h2",),
                config.minimum_tls,
                ":".join(config.cipher_suites),
            )
            _ = front_tls.context
            tasks.append(group.create_task(serve_tls(sock, front_tls, factory), name="front port"))
        await self._listen_for_probes()
        return tasks

    async def _listen_for_probes(self) -> None:
        handler = health_handler(self.checks, self.metrics_text, failure_status=500)
        http = await self._scope.enter_async_context(HTTPServer(handler))
        config = self.config
        self.health_port = await http.listen(config.health_bind_address or None, config.health_port)
        self.admin_port = await http.listen(config.admin_bind_address, config.admin_port)

    # ------------------------------------------------------------ what it says of itself

    def checks(self) -> dict[str, str]:
        ready = self.backends.ready(self.backends.strategies[0])
        return {"agents": "" if ready else "no connection to any proxy agent"}

    def metrics_text(self) -> str:
        return self.metrics.text(self.backends, self.count_fronts)

    def count_fronts(self) -> dict[str, int]:
        return {"http-connect": len(self.connect.fronts), "grpc": len(self.proxy.fronts)}

    @property
    def open_connections(self) -> int:
        return len(self.connect.fronts) + len(self.proxy.fronts)

    async def drain(self, timeout: float) -> None:
        """Take no new agents' calls and wait until connections have ended, at most `timeout`."""
        for link in self.agents.links:
            link.connection.go_away()
            link.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.open_connections:
                    self._ended.clear()
                    await self._ended.wait()

    def _on_ended(self, lived: float) -> None:
        self.metrics.connection_seconds.observe(lived)
        self._ended.set()

    def _end_connections(self) -> None:
        self.connect.close("server is stopping")
        self.proxy.close("server is stopping")
        self.agents.close("server is stopping")
