"""The gRPC dialect of the Konnectivity path: one HTTP/2 connection, one Proxy call, one target.

My job: the client side of ProxyService/Proxy, small enough to need no HTTP/2 library: a connection that carries one
call writes one header block and need not read any, because packets decide everything. Neighbours: `konnectivity` (the
dialer), `wire.protocol.konnectivity` (the packets). `Call` is sans-IO; `open_call` and `carry` move its bytes.

Flow control is HTTP/2's: what the pair does not take is not acknowledged, and stops the proxy for this call alone. The
dialect has no half-close: when either side ends, both do, after what was accepted is delivered.
"""

import asyncio
import contextlib
import random
import struct
from collections.abc import Iterator
from enum import Enum, auto

from wire.errors import (
    ConnectionLost,
    DialError,
    DialRefused,
    DialTimeout,
    DialUnreachable,
    NoTunnel,
    PeerProtocolError,
)
from wire.protocol.konnectivity import (
    Buffer,
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
from wire.stream import Stream

VIA = "konnectivity"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK, PADDED = 0x1, 0x4, 0x1, 0x8
CALL = 1  # the only stream
WINDOW = 1 << 20
MAX_FRAME = 256 << 10
MAX_MESSAGE = 4 << 20
MAX_CHUNK = 64 << 10
CLOSE_TIMEOUT = 10.0  # kube-apiserver waits so long for CLOSE_RSP

_TYPES: dict[str, type[DialError]] = {
    kind.__name__: kind for kind in (DialTimeout, DialRefused, DialUnreachable, NoTunnel, DialError)
}


class State(Enum):
    DIALLING = auto()
    OPEN = auto()
    ENDED = auto()


class Call:
    """The one call of a connection, without I/O. `receive` gives packets, `take_output` what to write."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.state = State.DIALLING
        self.connect_id = 0
        self.early: list[Packet] = []  # what came right behind the dial's answer
        self.room = asyncio.Event()  # set while at least one more byte may be sent
        self._output = bytearray()
        self._rest = b""
        self._message = bytearray()
        self._call_window = self._connection_window = self._initial_window = 65535
        self._max_frame = 16384
        self._unacknowledged = 0
        self._begin()

    def _begin(self) -> None:
        settings = struct.pack(">HIHIHI", 2, 0, 4, WINDOW, 5, MAX_FRAME)  # no push; window; frame size
        self._output += PREFACE + _frame(SETTINGS, 0, 0, settings)
        self._output += _frame(WINDOW_UPDATE, 0, 0, (WINDOW * 4).to_bytes(4, "big"))
        self._output += _frame(HEADERS, END_HEADERS, CALL, HEADER_BLOCK)

    # ------------------------------------------------------------ sending

    def take_output(self) -> bytes:
        output = bytes(self._output)
        self._output.clear()
        return output

    def send(self, packet: Packet) -> None:
        self._send_message(encode(packet))

    def send_data(self, chunk: Buffer) -> None:
        """At most `sendable` bytes."""
        self._send_message(data_head(self.connect_id, len(chunk)) + bytes(chunk))

    @property
    def sendable(self) -> int:
        """Payload that fits the peer's windows; the packet's own bytes are kept aside."""
        return max(0, min(self._call_window, self._connection_window, MAX_CHUNK) - 64)

    def _send_message(self, message: bytes) -> None:
        body = b"\0" + len(message).to_bytes(4, "big") + message
        for at in range(0, len(body), self._max_frame):
            self._output += _frame(DATA, 0, CALL, body[at : at + self._max_frame])
        self._call_window -= len(body)
        self._connection_window -= len(body)
        self._note_room()

    def acknowledge(self, size: int) -> None:
        """`size` bytes of payload have left our hands."""
        self._unacknowledged += size
        if self._unacknowledged >= WINDOW // 4:
            increment = self._unacknowledged.to_bytes(4, "big")
            self._output += _frame(WINDOW_UPDATE, 0, CALL, increment) + _frame(WINDOW_UPDATE, 0, 0, increment)
            self._unacknowledged = 0

    def _note_room(self) -> None:
        if self.sendable > 0:
            self.room.set()
        else:
            self.room.clear()

    # ------------------------------------------------------------ receiving

    def receive(self, data: bytes) -> list[Packet]:
        """Raises PeerProtocolError."""
        packets: list[Packet] = []
        data, at = self._rest + data, 0
        while len(data) - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > MAX_FRAME:
                raise PeerProtocolError(f"http2: frame of {length} bytes")
            end = at + 9 + length
            if end > len(data):
                break
            kind, flags, stream = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
            packets += self._on_frame(kind, flags, stream, data[at + 9 : end])
            at = end
        self._rest = data[at:]
        return packets

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> Iterator[Packet]:
        if kind == DATA and stream == CALL:
            yield from self._on_data(flags, payload)
        elif kind == SETTINGS and not flags & ACK:
            self._on_settings(payload)
        elif kind == PING and not flags & ACK:
            self._output += _frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE:
            self._on_window(stream, payload)
        if stream == CALL and (kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM)):
            self.state = State.ENDED

    def _on_data(self, flags: int, payload: bytes) -> Iterator[Packet]:
        if flags & PADDED:
            if not payload or payload[0] >= len(payload):
                raise PeerProtocolError("http2: padding longer than its frame")
            payload = payload[1 : len(payload) - payload[0]]
        self._message += payload
        while len(self._message) >= 5:
            length = int.from_bytes(self._message[1:5], "big")
            if self._message[0] or length > MAX_MESSAGE:
                raise PeerProtocolError("grpc: compressed or oversize message")
            if len(self._message) < 5 + length:
                return
            message = bytes(self._message[5 : 5 + length])
            del self._message[: 5 + length]
            packet = decode(message)
            # The packet's own bytes never wait for anybody; its data is acknowledged when it was taken.
            self.acknowledge(5 + length - (len(packet.data) if isinstance(packet, Data) else 0))
            yield packet

    def _on_settings(self, payload: bytes) -> None:
        if len(payload) % 6:
            raise PeerProtocolError("http2: malformed SETTINGS")
        for key, value in struct.iter_unpack(">HI", payload):
            if key == 4:
                self._call_window += value - self._initial_window
                self._initial_window = value
            elif key == 5:
                self._max_frame = min(value, MAX_FRAME)
        self._output += _frame(SETTINGS, ACK, 0, b"")
        self._note_room()

    def _on_window(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise PeerProtocolError("http2: malformed WINDOW_UPDATE")
        increment = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if stream == 0:
            self._connection_window += increment
        elif stream == CALL:
            self._call_window += increment
        self._note_room()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """HPACK: literal header field without indexing, new name (RFC 7541, 6.2.2)."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


HEADER_BLOCK = b"".join(
    _literal(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/ProxyService/Proxy"),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"user-agent", b"miniplane-apiserver"),
    )
)


# ---------------------------------------------------------------- moving its bytes


async def open_call(stream: Stream, address: str) -> Call:
    """Dial `address` through the proxy at the other end of `stream`. Raises DialError; the stream is gone then."""
    call = Call(stream)
    dial_id = random.SystemRandom().getrandbits(62) + 1
    try:
        call.send(DialRequest(address, dial_id))
        while call.state is State.DIALLING:
            _flush(call)
            data = await stream.read()
            if not data:
                break
            for packet in call.receive(data):
                if call.connect_id:
                    call.early.append(packet)
                elif isinstance(packet, DialResponse) and packet.dial_id == dial_id:
                    _take_answer(call, address, packet)
        if not call.connect_id:
            raise NoTunnel(address, VIA, "proxy server ended the call before it answered the dial")
    except (ConnectionLost, PeerProtocolError) as error:
        stream.abort()
        raise NoTunnel(address, VIA, f"proxy server: {error}") from error
    except BaseException:
        stream.abort()
        raise
    return call


def _take_answer(call: Call, address: str, answer: DialResponse) -> None:
    if answer.error:
        kind = _TYPES.get(answer.error_type, NoTunnel if answer.error == "No agent available" else DialError)
        raise kind(address, VIA, answer.error)
    call.connect_id = answer.connect_id
    if call.state is State.DIALLING:
        call.state = State.OPEN


def _flush(call: Call) -> None:
    if output := call.take_output():
        call.stream.write(output)


async def carry(call: Call, pair: Stream) -> None:
    """Copy between the call and `pair` until either side ends; both are closed then."""
    try:
        async with asyncio.TaskGroup() as group:
            up = group.create_task(_carry_up(call, pair), name="up")
            await _carry_down(call, pair)
            up.cancel()
    except* (ConnectionLost, PeerProtocolError, OSError):
        pair.abort()
    finally:
        # Both at once: if the dialer is closed meanwhile, the waiting is cut short and the sockets are not forgotten.
        await asyncio.gather(call.stream.aclose(), pair.aclose())


async def _carry_up(call: Call, pair: Stream) -> None:
    while data := await pair.read():
        view = memoryview(data)
        while view:
            await call.room.wait()
            size = call.sendable
            call.send_data(view[:size])
            view = view[size:]
            _flush(call)
            await call.stream.drain()
    call.send(CloseRequest(call.connect_id))
    _flush(call)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await call.stream.wait_closed()
    call.stream.abort()


async def _carry_down(call: Call, pair: Stream) -> None:
    packets, call.early = call.early, []
    while not await _deliver(call, packets, pair):
        _flush(call)
        if call.state is State.ENDED:
            raise ConnectionLost("proxy server ended the call")
        data = await call.stream.read(MAX_FRAME)
        if not data:
            raise ConnectionLost("proxy server is gone")
        packets = call.receive(data)


async def _deliver(call: Call, packets: list[Packet], pair: Stream) -> bool:
    """Whether the proxy said that the connection has ended well. Raises ConnectionLost if it ended early."""
    for packet in packets:
        if isinstance(packet, Data) and packet.connect_id == call.connect_id and packet.data:
            pair.write(packet.data)
            await pair.drain()
            call.acknowledge(len(packet.data))
        elif isinstance(packet, CloseResponse):
            if packet.error:
                raise ConnectionLost(packet.error)
            return True
    return False
