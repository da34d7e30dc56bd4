"""A container's output: read once, written to the log, handed to every attached client.

My job: move bytes from the process's pipes (or its terminal) to a log file and to listeners. An `Output` owns the
descriptors it reads; listeners belong to `attachment`. Nothing is kept in memory but what a listener has not read yet,
and that has a bound: at it the container itself is held back, and after LAG_SECONDS the slow client is let go.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable

from minikubelet.logs.cri import Clock, Framer
from minikubelet.logs.writer import Feed, LogFile
from minikubelet.runtime.interface import AttachLagged, Stream
from minikubelet.runtime.streams import read_some

READ_BYTES = 1 << 18
LISTENER_BYTES = 1 << 20
LAG_SECONDS = 10.0


class Listener:
    """Bytes of one stream on their way to one client. Lives as long as the client's session."""

    def __init__(self, resume: Callable[[], None]) -> None:
        self._resume = resume
        self._chunks: deque[bytes] = deque()
        self._ready = asyncio.Event()
        self._is_over = False
        self._error: Exception | None = None
        self.size = 0

    @property
    def is_full(self) -> bool:
        return self.size >= LISTENER_BYTES

    def put(self, data: bytes) -> None:
        if not self._is_over:
            self._chunks.append(data)
            self.size += len(data)
            self._ready.set()

    def finish(self, error: Exception | None = None) -> None:
        """The end, or why there is no more."""
        if not self._is_over:
            self._is_over, self._error = True, error
            self._ready.set()

    async def read(self, n: int = 65536) -> bytes:
        while not self._chunks:
            if self._error:
                raise self._error
            if self._is_over:
                return b""
            self._ready.clear()
            await self._ready.wait()
        data = self._chunks.popleft()
        if len(data) > n:
            self._chunks.appendleft(data[n:])
            data = data[:n]
        self.size -= len(data)
        if not self.is_full:
            self._resume()
        return data


class Output:
    """Both streams of one container. Lives until both are at their end; `finished` is set then."""

    def __init__(self, log: LogFile | None) -> None:
        self._log, self._clock = log, Clock()
        self._framers: dict[Stream, Framer] = {}
        self._descriptors: dict[Stream, int] = {}
        self._listeners: dict[Stream, set[Listener]] = {Stream.STDOUT: set(), Stream.STDERR: set()}
        self._paused: dict[Stream, asyncio.TimerHandle] = {}
        self.finished = asyncio.Event()

    def add(self, stream: Stream, descriptor: int) -> None:
        """Take over our end of a pipe, or a copy of the terminal."""
        self._framers[stream] = Framer(stream.value)
        self._descriptors[stream] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._read, stream)

    @property
    def feed(self) -> Feed | None:
        return self._log.feed if self._log else None

    @property
    def lost_bytes(self) -> int:
        """What the disk did not take."""
        return self._log.lost_bytes if self._log else 0

    @property
    def is_held_back(self) -> bool:
        """A client has more unread than its bound allows, so nothing is read from the container."""
        return bool(self._paused)

    def listen(self, stream: Stream) -> Listener:
        listener = Listener(lambda: self._resume(stream))
        if stream in self._descriptors:
            self._listeners[stream].add(listener)
        else:
            listener.finish()
        return listener

    def forget(self, stream: Stream, listener: Listener) -> None:
        self._listeners[stream].discard(listener)
        self._resume(stream)

    def close(self) -> None:
        """Stop reading, whatever is left."""
        for stream in tuple(self._descriptors):
            self._end(stream)
        if self._log:
            self._log.close()

    def _read(self, stream: Stream) -> None:
        try:
            data = read_some(self._descriptors[stream], READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._end(stream)
            return
        if self._log:
            self._log.append(self._framers[stream].feed(data, self._clock.stamp(time.time_ns())))
        listeners = self._listeners[stream]
        if listeners:
            for listener in listeners:
                listener.put(data)
            if any(listener.is_full for listener in listeners):
                self._pause(stream)

    def _pause(self, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._descriptors[stream])
        self._paused[stream] = loop.call_later(LAG_SECONDS, self._drop_laggards, stream)

    def _resume(self, stream: Stream) -> None:
        if stream in self._paused and not any(listener.is_full for listener in self._listeners[stream]):
            self._paused.pop(stream).cancel()
            asyncio.get_running_loop().add_reader(self._descriptors[stream], self._read, stream)

    def _drop_laggards(self, stream: Stream) -> None:
        for listener in [listener for listener in self._listeners[stream] if listener.is_full]:
            listener.finish(AttachLagged(f"detached: {stream.value} was not read for {LAG_SECONDS:.0f} s"))
            self._listeners[stream].discard(listener)
        self._resume(stream)

    def _end(self, stream: Stream) -> None:
        descriptor = self._descriptors.pop(stream)
        if stream in self._paused:
            self._paused.pop(stream).cancel()
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        if self._log:
            self._log.append(self._framers[stream].finish(self._clock.stamp(time.time_ns())))
        for listener in self._listeners[stream]:
            listener.finish()
        self._listeners[stream].clear()
        if not self._descriptors:
            if self._log:
                self._log.close()
            self.finished.set()
