"""One agent link: a Connect call and the connections inside it, at either end.

Job: turn a tunnel's events into calls on legs and a leg's bytes into DATA packets, fairly. I own the legs inside the
tunnel; their peers own sockets. Neighbours: `protocol.tunnel` decides, `grpclink` moves bytes, `server.agentservice`
and `agent.serverlink` say what a dial is. Rule: the link never waits for one connection.

Sending: legs with something to say stand in a queue; each turn sends one packet of one leg, so bulk cannot starve the
others, and packets up to SMALL pass ahead of it towards a peer of ours (their amount is bounded by credit).
Receiving: from a peer of ours, credit bounds what one leg can hold. A foreign peer knows no credit: when one leg holds
PLAIN_BOUND unwritten bytes the whole link stops granting its HTTP/2 window, as upstream's would; but if the leg does
not move for STALL seconds, that one connection is closed and the others go on.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from konnectivity.grpclink import GRPCLink
from konnectivity.legs import NOBODY, Leg
from konnectivity.protocol.grpcevents import Message, Metadata, Status
from konnectivity.protocol.tunnel import (
    AgentTunnel,
    Credited,
    Event,
    Received,
    ServerTunnel,
    TheirClose,
    TheirEOF,
    Tunnel,
)
from konnectivity.streammetrics import StreamMeter
from wire.errors import PeerProtocolError
from wire.protocol.konnectivity import Buffer, CloseRequest, CloseResponse, Data, data_head, decode, encode

SMALL = 4 << 10
PLAIN_BOUND = 8 << 20
STALL = 2.0
# What a link's peer may send ahead on all its connections together. A foreign agent fills it with bulk, and everything
# else waits behind that; one of ours is bounded per connection and may have what a long way needs.
LINK_WINDOW = 512 << 10
EXTENDED_LINK_WINDOW = 8 << 20
CLOSES = frozenset((CloseRequest, CloseResponse))
EOF_GRACE = 5.0  # a plain peer cannot half-close: the other direction gets this long before the close

EXTENSIONS_KEY = "miniplane-extensions"  # metadata in both directions; real peers ignore it
EXTENSIONS = "1"


def are_extended(metadata: Metadata) -> bool:
    return list(metadata.get(EXTENSIONS_KEY, ())) == [EXTENSIONS]


class LinkLeg:
    """A connection's end inside the tunnel. Lives from the dial's success until the tunnel forgets the connection."""

    __slots__ = (
        "_grace",
        "_held",
        "_is_closing",
        "_is_eof_due",
        "_link",
        "_paused_peer",
        "_pending",
        "bytes_in",
        "bytes_out",
        "connect_id",
        "is_paused",
        "is_queued",
        "peer",
    )

    def __init__(self, link: "TunnelLink", connect_id: int) -> None:
        self.peer: Leg = NOBODY
        self.connect_id = connect_id
        self.is_paused = False
        self.is_queued = False
        self.bytes_in = 0
        self.bytes_out = 0
        self._link = link
        self._pending: deque[memoryview] = deque()
        self._held = 0  # received and passed on, but not yet credited
        self._is_eof_due = False
        self._is_closing = False
        self._paused_peer = False
        self._grace: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<LinkLeg {self.connect_id} pending={sum(map(len, self._pending))}>"

    # ------------------------------------------------------------ from the peer leg

    def send(self, data: Buffer) -> None:
        if self._is_closing or self._is_eof_due:
            return
        self._pending.append(memoryview(data))
        self._link.queue(self)
        if self._pending and not self._paused_peer:
            self._paused_peer = True
            self.peer.pause()

    def send_eof(self) -> None:
        self._is_eof_due = True
        if not self._pending:
            self._finish()

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            if not self._pending:
                self._finish()

    def abort(self, reason: str) -> None:
        self._pending.clear()
        self._link.tunnel.reset(self.connect_id, reason)
        self._link.forget(self)
        self._link.send_packets()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        if self._held:
            held, self._held = self._held, 0
            self._link.tunnel.count_consumed(self.connect_id, held)
            self._link.send_packets()
        self._link.release(self)

    # ------------------------------------------------------------ from the link

    @property
    def buffered(self) -> int:
        return sum(map(len, self._pending))

    @property
    def is_small(self) -> bool:
        return len(self._pending) == 1 and len(self._pending[0]) <= SMALL

    def transmit(self) -> bool:
        """Send one packet; whether there is more that may be sent."""
        if not self._pending:
            return False
        chunk = self._pending[0]
        room = self._link.tunnel.sendable(self.connect_id, len(chunk))
        if room <= 0:
            return False
        if len(chunk) > room:
            self._pending[0], chunk = chunk[room:], chunk[:room]
        else:
            self._pending.popleft()
        size = len(chunk)
        self.bytes_out += size
        self._link.tunnel.count_sent(self.connect_id, size)
        self._link.send_data(self.connect_id, chunk)
        if self._pending:
            return True
        self._on_empty()
        return False

    def _on_empty(self) -> None:
        if self._is_eof_due or self._is_closing:
            self._finish()
        if self._paused_peer and not self._is_closing:
            self._paused_peer = False
            self.peer.resume()

    def _finish(self) -> None:
        """All bytes are out: say how our side ended."""
        if self._is_closing:
            self._link.close_leg(self)
        elif not self._link.say_eof(self):
            self._grace = asyncio.get_running_loop().call_later(EOF_GRACE, self._link.close_leg, self)

    def receive(self, data: Buffer) -> None:
        size = len(data)
        self.bytes_in += size
        self.peer.send(data)
        if self.is_paused:
            self._held += size
            self._link.hold_if_full(self)
        else:
            self._link.tunnel.count_consumed(self.connect_id, size)

    def detach(self) -> Leg:
        """Leave the connection; the peer that was there."""
        self._is_closing = True
        if self._grace is not None:
            self._grace.cancel()
        peer, self.peer = self.peer, NOBODY
        return peer


class TunnelLink:
    """A Connect call with its tunnel and legs (see the module). `on_event` gets what concerns dials."""

    def __init__(
        self,
        grpc: GRPCLink,
        call_id: int,
        tunnel: ServerTunnel | AgentTunnel,
        on_event: Callable[[Event], None],
        on_lost: Callable[[str], None],
        meter: StreamMeter,
    ) -> None:
        self.grpc = grpc
        self.call_id = call_id
        self.tunnel: Tunnel = tunnel
        self.legs: dict[int, LinkLeg] = {}
        self.stalled = 0  # connections closed because a foreign peer flooded them
        self._meter = meter
        self._received, self._sent = meter.received, meter.sent
        self.on_idle: Callable[[], None] = lambda: None  # called whenever the last leg has left
        self._on_event = on_event
        self._on_lost = on_lost
        self._queue: deque[LinkLeg] = deque()
        self._is_running = False
        self._full: dict[LinkLeg, int] = {}  # legs over their bound, with what they held at the last look
        self._unacknowledged = 0
        self._watch: asyncio.TimerHandle | None = None
        if tunnel.extended:
            grpc.connection.widen(call_id, EXTENDED_LINK_WINDOW - LINK_WINDOW)

    # ------------------------------------------------------------ Call

    def on_accepted(self, metadata: Metadata) -> None: ...

    def on_message(self, message: Message) -> None:
        try:
            packet = decode(message.payload)
        except PeerProtocolError as error:
            self.drop(f"malformed packet: {error}")
            return
        self._received[type(packet)] += 1
        event = self.tunnel.receive(packet)
        if event is not None:
            self._apply(event)
        self.send_packets()
        self._unacknowledged += message.cost
        if not self._full:
            self._acknowledge()

    def on_ended(self, status: int, text: str) -> None:
        self._meter.count_end(status)
        if self._watch is not None:
            self._watch.cancel()
        legs, self.legs = list(self.legs.values()), {}
        self._queue.clear()
        self._full.clear()
        reason = text or f"call ended with status {status}"
        for leg in legs:
            leg.detach().abort(f"link lost: {reason}")
        self.on_idle()
        self._on_lost(reason)

    def on_writable(self) -> None:
        self._run_queue()

    def _acknowledge(self) -> None:
        cost, self._unacknowledged = self._unacknowledged, 0
        self.grpc.connection.acknowledge(self.call_id, cost)
        self.grpc.flush_soon()

    def _apply(self, event: Event) -> None:
        match event:
            case Received(connect_id, data):
                if leg := self.legs.get(connect_id):
                    leg.receive(data)
            case Credited(connect_id):
                if leg := self.legs.get(connect_id):
                    self.queue(leg)
            case TheirEOF(connect_id):
                if leg := self.legs.get(connect_id):
                    leg.peer.send_eof()
                    self._forget_if_over(leg)
            case TheirClose(connect_id, error):
                if leg := self.legs.get(connect_id):
                    peer = self.forget(leg)
                    if error:
                        peer.abort(error)
                    else:
                        peer.close()
            case _:
                self._on_event(event)

    # ------------------------------------------------------------ sending

    def open_leg(self, connect_id: int) -> LinkLeg:
        leg = self.legs[connect_id] = LinkLeg(self, connect_id)
        return leg

    def queue(self, leg: LinkLeg) -> None:
        """`leg` has something to send: now if possible, else in its turn."""
        if self.tunnel.extended and leg.is_small and not leg.is_queued:
            leg.transmit()
            return
        if not leg.is_queued:
            leg.is_queued = True
            self._queue.append(leg)
        self._run_queue()

    def _run_queue(self) -> None:
        if self._is_running:
            return  # a leg's peer was resumed and spoke: its turn comes in the loop below
        self._is_running = True
        try:
            while self._queue and not self.is_congested:
                leg = self._queue.popleft()
                leg.is_queued = False
                if leg.transmit() and not leg.is_queued:
                    leg.is_queued = True
                    self._queue.append(leg)
        finally:
            self._is_running = False

    @property
    def is_congested(self) -> bool:
        return self.grpc.is_congested or self.grpc.connection.queued(self.call_id) > 0

    def send_data(self, connect_id: int, chunk: memoryview) -> None:
        self._sent[Data] += 1
        self.grpc.send(self.call_id, data_head(connect_id, len(chunk)), chunk)

    def send_packets(self) -> None:
        """Send what the tunnel has to say. Never waits: these packets are small and answer the peer's."""
        if not self.tunnel.has_packets:
            return
        for packet in self.tunnel.take_packets():
            kind = type(packet)
            self._sent[kind] += 1
            if kind in CLOSES and self.tunnel.extended:
                # Both ends of the connection are settled already; real peers may have somebody waiting for it.
                self.grpc.postpone(self.call_id, encode(packet))
            else:
                self.grpc.send(self.call_id, encode(packet))

    def say_eof(self, leg: LinkLeg) -> bool:
        """Tell the peer that no more bytes come; False if it cannot be told without closing (a real agent)."""
        if self.tunnel.extended:
            self.tunnel.send_eof(leg.connect_id)
            self._forget_if_over(leg)
        elif isinstance(self.tunnel, AgentTunnel):
            self.tunnel.finish(leg.connect_id)
            self.forget(leg).close()
        else:
            return False
        self.send_packets()
        return True

    def close_leg(self, leg: LinkLeg) -> None:
        if isinstance(self.tunnel, AgentTunnel) and not self.tunnel.extended:
            self.tunnel.finish(leg.connect_id)
        else:
            self.tunnel.close(leg.connect_id)
        self.forget(leg).close()
        self.send_packets()

    # ------------------------------------------------------------ a leg that is full

    def hold_if_full(self, leg: LinkLeg) -> None:
        if self.tunnel.extended or leg in self._full or leg.peer.buffered < PLAIN_BOUND:
            return
        self._full[leg] = leg.peer.buffered
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(STALL, self._close_stalled)

    def release(self, leg: LinkLeg) -> None:
        if self._full.pop(leg, None) is not None and not self._full:
            self._acknowledge()

    def _close_stalled(self) -> None:
        self._watch = None
        for leg, before in list(self._full.items()):
            now = leg.peer.buffered
            if now < before:
                self._full[leg] = now
                continue
            self.stalled += 1
            leg.peer.abort("stopped reading while the agent kept sending")
            leg.abort("stopped reading")
        if self._full:
            self._watch = asyncio.get_running_loop().call_later(STALL, self._close_stalled)

    # ------------------------------------------------------------ ends

    def _forget_if_over(self, leg: LinkLeg) -> None:
        if leg.connect_id not in self.tunnel:
            self.forget(leg)

    def forget(self, leg: LinkLeg) -> Leg:
        self.legs.pop(leg.connect_id, None)
        self.release(leg)
        if not self.legs:
            self.on_idle()
        return leg.detach()

    def drop(self, reason: str) -> None:
        """End the whole link because the peer broke the protocol."""
        self.grpc.drop_call(self.call_id)
        self.on_ended(Status.INTERNAL, reason)
        self.grpc.close(reason)
