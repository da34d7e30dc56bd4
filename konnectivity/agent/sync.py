"""How many servers there are, and a link to each of them.

Job: keep one link per server, with as few attempts as that takes. I own the links. Neighbours: `serverlink` is one
link, `leases` may count servers. Rule: an attempt that taught something (a new server) is followed by the next at once;
only failures and duplicates wait.

    new server         try again now, if there should be more
    duplicate          wait --sync-interval (behind a load balancer it is luck whom one meets)
    refused, reset     wait --sync-interval, growing to QUICK_CAP: the server is restarting, be there when it is back
    other failures     wait --sync-interval, growing by 1.5 to --sync-interval-cap
"""

import asyncio
import itertools
import logging
import random
import socket
from collections.abc import Callable

from konnectivity.agent.config import Config
from konnectivity.agent.metrics import Metrics
from konnectivity.agent.serverlink import Address, ConnectFailed, DuplicateServer, Identity, ServerLink, connect
from konnectivity.tls import AgentTLS
from wire.connections import Ledger

GROWTH = 1.5
JITTER = 0.1
QUICK_CAP = 1.5  # seconds; a server that comes back finds its agents within 2 s

_log = logging.getLogger("konnectivity.agent")


class Backoff:
    """How long to wait after failures. Pure; randomness comes in."""

    def __init__(self, first: float, cap: float) -> None:
        self._first, self._cap, self._failures = first, cap, 0

    def reset(self) -> None:
        self._failures = 0

    def next(self, is_cheap: bool, chance: float) -> float:
        """`chance` in [0, 1) spreads agents that failed together."""
        wait = min(self._first * GROWTH**self._failures, self._cap)
        self._failures += 1
        return min(wait, QUICK_CAP if is_cheap else self._cap) * (1 + JITTER * chance)


class Sync:
    """The links of one agent."""

    def __init__(
        self, config: Config, identity: Identity, metrics: Metrics, ledger: Ledger, count_leases: Callable[[], int]
    ) -> None:
        self.links: dict[str, ServerLink] = {}
        self.is_draining = False
        self._config = config
        self._identity = identity
        self._metrics = metrics
        self._count_leases = count_leases
        self._ledger = ledger
        self._tls = AgentTLS(config.ca_cert, config.agent_cert, config.agent_key, (*config.alpn_proto, "h2"))
        self._told_count = 1
        self._changed = asyncio.Event()
        self._turn = itertools.count()

    @property
    def wanted(self) -> int:
        """How many servers are believed to exist."""
        leases = self._count_leases()
        if not leases:
            return self._told_count
        return max(leases, self._told_count) if self._config.server_count_source == "max" else leases

    @property
    def connections(self) -> int:
        return sum(link.connections for link in self.links.values())

    async def run(self) -> None:
        """Keep the links until cancelled."""
        backoff = Backoff(self._config.sync_interval, self._config.sync_interval_cap)
        _ = self._tls.context  # unreadable files are an error now
        try:
            async with asyncio.TaskGroup() as group:
                while not self.is_draining:
                    self._changed.clear()
                    if len(self.links) >= self.wanted and not self._config.sync_forever:
                        await self._wait(self._config.probe_interval)
                        continue
                    await self._wait(await self._attempt(group, backoff))
        finally:
            for link in list(self.links.values()):
                link.grpc.close("agent is stopping")

    async def _attempt(self, group: asyncio.TaskGroup, backoff: Backoff) -> float:
        """One try; how long to wait before the next."""
        interval = self._config.sync_interval
        try:
            address = await self._next_address()
            link = await connect(
                address, self._tls, self._identity, self._metrics, self._ledger, self.links.__contains__
            )
        except DuplicateServer as error:
            _log.debug("link.duplicate server=%s", error)
            backoff.reset()
            return interval
        except ConnectFailed as error:
            self._metrics.connect_failures.add("to_server")
            _log.warning("link.failed reason=%r", str(error))
            return backoff.next(error.is_cheap, random.random())
        backoff.reset()
        self._told_count = max(link.server_count, 1)
        self.links[link.server_id] = link
        group.create_task(self._serve(link), name=f"link {link.server_id}")
        return 0.0 if len(self.links) < self.wanted else interval

    async def _serve(self, link: ServerLink) -> None:
        _log.info("link.up server=%s peer=%s servers=%d", link.server_id, link.grpc.peername, link.server_count)
        try:
            reason = await link.run()
            _log.info("link.lost server=%s reason=%r", link.server_id, reason)
        finally:
            if self.links.get(link.server_id) is link:
                del self.links[link.server_id]
            self._changed.set()

    async def _next_address(self) -> Address:
        """The next of the name's addresses, in turn: one per server behind a headless service."""
        host, port = self._config.proxy_server_host, self._config.proxy_server_port
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ConnectFailed(f"{host}: {error}") from error
        sockaddr = found[next(self._turn) % len(found)][4]
        return Address(str(sockaddr[0]), port, host)

    async def _wait(self, seconds: float) -> None:
        """Until something changed, at most `seconds`."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def drain(self, timeout: float) -> None:
        """Tell every server, make no new links, and wait until connections have ended, at most `timeout`."""
        self.is_draining = True
        self._changed.set()
        quiet = asyncio.Event()
        for link in self.links.values():
            link.drain(quiet.set)
        try:
            async with asyncio.timeout(timeout):
                while self.connections:
                    quiet.clear()
                    await quiet.wait()
        except TimeoutError:
            _log.warning("drain.timeout connections=%d", self.connections)
