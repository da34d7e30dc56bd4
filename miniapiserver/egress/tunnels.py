"""One standing tunnel to each node, and the dialer that goes through them.

My job: follow the Node objects, keep a tunnel to each node up, choose the one for a dial, and say how they are (health,
metrics). `ssh` makes the connections; `noderoutes` decides who reaches what. Each tunnel is a task of mine. Rule: where
there is no tunnel there is an error (`NodeTunnelDown`, 503), never another path.
"""

import asyncio
import contextlib
import enum
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from miniapiserver.egress.noderoutes import NodeRoutes, facts_of
from miniapiserver.errors import PlainInternal
from miniapiserver.metrics import Counter, Gauge, Labels, Metrics
from wire.errors import DialError, NoTunnel
from wire.net import join_host_port

log = logging.getLogger("apiserver.tunnels")

FIRST_DELAY: Final = 0.1
LAST_DELAY: Final = 1.0  # a node whose sshd is back is reached again within two seconds


class NodeTunnelDown(NoTunnel):
    """The node's tunnel does not stand. Clients get 503: it may stand again soon."""


class TunnelConnection(Protocol):
    """An established connection to one node."""

    @property
    def channels(self) -> int: ...
    async def open(self, host: str, port: int) -> socket.socket:
        """Raises DialError."""

    async def wait_closed(self) -> str:
        """Until it has ended, and why it did."""

    async def aclose(self) -> None: ...


#: (node, address) → a connection. Raises DialError.
Connect = Callable[[str, str], Awaitable[TunnelConnection]]


class Phase(enum.Enum):
    CONNECTING = "connecting"
    UP = "up"
    BACKING_OFF = "backing off"


class Event(enum.Enum):
    STANDS = "stands"
    FAILED = "failed"
    RETRY = "retry"


TRANSITIONS: Final[Mapping[Phase, Mapping[Event, Phase]]] = {
    Phase.CONNECTING: {Event.STANDS: Phase.UP, Event.FAILED: Phase.BACKING_OFF},
    Phase.UP: {Event.FAILED: Phase.BACKING_OFF},
    Phase.BACKING_OFF: {Event.RETRY: Phase.CONNECTING},
}


class Tunnel:
    """The way to one node. Lives as long as the Node object."""

    def __init__(self, node: str, address: str, connect: Connect, report: Callable[[str, str], None]) -> None:
        self.node = node
        self.phase = Phase.CONNECTING
        self.reason = ""
        self.connects = 0
        self.address = address
        self._connect, self._report = connect, report
        self._connection: TunnelConnection | None = None
        self._settled = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled: connect, wait for the end, connect again."""
        try:
            await self._keep()
        finally:
            self.reason = self.reason or "the node was removed"
            self._settled.set()  # whoever waits for a first connection waits in vain

    async def _keep(self) -> None:
        delay = FIRST_DELAY
        while True:
            if await self._once():
                delay = FIRST_DELAY
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._hurry.wait()
            delay = min(2 * delay, LAST_DELAY)
            self._move(Event.RETRY)

    async def _once(self) -> bool:
        """Whether it stood."""
        try:
            connection = self._connection = await self._connect(self.node, self.address)
        except DialError as error:
            self._fail(error.reason)
            return False
        self.connects += 1
        self.reason = ""
        self._move(Event.STANDS)
        self._report(self.node, "tunnel.up")
        try:
            reason = await connection.wait_closed()
        finally:
            self._connection = None
            await connection.aclose()
        self._fail(reason)
        return True

    def _fail(self, reason: str) -> None:
        if reason != self.reason:
            self._report(self.node, f'tunnel.lost reason="{reason}"')
        self.reason = reason
        self._move(Event.FAILED)

    def _move(self, event: Event) -> None:
        try:
            self.phase = TRANSITIONS[self.phase][event]
        except KeyError:
            raise AssertionError(f"a tunnel that is {self.phase.value} cannot {event.value}") from None
        if self.phase is Phase.CONNECTING:
            self._settled.clear()
        else:
            self._settled.set()

    async def move_to(self, address: str) -> None:
        """The node is somewhere else now."""
        self.address = address
        self._hurry.set()
        if self._connection is not None:
            await self._connection.aclose()

    @property
    def channels(self) -> int:
        return self._connection.channels if self._connection is not None else 0

    async def connection(self, target: str) -> TunnelConnection:
        """The standing connection; while one is being made, what comes of it. Raises NodeTunnelDown."""
        await self._settled.wait()
        if self._connection is None or self.phase is not Phase.UP:
            raise NodeTunnelDown(target, f"ssh {self.node}", f"no tunnel ({self.reason or 'not connected'})")
        return self._connection


@dataclass(slots=True)
class Tunnels:
    """The dialer, and all tunnels. Lives as long as the API server."""

    connect: Connect
    address_of: Callable[[Mapping[str, Any]], str]
    group: asyncio.TaskGroup
    name: str = "ssh"
    routes: NodeRoutes = field(default_factory=NodeRoutes)
    tunnels: dict[str, Tunnel] = field(default_factory=dict)
    dials: Counter = field(default_factory=lambda: Counter(
        "apiserver_ssh_tunnel_dials_total", "Dials through SSH tunnels.", ("node", "result")))
    _tasks: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, connect: Connect, address_of: Callable[[Mapping[str, Any]], str]) -> AsyncIterator["Tunnels"]:
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            tunnels = cls(connect, address_of, group)
            try:
                yield tunnels
            except Exception as error:  # not the tunnels' own: it goes on as it came, outside of a group
                failure = error
            finally:
                await tunnels.aclose()
        if failure is not None:
            raise failure

    # -- Node objects

    def put(self, node: Mapping[str, Any]) -> None:
        """A Node is new or has changed."""
        name: str = node["metadata"]["name"]
        self.routes.put(facts_of(node))
        try:
            address = self.address_of(node)
        except PlainInternal as error:  # no address yet: its kubelet has not written its status
            log.debug("tunnel.wait node=%s reason=%s", name, error)
            return
        tunnel = self.tunnels.get(name)
        if tunnel is None:
            tunnel = self.tunnels[name] = Tunnel(name, address, self.connect, _report)
            self._tasks[name] = self.group.create_task(tunnel.run(), name=f"ssh tunnel {name}")
        elif tunnel.address != address:
            self.group.create_task(tunnel.move_to(address), name=f"ssh tunnel {name} moves")

    def remove(self, name: str) -> None:
        self.routes.remove(name)
        if self.tunnels.pop(name, None) is not None:
            self._tasks.pop(name).cancel()
            _report(name, "tunnel.removed")

    def replace(self, nodes: list[Mapping[str, Any]]) -> None:
        """These are all there are."""
        for name in set(self.tunnels) - {node["metadata"]["name"] for node in nodes}:
            self.remove(name)
        for node in nodes:
            self.put(node)

    # -- Dialer

    async def dial(self, host: str, port: int) -> socket.socket:
        address = join_host_port(host, port)
        node = self.routes.pick(host)
        tunnel = self.tunnels.get(node) if node is not None else None
        if node is None or tunnel is None:
            self.dials.add((node or "", "no tunnel"))
            raise NodeTunnelDown(address, f"ssh {node}" if node else "ssh", "no tunnel (no node has this address)")
        try:
            connection = await tunnel.connection(address)
            found = await connection.open(host, port)
        except NoTunnel as error:
            self.dials.add((node, "no tunnel"))
            raise NodeTunnelDown(error.address, error.via, error.reason) from error
        except DialError:
            self.dials.add((node, "failed"))
            raise
        self.dials.add((node, "ok"))
        return found

    async def aclose(self) -> None:
        for name in list(self.tunnels):
            self.remove(name)

    # -- how they are

    def health(self) -> str:
        """Not ready when there are nodes and none of them can be reached: one dead node is that node's affair, and one
        that is being reached for the first time is no fault yet."""
        down = [f"{tunnel.node}: {tunnel.reason}" for tunnel in self.tunnels.values() if tunnel.reason]
        return "; ".join(down) if down and len(down) == len(self.tunnels) else ""

    def show(self, metrics: Metrics) -> None:
        metrics.add(self.dials)
        for name, text, value in GAUGES:
            metrics.add(Gauge(f"apiserver_ssh_tunnel_{name}", text, ("node",), source=self._source(value)))

    def _source(self, value: Callable[[Tunnel], float]) -> Callable[[], list[tuple[Labels, float]]]:
        return lambda: [((one.node,), float(value(one))) for one in self.tunnels.values()]


GAUGES: Final[tuple[tuple[str, str, Callable[[Tunnel], float]], ...]] = (
    ("up", "Whether the SSH tunnel to the node stands.", lambda tunnel: tunnel.phase is Phase.UP),
    ("connects", "How often the tunnel was established.", lambda tunnel: tunnel.connects),
    ("channels", "Connections through the tunnel now.", lambda tunnel: tunnel.channels),
)


def _report(node: str, event: str) -> None:
    log.info("%s node=%s via=ssh", event, node)
