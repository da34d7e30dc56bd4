"""One gRPC call's messages: cut out of DATA frames on the way in, waiting for a window on the way out.

Job: framing (a byte "compressed", four of length, the message) and the queue. Neighbours: `grpc` owns the call, its
windows and the order of frames. No I/O. Rule: a message that is whole in its frame is not copied.
"""

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from konnectivity.protocol import http2frames as frames
from konnectivity.protocol.grpcevents import Event, Headers, Message, Status
from wire.protocol.konnectivity import Buffer

MAX_MESSAGE = 4 << 20  # grpc-go's receive limit, in both directions
_PREFIX = struct.Struct(">BI")  # of every message: compressed or not, length
Verdict = tuple[Status, str]


@dataclass(slots=True)
class Call:
    """One call of a connection. Lives until its stream has ended."""

    id: int
    granted: int  # what the peer may send ahead on this call
    window: int = field(init=False)  # what is left of that
    inbound: bytearray = field(default_factory=bytearray)
    unacknowledged: int = 0
    outbound: deque[memoryview] = field(default_factory=deque)
    queued: int = 0  # bytes in `outbound`
    ending: Headers | None = None  # trailers that wait behind the queue
    is_half_closing: bool = False
    is_accepted: bool = False

    def __post_init__(self) -> None:
        self.window = self.granted

    def cut_messages(self, content: memoryview, events: list[Event]) -> Verdict | None:
        """The messages that are whole now; with a verdict the call has to end, for what comes next may not come."""
        data: Buffer = content
        if self.inbound:
            self.inbound += content
            if len(self.inbound) < 5:
                return None
            compressed, length = _PREFIX.unpack_from(self.inbound)
            if len(self.inbound) < 5 + length:
                return _refusal(compressed, length)
            data, self.inbound = self.inbound, bytearray()
        view, at, end = memoryview(data), 0, len(data)
        while end - at >= 5:
            compressed, length = _PREFIX.unpack_from(view, at)
            if verdict := _refusal(compressed, length):
                return verdict
            after = at + 5 + length
            if after > end:
                break
            events.append(Message(self.id, view[at + 5 : after], after - at))
            at = after
        if at < end:
            self.inbound = bytearray(view[at:])
        return None

    def queue(self, length: int, parts: Sequence[Buffer]) -> None:
        """A message of `length` bytes in parts, behind what waits already."""
        self.outbound.append(memoryview(_PREFIX.pack(0, length)))
        self.outbound.extend(map(memoryview, parts))
        self.queued += 5 + length

    def fill_frame(self, room: int, output: list[Buffer]) -> int:
        """Move at most `room` bytes of the queue into one DATA frame; how many."""
        pieces: list[memoryview] = []
        length = 0
        while self.outbound and length < room:
            piece = self.outbound[0]
            if len(piece) > room - length:
                self.outbound[0], piece = piece[room - length :], piece[: room - length]
            else:
                self.outbound.popleft()
            pieces.append(piece)
            length += len(piece)
        output.append(frames.head(length, frames.DATA, 0, self.id))
        output.extend(pieces)
        self.queued -= length
        return length


def _refusal(compressed: int, length: int) -> Verdict | None:
    if compressed:
        return Status.UNIMPLEMENTED, "grpc: compressed message, no compression was agreed on"
    if length > MAX_MESSAGE:
        return Status.RESOURCE_EXHAUSTED, f"grpc: message larger than {MAX_MESSAGE} bytes"
    return None
