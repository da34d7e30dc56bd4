"""WebSocket frames (RFC 6455), without I/O: either role.

Bytes in, events out; answers to PING collect in `data_to_send()`. No extensions: none is ever negotiated.
`wire.websocket_session` moves the bytes. The masking key comes in from outside, as does a faster masker if there is
one: no randomness and no outside library here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum, auto

from wire.errors import PeerProtocolError

Masker = Callable[[bytes, bytearray], None]

MAX_MESSAGE = 32 * 1024 * 1024  # the frame limit of the real API server
MAX_CONTROL = 125

NORMAL_CLOSURE = 1000
PROTOCOL_ERROR = 1002
INTERNAL_ERROR = 1011
NO_STATUS = 1005
_RESERVED_CODES = frozenset({1004, 1005, 1006, 1015})


class Role(Enum):
    CLIENT = auto()
    SERVER = auto()


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Reassembly(Enum):
    """Whether fragments are put together (channels) or handed on as they are (a tunnel's byte stream)."""

    MESSAGES = auto()
    FRAGMENTS = auto()


@dataclass(frozen=True, slots=True)
class Message:
    data: bytes
    is_text: bool


@dataclass(frozen=True, slots=True)
class PongReceived:
    payload: bytes


@dataclass(frozen=True, slots=True)
class CloseReceived:
    """The peer ends. Nothing behind it is read."""

    code: int
    reason: str


Event = Message | PongReceived | CloseReceived


def xor_mask(key: bytes, data: bytearray) -> None:
    """Mask or unmask in place, in whole numbers rather than bytes. Pieces keep the numbers at their fastest."""
    size = 16 * 1024
    pattern = int.from_bytes(key * (size // 4), "little")
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        keys = pattern & ((1 << 8 * len(piece)) - 1) if len(piece) < size else pattern
        data[start : start + size] = (int.from_bytes(piece, "little") ^ keys).to_bytes(len(piece), "little")


def encode_frame(opcode: Opcode, payload: bytes, key: bytes | None = None, masker: Masker = xor_mask) -> bytes:
    """One unfragmented frame; masked with `key` (client) or not (server)."""
    size, bit = len(payload), 0x80 if key is not None else 0
    if size < 126:
        head = bytes((0x80 | opcode, bit | size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, bit | 127)) + size.to_bytes(8, "big")
    if key is None:
        return head + payload
    masked = bytearray(payload)
    masker(key, masked)
    return b"".join((head, key, masked))


class WebSocketConnection:
    """The receiving side of one connection and the frames for the sending side."""

    def __init__(
        self,
        role: Role,
        *,
        reassembly: Reassembly = Reassembly.MESSAGES,
        max_message: int = MAX_MESSAGE,
        masker: Masker = xor_mask,
    ) -> None:
        self.role = role
        self._reassembly = reassembly
        self._max = max_message
        self._masker = masker
        self._buffer = bytearray()
        self._parts: list[bytes] = []
        self._size = 0
        self._opcode: Opcode | None = None  # of the message whose fragments are coming
        self._closed = False
        self._out: list[bytes] = []

    @property
    def is_between_messages(self) -> bool:
        """Nothing of a message has come whose rest has not."""
        return not self._buffer and self._opcode is None

    # Out

    def data_to_send(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    def encode(self, opcode: Opcode, payload: bytes, key: bytes | None = None) -> bytes:
        if (key is None) is (self.role is Role.CLIENT):
            raise ValueError("a client masks every frame and a server none")
        return encode_frame(opcode, payload, key, self._masker)

    def encode_close(self, code: int, reason: str = "", key: bytes | None = None) -> bytes:
        payload = b"" if code == NO_STATUS else code.to_bytes(2, "big") + reason.encode()[:MAX_CONTROL - 2]
        return self.encode(Opcode.CLOSE, payload, key)

    # In

    def receive_data(self, data: bytes, pong_key: bytes | None = None) -> list[Event]:
        """Events in order; PINGs are answered in `data_to_send()` (masked with `pong_key` by a client).

        Raises PeerProtocolError.
        """
        events: list[Event] = []
        if self._closed:
            return events
        self._buffer += data
        position = 0
        while not self._closed:
            after = self._frame(position, events, pong_key)
            if after is None:
                break
            position = after
        del self._buffer[:position]
        return events

    def _frame(self, position: int, events: list[Event], pong_key: bytes | None) -> int | None:
        """Take one whole frame at `position`; where the next begins, or None if it is not all there."""
        buffer = self._buffer
        available = len(buffer) - position
        if available < 2:
            return None
        first, second = buffer[position], buffer[position + 1]
        opcode = self._check_head(first, second)
        size, start = second & 0x7F, position + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if available < 2 + width:
                return None
            size = int.from_bytes(buffer[start : start + width], "big")
            start += width
        if size + (self._size if opcode < Opcode.CLOSE else 0) > self._max:
            raise PeerProtocolError(f"WebSocket message of more than {self._max} bytes")
        key = b""
        if second & 0x80:
            key, start = bytes(buffer[start : start + 4]), start + 4
        if len(buffer) < start + size:
            return None
        payload = buffer[start : start + size]
        if key and size:
            self._masker(key, payload)
        self._on_frame(opcode, bool(first & 0x80), bytes(payload), events, pong_key)
        return start + size

    def _check_head(self, first: int, second: int) -> Opcode:
        if first & 0x70:
            raise PeerProtocolError("reserved bits in a WebSocket frame")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise PeerProtocolError(f"WebSocket opcode {first & 0x0F}") from None
        if bool(second & 0x80) is (self.role is Role.CLIENT):
            raise PeerProtocolError("a client must mask its WebSocket frames and a server must not")
        if opcode >= Opcode.CLOSE and (not first & 0x80 or second & 0x7F > MAX_CONTROL):
            raise PeerProtocolError("fragmented or too long WebSocket control frame")
        if opcode is Opcode.CONTINUATION and self._opcode is None:
            raise PeerProtocolError("WebSocket continuation without a beginning")
        if opcode in (Opcode.TEXT, Opcode.BINARY) and self._opcode is not None:
            raise PeerProtocolError("WebSocket message inside a fragmented message")
        return opcode

    def _on_frame(
        self, opcode: Opcode, fin: bool, payload: bytes, events: list[Event], pong_key: bytes | None
    ) -> None:
        match opcode:
            case Opcode.PING:
                self._out.append(self.encode(Opcode.PONG, payload, pong_key))
            case Opcode.PONG:
                events.append(PongReceived(payload))
            case Opcode.CLOSE:
                self._closed = True
                events.append(_close(payload))
            case _:
                self._on_data(opcode, fin, payload, events)

    def _on_data(self, opcode: Opcode, fin: bool, payload: bytes, events: list[Event]) -> None:
        first = self._opcode if opcode is Opcode.CONTINUATION else opcode
        assert first is not None  # checked in _check_head
        self._opcode = None if fin else first
        is_text = first is Opcode.TEXT
        if self._reassembly is Reassembly.FRAGMENTS:
            events.append(Message(payload, is_text))
            return
        if fin and not self._parts:
            events.append(Message(payload, is_text))
            return
        self._parts.append(payload)
        self._size += len(payload)
        if fin:
            events.append(Message(b"".join(self._parts), is_text))
            self._parts, self._size = [], 0


def _close(payload: bytes) -> CloseReceived:
    if not payload:
        return CloseReceived(NO_STATUS, "")
    if len(payload) == 1:
        raise PeerProtocolError("WebSocket close frame of one byte")
    code = int.from_bytes(payload[:2], "big")
    if code < 1000 or code in _RESERVED_CODES or code >= 5000:
        raise PeerProtocolError(f"WebSocket close code {code}")
    return CloseReceived(code, payload[2:].decode("utf-8", "replace"))
