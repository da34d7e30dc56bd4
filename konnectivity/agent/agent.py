"""The proxy agent, put together.

Job: compose. `async with Agent(config) as agent:` keeps its links until left. Rule: no decisions here.
"""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from konnectivity.agent.config import Config, new_agent_id
from konnectivity.agent.metrics import Metrics
from konnectivity.agent.serverlink import Identity
from konnectivity.agent.sync import Sync
from konnectivity.health import health_handler
from konnectivity.leasecalls import timed
from konnectivity.leases import count_valid
from wire.apiclient import APIError, Client
from wire.connections import ClientCertificate, Ledger
from wire.errors import WireError
from wire.http import HTTPServer
from wire.ledgerfeed import serve_ledger

LEASE_INTERVAL = 10.0  # upstream's informer resync

_log = logging.getLogger("konnectivity.agent")


class Agent:
    """One proxy agent. `health_port` is what was bound."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.agent_id = config.agent_id or new_agent_id()
        self.metrics, self.ledger = Metrics(), Ledger()
        self.health_port = self.admin_port = 0
        self._lease_count = 0  # 0: not counted
        certificate = ClientCertificate(config.agent_cert)
        identity = Identity(self.agent_id, config.agent_identifiers, config.service_account_token_path, certificate)
        self.sync = Sync(config, identity, self.metrics, self.ledger, lambda: self._lease_count)
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
        http = await self._scope.enter_async_context(HTTPServer(health_handler(self.checks, self.metrics_text, 503)))
        self.health_port = await http.listen(config.health_server_host or None, config.health_server_port)
        self.admin_port = await http.listen(config.admin_bind_address, config.admin_server_port)
        if config.connections_socket:
            await self._scope.enter_async_context(serve_ledger(self.ledger, config.connections_socket))
        client = None
        if config.count_server_leases:
            client = Client.from_kubeconfig(config.kubeconfig, user_agent="konnectivity-agent")
            await self._scope.enter_async_context(client)
        group = await self._scope.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(self.sync.run(), name="sync")]
        if client is not None:
            tasks.append(group.create_task(self._count_leases(client), name="leases"))
        self._scope.callback(lambda: [task.cancel() for task in tasks])
        _log.info("agent.ready id=%s server=%s:%d", self.agent_id, config.proxy_server_host, config.proxy_server_port)

    async def _count_leases(self, client: Client) -> None:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.config.lease_namespace}/leases"
        while True:
            try:
                with timed(self.metrics.lease_lists, self.metrics.lease_list_seconds):
                    found = await client.list(path, labelSelector=self.config.lease_label_selector)
                self._lease_count = count_valid(found.get("items") or [], datetime.now(UTC))
            except (APIError, WireError, OSError, TimeoutError) as error:
                _log.warning("lease.failed reason=%r", str(error))
            await asyncio.sleep(LEASE_INTERVAL)

    def checks(self) -> dict[str, str]:
        return {"server-connected": "" if self.sync.links else "no connection to any proxy server"}

    def metrics_text(self) -> str:
        sync = self.sync
        return self.metrics.text(lambda: len(sync.links), lambda: sync.wanted, lambda: sync.connections)
