"""The agent port: AgentService/Connect.

Job: check who calls, answer with who we are, and enter the link among the backends. I own the agent links from
acceptance to loss. Neighbours: `listener` (TLS), `authentication`, `backends`, `link`. Rule: an agent that is refused
is told so in gRPC and logged once; it learns nothing else.
"""

import asyncio
import logging
from dataclasses import dataclass

from konnectivity.grpclink import Call, GRPCLink
from konnectivity.link import EXTENSIONS, EXTENSIONS_KEY, LINK_WINDOW, TunnelLink, are_extended
from konnectivity.protocol.grpc import GRPCConnection
from konnectivity.protocol.grpcevents import CallOpened, Message, Metadata, Status
from konnectivity.protocol.tunnel import ServerTunnel
from konnectivity.server.authentication import Authenticate, Unauthenticated
from konnectivity.server.backends import Backends
from konnectivity.server.dials import Backend
from konnectivity.server.identifiers import Identifiers, parse_identifiers
from konnectivity.server.metrics import Metrics
from wire.apiclient import APIError
from wire.errors import WireError

CONNECT = "/AgentService/Connect"
MAX_ID = 1024  # characters of an agent id
EXTENDED_KEEPALIVE = (3.0, 8.0)  # interval, timeout; our own agents answer at once
PLAIN_KEEPALIVE = 20.0  # grpc's ping timeout

_log = logging.getLogger("konnectivity.agents")


@dataclass(frozen=True, slots=True)
class Introduction:
    """What an agent says of itself when it calls."""

    agent_id: str
    identifiers: Identifiers
    is_extended: bool


class Refused(Exception):
    """The call cannot be accepted; the text is for the agent."""


def introduce(metadata: Metadata) -> Introduction:
    """Raises Refused."""
    ids = list(metadata.get("agentid", ()))
    if len(ids) != 1 or not ids[0] or len(ids[0]) > MAX_ID or not ids[0].isprintable():
        raise Refused(f"expected one agent ID in the context, got {len(ids)}")
    queries = list(metadata.get("agentidentifiers", ()))
    if len(queries) > 1:
        raise Refused(f"expected one agent identifiers value in the context, got {len(queries)}")
    try:
        identifiers = parse_identifiers(queries[0] if queries else "")
    except ValueError as error:
        raise Refused(f"agent identifiers: {error}") from error
    return Introduction(ids[0], identifiers, are_extended(metadata))


class AgentService:
    """Everything behind the agent port. `group` owns the tasks of the calls (authentication, keepalive)."""

    def __init__(
        self,
        backends: Backends[Backend],
        metrics: Metrics,
        authenticate: Authenticate,
        server_id: str,
        server_count: int,
        keepalive: float,
        group: asyncio.TaskGroup,
    ) -> None:
        self.links: set[GRPCLink] = set()
        self._backends = backends
        self._metrics = metrics
        self._meter = metrics.streams.meter("from_agent", "to_agent", lost=Status.CANCELLED)
        self._authenticate = authenticate
        self._greeting = {"serverid": [server_id], "servercount": [str(server_count)]}
        self._keepalive = keepalive
        self._group = group

    def __call__(self) -> GRPCLink:
        """The protocol of one accepted connection."""
        return GRPCLink(GRPCConnection(client=False, call_window=LINK_WINDOW), self._open_call, self.links)

    def _open_call(self, link: GRPCLink, call: CallOpened) -> Call | None:
        if call.path != CONNECT:
            link.end_call(call.call, Status.UNIMPLEMENTED, f"unknown method {call.path[:100]}")
            return None
        pending = PendingCall(link, call.call)
        pending.task = self._group.create_task(self._admit(link, call, pending), name=f"admit {link.peername}")
        return pending

    async def _admit(self, link: GRPCLink, call: CallOpened, pending: "PendingCall") -> None:
        try:
            introduction = introduce(call.metadata)
            await self._authenticate(call.metadata)
        except Refused as error:
            self._refuse(link, call.call, Status.UNKNOWN, str(error), str(error))
        except Unauthenticated as error:
            self._refuse(link, call.call, Status.UNAUTHENTICATED, "authentication failed", str(error))
        except (APIError, WireError, OSError, TimeoutError) as error:
            self._refuse(link, call.call, Status.UNAVAILABLE, "authentication is not available", str(error))
        else:
            if not pending.is_over:
                self._enter(link, call.call, introduction)

    def _refuse(self, link: GRPCLink, call_id: int, status: Status, text: str, reason: str) -> None:
        _log.warning("agent.refused peer=%s status=%s reason=%r", link.peername, status.name, reason)
        link.calls.pop(call_id, None)
        link.end_call(call_id, status, text)

    def _enter(self, link: GRPCLink, call_id: int, who: Introduction) -> None:
        tunnel = ServerTunnel(extended=who.is_extended)
        backend = Backend(who.agent_id, who.identifiers, tunnel)

        def on_lost(reason: str) -> None:
            _log.info("link.lost agent=%s reason=%r", who.agent_id, reason)
            self._backends.remove(backend)
            self._metrics.full_channels.add("Connect", amount=backend.link.stalled)
            backend.on_lost(reason)
            # A client that ended its call may have ended only that; the status is owed to it.
            link.end_call(call_id)

        backend.link = TunnelLink(link, call_id, tunnel, backend.on_event, on_lost, self._meter)
        link.calls[call_id] = backend.link
        extension = {EXTENSIONS_KEY: [EXTENSIONS]} if who.is_extended else {}
        link.connection.accept_call(call_id, self._greeting | extension)
        link.flush()
        self._backends.add(backend)
        interval, timeout = EXTENDED_KEEPALIVE if who.is_extended else (self._keepalive, PLAIN_KEEPALIVE)
        self._group.create_task(link.keep_alive(interval, timeout), name=f"keepalive {who.agent_id}")
        kind = "extended" if who.is_extended else "plain"
        _log.info("link.up agent=%s peer=%s kind=%s agents=%d", who.agent_id, link.peername, kind, len(self._backends))

    def close(self, reason: str) -> None:
        for link in list(self.links):
            link.connection.go_away()
            link.close(reason)


class PendingCall:
    """A call that is being authenticated. An agent that speaks before it is answered breaks the protocol."""

    def __init__(self, link: GRPCLink, call_id: int) -> None:
        self.is_over = False
        self.task: asyncio.Task[None] | None = None
        self._link = link
        self._call_id = call_id

    def on_accepted(self, metadata: Metadata) -> None: ...

    def on_message(self, message: Message) -> None:
        self._cancel()
        self._link.drop_call(self._call_id)

    def on_ended(self, status: int, text: str) -> None:
        self._cancel()

    def on_writable(self) -> None: ...

    def _cancel(self) -> None:
        self.is_over = True
        if self.task is not None:
            self.task.cancel()

