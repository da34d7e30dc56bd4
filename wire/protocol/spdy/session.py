"""One SPDY connection, without I/O: either role, all its streams.

Bytes in, events out; what has to be sent collects in `data_to_send()`. Owns the ids, the compression states and the
state of every stream. `wire.spdy_session` moves the bytes. No clock: deadlines are the shell's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from wire.errors import PeerProtocolError
from wire.protocol.spdy.frames import (
    FIN,
    MAX_DATA,
    Control,
    Data,
    FrameReader,
    FrameType,
    ResetStatus,
    control,
    data_head,
)
from wire.protocol.spdy.headers import HeaderCompressor, HeaderDecompressor, Headers

MAX_STREAMS = 2000  # a port-forward session holds two per open connection


class Role(Enum):
    CLIENT = auto()
    SERVER = auto()


class StreamState(Enum):
    """From our point of view. OPENING: SYN sent or received, no reply yet."""

    OPENING = auto()
    OPEN = auto()
    WE_ENDED = auto()
    THEY_ENDED = auto()
    CLOSED = auto()


class Step(Enum):
    REPLY = auto()
    OUR_FIN = auto()
    THEIR_FIN = auto()
    RESET = auto()


# Data and FIN before the reply are legal SPDY, although Go drops them: we deliver what we are given.
TRANSITIONS: dict[tuple[StreamState, Step], StreamState] = {
    (StreamState.OPENING, Step.REPLY): StreamState.OPEN,
    (StreamState.OPENING, Step.OUR_FIN): StreamState.WE_ENDED,
    (StreamState.OPENING, Step.THEIR_FIN): StreamState.THEY_ENDED,
    (StreamState.OPENING, Step.RESET): StreamState.CLOSED,
    (StreamState.OPEN, Step.REPLY): StreamState.OPEN,
    (StreamState.OPEN, Step.OUR_FIN): StreamState.WE_ENDED,
    (StreamState.OPEN, Step.THEIR_FIN): StreamState.THEY_ENDED,
    (StreamState.OPEN, Step.RESET): StreamState.CLOSED,
    (StreamState.WE_ENDED, Step.REPLY): StreamState.WE_ENDED,
    (StreamState.WE_ENDED, Step.THEIR_FIN): StreamState.CLOSED,
    (StreamState.WE_ENDED, Step.RESET): StreamState.CLOSED,
    (StreamState.THEY_ENDED, Step.REPLY): StreamState.THEY_ENDED,
    (StreamState.THEY_ENDED, Step.OUR_FIN): StreamState.CLOSED,
    (StreamState.THEY_ENDED, Step.RESET): StreamState.CLOSED,
}


@dataclass(frozen=True, slots=True)
class StreamOpened:
    stream_id: int
    headers: Headers
    fin: bool


@dataclass(frozen=True, slots=True)
class StreamReplied:
    stream_id: int
    headers: Headers
    fin: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    stream_id: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class PingAnswered:
    ping_id: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer ends the connection. Nothing behind it is read."""

    last_stream_id: int
    status: int


Event = StreamOpened | StreamReplied | DataReceived | StreamReset | PingAnswered | GoneAway


class IllegalStep(Exception):
    """We tried something the stream's state does not allow: a bug of ours."""


class SpdyConnection:
    """The state of one connection. After PeerProtocolError it is over: close the transport."""

    def __init__(self, role: Role, max_streams: int = MAX_STREAMS) -> None:
        self.role = role
        self.streams: dict[int, StreamState] = {}
        self.last_stream_id = 0  # the highest of the peer's that we took
        self._max_streams = max_streams
        self._reader = FrameReader()
        self._compressor = HeaderCompressor()
        self._decompressor = HeaderDecompressor()
        self._next_id = 1 if role is Role.CLIENT else 2
        self._next_ping = self._next_id
        self._expected_id = 0
        self._gone = False
        self._out: list[bytes] = []

    # In

    def receive_data(self, data: bytes) -> list[Event]:
        """Events in order. Raises PeerProtocolError."""
        events: list[Event] = []
        if self._gone:
            return events
        for frame in self._reader.feed(data):
            if isinstance(frame, Data):
                self._on_data(frame, events)
            elif handler := _HANDLERS.get(frame.kind):
                handler(self, frame, events)
            # Other types are skipped by their length: we need none of them and owe no answer.
            if self._gone:
                break
        return events

    def _on_data(self, frame: Data, events: list[Event]) -> None:
        state = self.streams.get(frame.stream_id)
        # Go's sender may still emit DATA for a stream we reset; kubectl resets streams we have forgotten.
        if state is None or state is StreamState.THEY_ENDED:
            return
        if frame.fin:
            self._step(frame.stream_id, Step.THEIR_FIN)
        if frame.data or frame.fin:
            events.append(DataReceived(frame.stream_id, frame.data, frame.fin))

    def _on_syn_stream(self, frame: Control, events: list[Event]) -> None:
        payload = _at_least(frame, 10)
        stream_id = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        headers = self._decompressor.decompress(payload[10:])
        if stream_id == 0:
            raise PeerProtocolError("SYN_STREAM with stream id 0")
        if stream_id < self._expected_id or stream_id in self.streams:
            self._send_reset(stream_id, ResetStatus.PROTOCOL_ERROR)
            return
        if len(self.streams) >= self._max_streams:
            self._send_reset(stream_id, ResetStatus.REFUSED_STREAM)
            return
        self._expected_id = stream_id + 2
        self.last_stream_id = stream_id
        self.streams[stream_id] = StreamState.OPENING
        fin = bool(frame.flags & FIN)
        if fin:
            self._step(stream_id, Step.THEIR_FIN)
        events.append(StreamOpened(stream_id, headers, fin))

    def _on_syn_reply(self, frame: Control, events: list[Event]) -> None:
        payload = _at_least(frame, 4)
        stream_id = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        headers = self._decompressor.decompress(payload[4:])
        if stream_id not in self.streams:
            return
        self._step(stream_id, Step.REPLY)
        fin = bool(frame.flags & FIN)
        if fin and self.streams.get(stream_id) is not StreamState.THEY_ENDED:
            self._step(stream_id, Step.THEIR_FIN)
        events.append(StreamReplied(stream_id, headers, fin))

    def _on_rst_stream(self, frame: Control, events: list[Event]) -> None:
        payload = _at_least(frame, 8)
        stream_id = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        if stream_id in self.streams:
            self._step(stream_id, Step.RESET)
            events.append(StreamReset(stream_id, int.from_bytes(payload[4:8], "big")))

    def _on_settings(self, frame: Control, events: list[Event]) -> None:
        # Ignored, but a count that does not fit its frame is an attack on somebody (CVE-2026-35469).
        payload = _at_least(frame, 4)
        if int.from_bytes(payload[:4], "big") * 8 != len(payload) - 4:
            raise PeerProtocolError("SETTINGS count does not match its length")

    def _on_ping(self, frame: Control, events: list[Event]) -> None:
        payload = _at_least(frame, 4)
        ping_id = int.from_bytes(payload[:4], "big")
        if ping_id == 0:
            raise PeerProtocolError("PING with id 0")
        # Echoing an id of our own parity would let two echoers play for ever.
        if ping_id % 2 == self._next_ping % 2:
            events.append(PingAnswered(ping_id))
        else:
            self._out.append(control(FrameType.PING, payload[:4]))

    def _on_goaway(self, frame: Control, events: list[Event]) -> None:
        payload = _at_least(frame, 8)
        self._gone = True
        events.append(GoneAway(int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")))

    def _on_headers(self, frame: Control, events: list[Event]) -> None:
        self._decompressor.decompress(_at_least(frame, 4)[4:])

    # Out

    def data_to_send(self) -> bytes:
        """Everything to be written now, in order."""
        if not self._out:
            return b""
        out, self._out = b"".join(self._out), []
        return out

    def open_stream(self, headers: Headers) -> int:
        """A new stream of ours; its id."""
        stream_id = self._next_id
        self._next_id += 2
        self.streams[stream_id] = StreamState.OPENING
        block = self._compressor.compress(headers)
        self._out.append(control(FrameType.SYN_STREAM, stream_id.to_bytes(4, "big") + bytes(6) + block))
        return stream_id

    def reply(self, stream_id: int) -> None:
        self._step(stream_id, Step.REPLY)
        block = self._compressor.compress({})
        self._out.append(control(FrameType.SYN_REPLY, stream_id.to_bytes(4, "big") + block))

    def send_data(self, stream_id: int, data: bytes) -> None:
        """Queue data, split into frames. A stream that is closed or ended by us raises IllegalStep."""
        if self.streams.get(stream_id) in (None, StreamState.WE_ENDED):
            raise IllegalStep(f"data on stream {stream_id} in state {self.streams.get(stream_id)}")
        for start in range(0, len(data), MAX_DATA):
            piece = data[start : start + MAX_DATA] if len(data) > MAX_DATA else data
            self._out += (data_head(stream_id, len(piece), False), piece)

    def can_send(self, stream_id: int) -> bool:
        return self.streams.get(stream_id) not in (None, StreamState.WE_ENDED)

    def finish(self, stream_id: int) -> None:
        """FIN: an empty DATA frame. Does nothing on a stream that we or a reset have ended."""
        if self.can_send(stream_id):
            self._step(stream_id, Step.OUR_FIN)
            self._out.append(data_head(stream_id, 0, True))

    def reset(self, stream_id: int, status: ResetStatus = ResetStatus.CANCEL) -> None:
        """RST_STREAM, if the stream still lives."""
        if stream_id in self.streams:
            self._step(stream_id, Step.RESET)
            self._send_reset(stream_id, status)

    def ping(self) -> int:
        ping_id = self._next_ping
        self._next_ping += 2
        self._out.append(control(FrameType.PING, ping_id.to_bytes(4, "big")))
        return ping_id

    def go_away(self) -> None:
        """Reset every stream that is not finished, then GOAWAY. Nothing may be sent behind it."""
        for stream_id in list(self.streams):
            self.reset(stream_id)
        payload = self.last_stream_id.to_bytes(4, "big") + bytes(4)
        self._out.append(control(FrameType.GOAWAY, payload))

    def _send_reset(self, stream_id: int, status: ResetStatus) -> None:
        payload = stream_id.to_bytes(4, "big") + status.to_bytes(4, "big")
        self._out.append(control(FrameType.RST_STREAM, payload))

    def _step(self, stream_id: int, step: Step) -> None:
        state = self.streams[stream_id]
        after = TRANSITIONS.get((state, step))
        if after is None:
            raise IllegalStep(f"{step.name} on stream {stream_id} in state {state.name}")
        if after is StreamState.CLOSED:
            del self.streams[stream_id]
        else:
            self.streams[stream_id] = after


def _at_least(frame: Control, size: int) -> bytes:
    if len(frame.payload) < size:
        raise PeerProtocolError(f"{frame} is shorter than {size} bytes")
    return frame.payload


_HANDLERS: dict[int, Callable[[SpdyConnection, Control, list[Event]], None]] = {
    FrameType.SYN_STREAM: SpdyConnection._on_syn_stream,
    FrameType.SYN_REPLY: SpdyConnection._on_syn_reply,
    FrameType.RST_STREAM: SpdyConnection._on_rst_stream,
    FrameType.SETTINGS: SpdyConnection._on_settings,
    FrameType.PING: SpdyConnection._on_ping,
    FrameType.GOAWAY: SpdyConnection._on_goaway,
    FrameType.HEADERS: SpdyConnection._on_headers,
}
