"""One link to one server, from connect to loss.

Job: connect, introduce ourselves, learn who answered, then dial what the server asks for. I own the connection and the
dials in progress. Neighbours: `sync` decides when to connect and keeps the links; `link` carries the connections;
`targets` dials. Rule: `run` returns when the link is over, and then nothing of it is left.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from konnectivity.agent.metrics import Metrics
from konnectivity.agent.targets import DIAL_TIMEOUT, Target, dial_target
from konnectivity.deadlines import Deadlines
from konnectivity.dialerrors import reason_text, type_name
from konnectivity.grpclink import GRPCLink
from konnectivity.legs import join
from konnectivity.link import EXTENSIONS, EXTENSIONS_KEY, LINK_WINDOW, TunnelLink, are_extended
from konnectivity.protocol.grpc import GRPCConnection
from konnectivity.protocol.grpcevents import Message, Metadata
from konnectivity.protocol.tunnel import AgentTunnel, DialAsked, DialCancelled, Event
from konnectivity.tls import AgentTLS
from wire.connections import ClientCertificate, Ledger
from wire.errors import DialError, DialTimeout
from wire.net import join_host_port

CONNECT = "/AgentService/Connect"
PURPOSE = "konnectivity tunnel"  # in the ledger
CONNECT_TIMEOUT = 10.0  # TCP and TLS, and again for the server's answer: upstream's agent waits for ever
EXTENDED_KEEPALIVE = (3.0, 8.0)
PLAIN_KEEPALIVE = (30.0, 20.0)  # grpc-go servers punish more than one ping per 30 s

_log = logging.getLogger("konnectivity.agent")


class ConnectFailed(Exception):
    """No link. `is_cheap`: nobody was bothered (refused, reset), so trying again soon is harmless."""

    def __init__(self, reason: str, is_cheap: bool = False) -> None:
        super().__init__(reason)
        self.is_cheap = is_cheap


class DuplicateServer(Exception):
    """The server that answered already has a link."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What we say of ourselves at each connect."""

    agent_id: str
    identifiers: str
    token_path: str
    certificate: ClientCertificate

    @property
    def credentials(self) -> str:
        """As the ledger names them."""
        shown = self.certificate.shown()
        if not self.token_path:
            return shown
        return "bearer token" if shown == "none" else f"{shown}, bearer token"

    def metadata(self) -> Metadata:
        found = {"agentid": [self.agent_id], "agentidentifiers": [self.identifiers], EXTENSIONS_KEY: [EXTENSIONS]}
        if self.token_path:
            with open(self.token_path, encoding="utf-8") as file:
                found["authorization"] = ["Bearer " + file.read().strip()]
        return found


@dataclass(frozen=True, slots=True)
class Address:
    """Where to dial, and the name the server's certificate must carry."""

    host: str
    port: int
    server_name: str

    @property
    def where(self) -> str:
        return join_host_port(self.host, self.port)


class ServerLink:
    """A link that stands. Made by `connect`; `run` it."""

    def __init__(self, grpc: GRPCLink, metrics: Metrics) -> None:
        self.grpc = grpc
        self.server_id = ""
        self.server_count = 0
        self.link: TunnelLink | None = None
        self._metrics = metrics
        self._tunnel: AgentTunnel
        self._dials: dict[int, asyncio.Task[None]] = {}
        self._deadlines: Deadlines[DialAsked] = Deadlines(DIAL_TIMEOUT, self._on_timeout)
        self._early: list[DialAsked] = []
        self._group: asyncio.TaskGroup | None = None
        self._is_extended = False
        self._loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[None] = self._loop.create_future()

    def __repr__(self) -> str:
        return f"<ServerLink {self.server_id} connections={self.connections} dials={len(self._dials)}>"

    @property
    def connections(self) -> int:
        return len(self.link.legs) if self.link is not None else 0

    # ------------------------------------------------------------ Call, until accepted

    def call(self, metadata: Metadata) -> None:
        self._call_id = self.grpc.open_call(self, CONNECT, metadata)

    def on_accepted(self, metadata: Metadata) -> None:
        ids, counts = list(metadata.get("serverid", ())), list(metadata.get("servercount", ()))
        if len(ids) != 1 or len(counts) != 1 or not counts[0].isdecimal():
            self._fail(f"server introduced itself with serverid={ids} servercount={counts}")
            return
        self.server_id, self.server_count = ids[0], int(counts[0])
        self._is_extended = are_extended(metadata)
        # A fresh random base: the server keys by agent and connect id, and two links may overlap in time.
        first = random.SystemRandom().getrandbits(34) + 1
        self._tunnel = AgentTunnel(extended=self._is_extended, first_connect_id=first)
        meter = self._metrics.streams.meter("to_agent", "from_agent")
        self.link = TunnelLink(self.grpc, self._call_id, self._tunnel, self._on_event, self._on_lost, meter)
        # In this very turn: the server may have a dial right behind its headers.
        self.grpc.calls[self._call_id] = self.link
        if not self.accepted.done():
            self.accepted.set_result(None)

    def on_message(self, message: Message) -> None:
        self._fail("server sent a packet before its headers")

    def on_ended(self, status: int, text: str) -> None:
        self._fail(f"server refused the call: {text or 'no reason given'} (status {status})")

    def on_writable(self) -> None: ...

    def _fail(self, reason: str) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(ConnectFailed(reason))
        self.grpc.close(reason)

    # ------------------------------------------------------------ life

    async def run(self) -> str:
        """Serve the server's dials until the link is lost; why it was."""
        interval, timeout = EXTENDED_KEEPALIVE if self._is_extended else PLAIN_KEEPALIVE
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                keepalive = group.create_task(self.grpc.keep_alive(interval, timeout), name="keepalive")
                early, self._early = self._early, []
                for event in early:
                    self._start_dial(event)
                await asyncio.wait([self.grpc.closed])
                keepalive.cancel()
                for task in self._dials.values():
                    task.cancel()
        finally:
            self._group = None
            self._deadlines.stop()
            self.grpc.close()
        return self.grpc.closed.result()

    def drain(self, on_idle: Callable[[], None]) -> None:
        """Tell the server to prefer others; `on_idle` whenever no connection is left."""
        if self.link is not None:
            self.link.on_idle = on_idle
            self._tunnel.drain()
            self.link.send_packets()

    def _on_lost(self, reason: str) -> None:
        self.grpc.close(reason)

    # ------------------------------------------------------------ dials

    def _on_event(self, event: Event) -> None:
        match event:
            case DialAsked():
                self._start_dial(event)
            case DialCancelled(dial_id):
                if task := self._dials.pop(dial_id, None):
                    task.cancel()

    def _start_dial(self, asked: DialAsked) -> None:
        if self._group is None:
            self._early.append(asked)  # `run` begins in the next turn
            return
        self._dials[asked.dial_id] = self._group.create_task(self._dial(asked), name="dial")
        self._deadlines.add(asked)

    async def _dial(self, asked: DialAsked) -> None:
        started = self._loop.time()
        try:
            await dial_target(asked.address, lambda target: self._on_target(asked, target), not self._is_extended)
        except DialError as error:
            self._refuse(asked, error)
        else:
            self._metrics.dial_seconds.observe(self._loop.time() - started)
        finally:
            self._dials.pop(asked.dial_id, None)
            self._deadlines.discard(asked)

    def _on_timeout(self, asked: DialAsked) -> None:
        if task := self._dials.pop(asked.dial_id, None):
            task.cancel()
            self._refuse(asked, DialTimeout(asked.address, "agent", "i/o timeout"))

    def _refuse(self, asked: DialAsked, error: DialError) -> None:
        kind = "timeout" if isinstance(error, DialTimeout) else "unknown"
        self._metrics.dial_failures.add(kind)
        _log.info("dial.failed address=%s reason=%r", asked.address, error.reason)
        self._tunnel.refuse_dial(asked.dial_id, reason_text(error), type_name(error))
        if self.link is not None:
            self.link.send_packets()

    def _on_target(self, asked: DialAsked, target: Target) -> None:
        connect_id = self._tunnel.answer_dial(asked.dial_id)
        if connect_id is None or self.link is None or self.grpc.closed.done():
            target.abort("nobody waits for it any more")
            return
        join(target, self.link.open_leg(connect_id))
        self.link.send_packets()


async def connect(
    address: Address,
    tls: AgentTLS,
    identity: Identity,
    metrics: Metrics,
    ledger: Ledger,
    is_known: Callable[[str], bool],
) -> ServerLink:
    """A link to whoever answers at `address`. Raises ConnectFailed, or DuplicateServer if `is_known(server_id)`."""
    entry = ledger.record(
        source="konnectivity-agent", target=address.where, purpose=PURPOSE, credentials=identity.credentials
    )
    try:
        grpc = await _open(address, tls)
    except BaseException as error:
        entry.close(str(error) or type(error).__name__)
        raise
    entry.connected(grpc, tls.ca or None)
    link = ServerLink(grpc, metrics)
    try:
        link.call(identity.metadata())
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await link.accepted
        if is_known(link.server_id):
            raise DuplicateServer(link.server_id)
    except BaseException as error:
        grpc.close("not used")
        if isinstance(error, TimeoutError):
            raise ConnectFailed(f"no answer to the call within {CONNECT_TIMEOUT:g} s") from error
        if isinstance(error, OSError):
            raise ConnectFailed(f"token: {error}") from error
        raise
    return link


async def _open(address: Address, tls: AgentTLS) -> GRPCLink:
    loop = asyncio.get_running_loop()
    where = address.where
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            transport, grpc = await loop.create_connection(
                lambda: GRPCLink(GRPCConnection(client=True, call_window=LINK_WINDOW)),
                address.host,
                address.port,
                ssl=tls.context,
                server_hostname=address.server_name,
                ssl_shutdown_timeout=2.0,
            )
    except TimeoutError as error:
        raise ConnectFailed(f"{where}: timeout") from error
    except ssl.SSLError as error:
        raise ConnectFailed(f"{where}: tls: {error}") from error
    except OSError as error:
        is_cheap = isinstance(error, ConnectionError)
        raise ConnectFailed(f"{where}: {error}", is_cheap) from error
    if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
        grpc.close("no ALPN h2")
        raise ConnectFailed(f"{where}: server does not speak h2 (ALPN)")
    return grpc
