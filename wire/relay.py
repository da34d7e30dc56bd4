"""Two connections made one: bytes from each to the other until both are done.

Below the streams: while a relay runs, each transport's protocol is one of a pair where `pause_writing` of one is
`pause_reading` of the other. No copies, no tasks, memory bounded by the two transports' write buffers.
The owner of the streams owns the relay; cancelling it closes neither stream.
"""

import asyncio
import contextlib
import os
import socket
import struct
from dataclasses import dataclass

from wire.stream import Stream

LINGER = 60.0  # how long the rest may take to be delivered once one side has gone
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
        self.count += len(data)
        other = self.other
        if not other.lost:
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
            self.relayed.finish()
            return False
        if not other.lost and not other.transport.is_closing():
            other.transport.write_eof()
        return self.can_half_close

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True
        if exc is not None:
            self.relayed.error = self.relayed.error or exc
            # The far side must not take this for a good end: a reset follows what is still in our buffer.
            if not self.other.lost:
                _reset_on_close(self.other.transport)
        self.stream.connection_lost(exc)
        self.relayed.finish()


class _Relayed:
    """The state both ends share."""

    def __init__(self, a: Stream, b: Stream, half_close: bool) -> None:
        self.error: BaseException | None = a.error or b.error
        self.ending = asyncio.Event()
        self.a = _End(a, self, half_close)
        self.b = _End(b, self, half_close)
        self.a.other, self.b.other = self.b, self.a

    def finish(self) -> None:
        """Flush and close both. What was received is delivered; what is not yet received is no longer wanted."""
        self.ending.set()
        for end in (self.a, self.b):
            if not end.lost:
                # A paused TLS transport would wait for its peer's close_notify without reading it.
                end.transport.resume_reading()
                end.transport.close()

    def start(self) -> None:
        ends = (self.a, self.b)
        for end in ends:
            end.transport.set_write_buffer_limits(high=WRITE_HIGH)
            if not end.lost:
                end.transport.set_protocol(end)
        for end in ends:
            for chunk in end.stream.take_buffered():
                end.data_received(chunk)
        for end in ends:
            if end.lost:
                self.finish()
            elif end.stream.eof_seen:
                end.eof_received()
            elif end.other.transport.get_write_buffer_size() > WRITE_HIGH:
                end.transport.pause_reading()
            else:
                end.transport.resume_reading()

    def stop(self) -> None:
        """Hand the transports back to their streams."""
        for end, other in ((self.a, self.b), (self.b, self.a)):
            end.stream.bytes_in += end.count
            end.stream.bytes_out += other.count
            if not end.lost:
                end.transport.set_protocol(end.stream)


def _reset_on_close(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def relay(a: Stream, b: Stream, *, half_close: bool = True, linger: float = LINGER) -> RelayResult:
    """Copy both ways until both are done; both streams are closed then.

    With `half_close` the end of one direction leaves the other open, as long as the far side can half-close (TLS can
    not: there, and with `half_close=False`, the first end ends both, after what was received is flushed).
    """
    relayed = _Relayed(a, b, half_close)
    relayed.start()
    try:
        await relayed.ending.wait()
        async with asyncio.timeout(linger):
            await a.wait_closed()
            await b.wait_closed()
    except TimeoutError as error:
        relayed.error = relayed.error or error
        a.abort()
        b.abort()
    finally:
        relayed.stop()
    return RelayResult(relayed.a.count, relayed.b.count, relayed.error)
