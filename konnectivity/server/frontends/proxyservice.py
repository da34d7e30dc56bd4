"""The gRPC front: ProxyService/Proxy, one call per connection, any number of calls per HTTP/2 connection.

Job: be the leg whose bytes are DATA packets on a call of their own, so that HTTP/2's window is its flow control.
Neighbours: `grpclink` carries the calls, `dials` makes the connections. Rule: one connection per call; a second one
ends both, as upstream does it. A CLOSE_RSP answers every CLOSE_REQ at once (clients wait 10 s for it at most).
"""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto

from konnectivity.dialerrors import type_name
from konnectivity.greeting import Greeting
from konnectivity.grpclink import Call, GRPCLink
from konnectivity.legs import NOBODY, Leg, join
from konnectivity.link import LinkLeg
from konnectivity.protocol.grpc import GRPCConnection
from konnectivity.protocol.grpcevents import CallOpened, Message, Metadata, Status
from konnectivity.server.dials import Dial, DialDesk
from konnectivity.server.metrics import Metrics
from konnectivity.streammetrics import StreamMeter
from wire.errors import DialError, PeerProtocolError
from wire.protocol.konnectivity import (
    Buffer,
    CloseDial,
    CloseRequest,
    CloseResponse,
    Data,
    DialRequest,
    DialResponse,
    Packet,
    data_head,
    decode,
    encode,
)

PROXY = "/ProxyService/Proxy"
CALL_WINDOW = 512 << 10
KEEPALIVE_TIMEOUT = 20.0  # grpc's
MAX_CALLS = 10_000  # per HTTP/2 connection

_log = logging.getLogger("konnectivity.front")


class State(Enum):
    WAITING = auto()
    DIALLING = auto()
    RELAYING = auto()
    ENDED = auto()


class ProxyService:
    """Everything behind the gRPC front."""

    def __init__(self, desk: DialDesk, on_ended: Callable[[float], None], metrics: Metrics) -> None:
        self.links: set[GRPCLink] = set()
        self.fronts: set[ProxyFront] = set()
        self._desk = desk
        self._on_ended = on_ended
        self._meter = metrics.streams.meter("from_client", "to_client", lost=Status.CANCELLED)
        self._observe_write = metrics.front_write_seconds.observe

    def __call__(self) -> GRPCLink:
        connection = GRPCConnection(client=False, call_window=CALL_WINDOW, max_calls=MAX_CALLS)
        return GRPCLink(connection, self._open_call, self.links)

    def _open_call(self, link: GRPCLink, call: CallOpened) -> Call | None:
        if call.path != PROXY:
            link.end_call(call.call, Status.UNIMPLEMENTED, f"unknown method {call.path[:100]}")
            return None
        link.connection.accept_call(call.call, {})
        front = ProxyFront(link, call.call, self._desk, self._end, self._meter, self._observe_write)
        self.fronts.add(front)
        return front

    def _end(self, front: "ProxyFront", lived: float) -> None:
        if front in self.fronts:
            self.fronts.discard(front)
            if lived > 0:
                self._on_ended(lived)

    async def keep_alive(self, interval: float) -> None:
        """Ping fronts that were silent for `interval`, until cancelled. One task for all: most live for one dial."""
        while True:
            waits = [link.look(interval, KEEPALIVE_TIMEOUT) for link in list(self.links)]
            await asyncio.sleep(min((interval / 4, *waits)))

    def close(self, reason: str) -> None:
        for link in list(self.links):
            link.connection.go_away()
            link.close(reason)


class ProxyFront:
    """One Proxy call: a leg once its dial is answered. Lives as long as the call."""

    def __init__(
        self,
        link: GRPCLink,
        call_id: int,
        desk: DialDesk,
        on_end: Callable[["ProxyFront", float], None],
        meter: StreamMeter,
        observe_write: Callable[[float], None],
    ) -> None:
        self.peer: Leg = NOBODY
        self.state = State.WAITING
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._call_id = call_id
        self._desk = desk
        self._on_end = on_end
        self._meter = meter
        self._observe_write = observe_write
        self._paused_at = 0.0
        self._dial: Dial | None = None
        self._dial_id = 0
        self._connect_id = 0
        self._established = 0.0
        self._greeting: Greeting | None = None
        self._is_paused = False
        self._is_peer_paused = False
        self._unacknowledged = 0
        self._handlers: dict[type, Callable[..., None]] = {
            DialRequest: self._on_dial_request,
            CloseDial: self._on_close_dial,
            CloseRequest: self._on_close_request,
            Data: self._on_data,
        }

    def __repr__(self) -> str:
        return f"<ProxyFront call={self._call_id} connect_id={self._connect_id} {self.state.name}>"

    # ------------------------------------------------------------ Call

    def on_accepted(self, metadata: Metadata) -> None: ...

    def on_message(self, message: Message) -> None:
        try:
            packet = decode(message.payload)
        except PeerProtocolError as error:
            _log.warning("front.broken reason=%r", str(error))
            self._finish(Status.INTERNAL, str(error))
            return
        self._meter.received[type(packet)] += 1
        self._unacknowledged += message.cost
        handler = self._handlers.get(type(packet))
        if handler is not None:
            handler(packet)
        if not self._is_paused:
            self._acknowledge()

    def on_ended(self, status: int, text: str) -> None:
        """The client has ended its call, or was lost: nobody reads here any more."""
        self._meter.count_end(status)
        if self.state is State.DIALLING and self._dial is not None:
            self._dial.cancel()
        peer, self.peer = self.peer, NOBODY
        self._finish()
        if status in (Status.OK, Status.CANCELLED):
            peer.close()
        else:
            peer.abort(f"front lost: {text}")

    def on_writable(self) -> None:
        if self._is_peer_paused and not self._is_congested:
            self._is_peer_paused = False
            self._observe_write(self._loop.time() - self._paused_at)
            self.peer.resume()

    # ------------------------------------------------------------ packets of the client

    def _on_dial_request(self, packet: DialRequest) -> None:
        if self.state is not State.WAITING:
            _log.warning("front.broken reason='second dial on one Proxy call'")
            self.abort("second dial on one Proxy call")
            return
        self.state, self._dial_id = State.DIALLING, packet.dial_id
        if packet.protocol != "tcp":
            self._answer_failed(f"protocol {packet.protocol[:20]!r} is not supported", "")
            return
        dial = self._desk.dial(packet.address, self)
        if self.state is State.DIALLING:
            self._dial = dial

    def _on_close_dial(self, packet: CloseDial) -> None:
        if self.state is State.DIALLING and packet.dial_id == self._dial_id and self._dial is not None:
            self._dial.cancel()
            self._finish()

    def _on_data(self, packet: Data) -> None:
        if self.state is not State.RELAYING or packet.connect_id != self._connect_id:
            if packet.connect_id:
                self._send(CloseRequest(packet.connect_id))
            return
        if self._greeting is not None:
            self._end_greeting()
        if packet.data:
            self.peer.send(packet.data)

    def _on_close_request(self, packet: CloseRequest) -> None:
        if self.state is not State.RELAYING or packet.connect_id != self._connect_id:
            self._send(CloseResponse(packet.connect_id, "Unknown connectID"))
            return
        peer, self.peer = self.peer, NOBODY
        peer.close()
        self._send(CloseResponse(packet.connect_id))
        self._finish()

    # ------------------------------------------------------------ the dial's answer

    def on_dialled(self, leg: LinkLeg) -> None:
        self._dial = None
        self.state, self._connect_id = State.RELAYING, leg.connect_id
        self._established = self._loop.time()
        self._greeting = Greeting(self._send_data, None)
        join(self, leg)
        self._send(DialResponse(self._dial_id, leg.connect_id))

    def on_dial_failed(self, error: DialError) -> None:
        self._dial = None
        _log.info("dial.failed address=%s type=%s reason=%r", error.address, type_name(error), error.reason)
        self._answer_failed(error.reason, type_name(error))

    def _answer_failed(self, text: str, kind: str) -> None:
        self._send(DialResponse(self._dial_id, 0, text, kind))
        self._finish()

    # ------------------------------------------------------------ Leg

    @property
    def buffered(self) -> int:
        return self._link.connection.queued(self._call_id)

    @property
    def _is_congested(self) -> bool:
        return self._link.is_congested or self._link.connection.queued(self._call_id) > 0

    def send(self, data: Buffer) -> None:
        if self.state is not State.RELAYING:
            return
        if self._greeting is None:
            self._send_data(data)
        else:
            self._greeting.hold(data)

    def _send_data(self, data: Buffer) -> None:
        self._meter.sent[Data] += 1
        self._link.send(self._call_id, data_head(self._connect_id, len(data)), data)
        if not self._is_congested:
            self._observe_write(0.0)
        elif not self._is_peer_paused:
            self._is_peer_paused = True
            self._paused_at = self._loop.time()
            self.peer.pause()

    def send_eof(self) -> None:
        """The dialect has no half-close: the end of one direction is the end."""
        peer, self.peer = self.peer, NOBODY
        peer.close()
        self.close()

    def close(self) -> None:
        if self._greeting is not None:
            self._greeting.hold_end(self._close)
        else:
            self._close()

    def _close(self) -> None:
        if self.state is State.RELAYING:
            self._send(CloseResponse(self._connect_id))
            self._finish()

    def abort(self, reason: str) -> None:
        if self.state is State.RELAYING:
            self._send(CloseResponse(self._connect_id, reason))
            peer, self.peer = self.peer, NOBODY
            peer.abort(reason)
        self._finish(Status.UNAVAILABLE, reason)

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._acknowledge()

    # ------------------------------------------------------------ inside

    def _acknowledge(self) -> None:
        cost, self._unacknowledged = self._unacknowledged, 0
        self._link.connection.acknowledge(self._call_id, cost)
        self._link.flush_soon()

    def _send(self, packet: Packet) -> None:
        self._meter.sent[type(packet)] += 1
        self._link.send(self._call_id, encode(packet))

    def _end_greeting(self) -> None:
        greeting, self._greeting = self._greeting, None
        if greeting is not None:
            greeting.release()

    def _finish(self, status: Status = Status.OK, text: str = "") -> None:
        if self.state is State.ENDED:
            return
        lived = self._loop.time() - self._established if self.state is State.RELAYING else 0.0
        self.state = State.ENDED
        if self._greeting is not None:
            self._greeting.discard()
        self._link.end_call(self._call_id, status, text)
        self._on_end(self, lived)
