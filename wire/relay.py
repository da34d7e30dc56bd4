"""Two connections made one: bytes from each to the other until both are done.

Below the streams: while a relay runs, each transport's protocol is one of a pair where `pause_writing` of one is
`pause_reading` of the other. No copies, no tasks, memory bounded by the two transports' write buffers.
The owner of the streams owns the relay; cancelling it closes neither stream.
"""

import asyncio
from dataclasses import dataclass

from wire.stream import Stream

WRITE_HIGH = 256 * 1024


@dataclass(frozen=True, slots=True)
class RelayResult:
    """What went through: bytes from a to b, bytes from b to a, and the error that ended it, if one did."""

    a_to_b: int
    b_to_a: int
    error: BaseException | None


class _End(asyncio.Protocol):
    """One side of a relay. Everything received here is written there."""

    __slots__ = ("can_half_close", "count", "ended", "half_close", "lost", "other", "relayed", "stream", "transport")

    other: "_End"

    def __init__(self, stream: Stream, relayed: "_Relayed", half_close: bool) -> None:
        self.stream = stream
        self.transport = stream.transport
        self.can_half_close = stream.can_write_eof
        self.half_close = half_close
        self.relayed = relayed
        self.count = 0
        self.ended = False
        self.lost = stream.is_lost

    def data_received(self, data: bytes) -> None:
        size = len(data)
        self.count += size
        self.stream.bytes_in += size
        other = self.other
        # Between the end of TLS and `connection_lost` uvloop's transport has no protocol, and complains about writes.
        if not other.lost and other.transport.get_protocol() is not None:
            other.stream.bytes_out += size
            other.transport.write(data)

    def pause_writing(self) -> None:
        if not self.other.lost:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.other.lost:
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self.ended = True
        other = self.other
        if not self.half_close or other.ended or not other.can_half_close:
            self.stream.eof_received()
            self.relayed.ending.set()
            return self.can_half_close
        if not other.lost and not other.transport.is_closing():
            other.transport.write_eof()
        return self.can_half_close

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True
        if exc is not None and self.relayed.error is None:
            self.relayed.error = exc
        self.stream.connection_lost(exc)
        self.relayed.ending.set()


class _Relayed:
    """The state both ends share."""

    def __init__(self, a: Stream, b: Stream, half_close: bool) -> None:
        self.error: BaseException | None = a.error or b.error
        self.ending = asyncio.Event()
        self.a = _End(a, self, half_close)
        self.b = _End(b, self, half_close)
        self.a.other, self.b.other = self.b, self.a

    def start(self) -> None:
        ends = (self.a, self.b)
        for end in ends:
            end.transport.set_write_buffer_limits(high=WRITE_HIGH)
            if not end.lost:
                end.transport.set_protocol(end)
        for end in ends:
            for chunk in end.stream.take_buffered():
                end.stream.bytes_in -= len(chunk)  # counted when it came, and again now
                end.data_received(chunk)
        for end in ends:
            if end.lost:
                self.ending.set()
            elif end.stream.eof_seen:
                end.eof_received()
            elif end.other.transport.get_write_buffer_size() > WRITE_HIGH:
                end.transport.pause_reading()
            else:
                end.transport.resume_reading()

    def stop(self) -> None:
        """Hand the transports back to their streams."""
        for end in (self.a, self.b):
            if not end.lost:
                end.transport.set_protocol(end.stream)
                end.transport.resume_reading()


async def relay(a: Stream, b: Stream, *, half_close: bool = True) -> RelayResult:
    """Copy both ways until both are done; both streams are closed then.

    With `half_close` the end of one direction leaves the other open, as long as the far side can half-close (TLS can
    not: there, and with `half_close=False`, the first end ends both, after what was received is delivered).
    """
    while (ending := next((stream for stream in (a, b) if stream.is_ending), None)) is not None:
        await ending.wait_closed()
    relayed = _Relayed(a, b, half_close)
    relayed.start()
    try:
        await relayed.ending.wait()
    finally:
        relayed.stop()
    if relayed.error is not None:
        # Whoever is left must not take this for a good end: a reset follows what we still hold.
        a.reset_on_close()
        b.reset_on_close()
    await asyncio.gather(a.finish(), b.finish())
    return RelayResult(relayed.a.count, relayed.b.count, relayed.error)
