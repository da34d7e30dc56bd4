"""The three HTTP/2 frames that carry bulk, by hand: DATA, WINDOW_UPDATE and GOAWAY (RFC 9113, section 6).

Job: cut a byte stream into frames, and tell which of them h2 must see. Measured on 4 KiB DATA, what a real agent sends:
h2 takes 10 µs a frame to read and 30 to write, this takes 1 and 2. Neighbours: `grpc` owns the windows and gives all
other frames to h2. Rule: no state but the unfinished frame.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from wire.errors import PeerProtocolError

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, PADDED = 0x1, 0x8
HEAD_LENGTH = 9
# What we take in one frame. grpc-go sends 16384 whatever it is told; our own ends send one frame per packet.
MAX_FRAME = 512 << 10
WINDOW_LIMIT = (1 << 31) - 1

_HEAD = struct.Struct(">HBBBI")
_MESSAGE_HEAD = struct.Struct(">HBBBIBI")
_GOAWAY = struct.Struct(">II")


class Frame(NamedTuple):  # no dataclass: made for every few KiB, and three times as cheap
    """`raw` is the frame with its head; `payload` the bytes behind it."""

    type: int
    flags: int
    stream: int
    payload: memoryview
    raw: memoryview

    def __str__(self) -> str:
        return f"frame type={self.type} flags={self.flags:#x} stream={self.stream} [{len(self.payload)} bytes]"


def head(length: int, kind: int, flags: int, stream: int) -> bytes:
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)


def message_head(length: int, stream: int) -> bytes:
    """The heads of a DATA frame and of the one gRPC message of `length` bytes that fills it."""
    size = length + 5
    return _MESSAGE_HEAD.pack(size >> 8, size & 0xFF, DATA, 0, stream, 0, length)


def window_update(stream: int, increment: int) -> bytes:
    return head(4, WINDOW_UPDATE, 0, stream) + increment.to_bytes(4, "big")


def unpad(frame: Frame) -> memoryview:
    """A DATA frame's content without its padding. Raises PeerProtocolError."""
    if not frame.flags & PADDED:
        return frame.payload
    if not frame.payload or frame.payload[0] >= len(frame.payload):
        raise PeerProtocolError("http2: padding longer than its frame")
    return frame.payload[1 : len(frame.payload) - frame.payload[0]]


def parse_goaway(frame: Frame) -> tuple[int, int, str]:
    """(last stream, error code, debug text)"""
    if frame.stream or len(frame.payload) < 8:
        raise PeerProtocolError("http2: malformed GOAWAY")
    last, code = _GOAWAY.unpack_from(frame.payload)
    return last & WINDOW_LIMIT, code, bytes(frame.payload[8:200]).decode("utf-8", "replace")


class FrameCutter:
    """Bytes in, whole frames out. Only an unfinished frame is ever copied."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = HEAD_LENGTH  # length of what `_rest` is the beginning of, as far as known

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now. Run the iterator to its end: it keeps the unfinished frame."""
        view, at, end = memoryview(data), 0, len(data)
        while self._rest:
            taken = min(self._wanted - len(self._rest), end - at)
            self._rest += view[at : at + taken]
            at += taken
            if len(self._rest) < self._wanted:
                return
            self._wanted = HEAD_LENGTH + _length(self._rest, 0)
            if len(self._rest) == self._wanted:
                whole, self._rest, self._wanted = self._rest, bytearray(), HEAD_LENGTH
                yield _frame(memoryview(whole), 0, len(whole))
        while end - at >= HEAD_LENGTH:
            after = at + HEAD_LENGTH + _length(view, at)
            if after > end:
                self._wanted = after - at
                break
            yield _frame(view, at, after)
            at = after
        self._rest += view[at:]


def _length(data: memoryview | bytearray, at: int) -> int:
    length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
    if length > MAX_FRAME:
        raise PeerProtocolError(f"http2: frame of {length} bytes, limit {MAX_FRAME}")
    return length


def _frame(view: memoryview, at: int, after: int) -> Frame:
    _, _, kind, flags, stream = _HEAD.unpack_from(view, at)
    return Frame(kind, flags, stream & WINDOW_LIMIT, view[at + HEAD_LENGTH : after], view[at:after])
