"""SPDY/3.1 frames: bytes to frames and back.

    control  1|version 15 bits|type 16|flags 8|length 24|payload
    data     0|stream id 31   |flags 8        |length 24|payload

DATA is handed on piece by piece as it comes, so no frame is ever held as a whole and a 16 MiB frame costs nothing;
control frames are held, up to `MAX_CONTROL`. I decide nothing: `session` does.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from wire.errors import PeerProtocolError

VERSION = 3
FIN = 0x01
MAX_CONTROL = 64 * 1024  # a SYN_STREAM of kubectl has about 60 bytes; Go would take 16 MiB
MAX_DATA = 64 * 1024  # what we put in one DATA frame; Go allocates the announced length


class FrameType(IntEnum):
    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


_NAMES = {int(kind): kind.name for kind in FrameType}


class ResetStatus(IntEnum):
    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    UNSUPPORTED_VERSION = 4
    CANCEL = 5
    INTERNAL_ERROR = 6
    FLOW_CONTROL_ERROR = 7
    STREAM_IN_USE = 8
    STREAM_ALREADY_CLOSED = 9
    INVALID_CREDENTIALS = 10
    FRAME_TOO_LARGE = 11


@dataclass(frozen=True, slots=True)
class Control:
    """A whole control frame, payload not interpreted."""

    kind: int
    flags: int
    payload: bytes

    def __str__(self) -> str:
        return f"{_NAMES.get(self.kind, f'TYPE-{self.kind}')} flags={self.flags:#x} [{len(self.payload)} bytes]"


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a DATA frame. `fin` only on the last piece of a frame that carries FIN."""

    stream_id: int
    data: bytes
    fin: bool

    def __str__(self) -> str:
        return f"DATA id={self.stream_id} [{len(self.data)} bytes]{' FIN' if self.fin else ''}"


_HEAD = struct.Struct(">II")
_CONTROL = struct.Struct(">HHI")


def control(kind: FrameType, payload: bytes, flags: int = 0) -> bytes:
    return _CONTROL.pack(0x8000 | VERSION, kind, flags << 24 | len(payload)) + payload


def data_head(stream_id: int, size: int, fin: bool) -> bytes:
    return _HEAD.pack(stream_id, (FIN if fin else 0) << 24 | size)


class FrameReader:
    """Takes bytes in any portions, gives frames. Raises PeerProtocolError; after that it takes nothing more."""

    def __init__(self) -> None:
        self._held = b""
        self._left = 0  # of the DATA frame that is passing through
        self._stream_id = 0
        self._fin = False

    def feed(self, data: bytes) -> list[Control | Data]:
        frames: list[Control | Data] = []
        if self._held:
            data = self._held + data
            self._held = b""
        position, size = 0, len(data)
        while position < size:
            if self._left:
                position = self._pass_data(data, position, frames)
                continue
            if size - position < 8:
                break
            first, second = _HEAD.unpack_from(data, position)
            length = second & 0xFFFFFF
            if not first & 0x80000000:
                self._begin_data(first, second >> 24, length, frames)
                position += 8
                continue
            _check_control(first, length)
            if size - position < 8 + length:
                break
            position += 8
            frames.append(Control(first & 0xFFFF, second >> 24, data[position : position + length]))
            position += length
        self._held = data[position:]
        return frames

    @property
    def is_between_frames(self) -> bool:
        """Nothing of a frame has come whose rest has not."""
        return not self._held and not self._left

    def _begin_data(self, stream_id: int, flags: int, length: int, frames: list[Control | Data]) -> None:
        if stream_id == 0:
            raise PeerProtocolError("DATA for stream 0")
        self._stream_id, self._fin, self._left = stream_id, bool(flags & FIN), length
        if not length:
            frames.append(Data(stream_id, b"", self._fin))

    def _pass_data(self, data: bytes, position: int, frames: list[Control | Data]) -> int:
        end = min(position + self._left, len(data))
        self._left -= end - position
        frames.append(Data(self._stream_id, data[position:end], self._fin and not self._left))
        return end


def _check_control(first: int, length: int) -> None:
    version = first >> 16 & 0x7FFF
    if version != VERSION:
        raise PeerProtocolError(f"SPDY version {version}, not {VERSION}")
    if length > MAX_CONTROL:
        raise PeerProtocolError(f"control frame of {length} bytes")
