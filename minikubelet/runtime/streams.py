"""Pipes and terminals as awaitable bytes: sources that are pulled, sinks that push back.

My job: non-blocking descriptors on the event loop, whichever it is. Each object owns its descriptor and closes it.
`execution`, `output` and `attachment` use me.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
import termios

END_OF_INPUT = b"\x04"
PIPE_BYTES = 1 << 18  # a quarter of a megabyte in the kernel: fewer wake-ups for chatty programs


async def readable(descriptor: int) -> None:
    """Returns when there is something to read or the end. One waiter per descriptor."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def output_pipe() -> tuple[int, int]:
    """(our non-blocking read end, the process's write end)."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    with contextlib.suppress(OSError):  # pipe-user-pages-soft: past it, the default size must do
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reader, writer


def input_pipe() -> tuple[int, int]:
    """(the process's read end, our non-blocking write end)."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    return reader, writer


def read_some(descriptor: int, n: int) -> bytes:
    """b"" at the end. Raises BlockingIOError when there is nothing yet."""
    try:
        return os.read(descriptor, n)
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal whose last user has left
            return b""
        raise


def set_window_size(descriptor: int, width: int, height: int) -> None:
    size = struct.pack("=HHHH", min(height, 65535), min(width, 65535), 0, 0)
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)


class _Ended:
    """A descriptor with one waiter; closing it wakes the waiter."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ready: asyncio.Future[None] | None = None

    async def _wait(self, *, to_write: bool) -> None:
        loop = asyncio.get_running_loop()
        add, remove = (loop.add_writer, loop.remove_writer) if to_write else (loop.add_reader, loop.remove_reader)
        self._ready = loop.create_future()
        descriptor = self._descriptor
        add(descriptor, _wake, self._ready)
        try:
            await self._ready
        finally:
            self._ready = None
            if self._descriptor == descriptor:
                remove(descriptor)

    def abort(self) -> None:
        """Close at once; harmless when closed."""
        if self._descriptor >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._descriptor)
            loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            if self._ready:
                _wake(self._ready)


class PipeSource(_Ended):
    """Output pulled by one reader. Back-pressure is the pipe itself: who does not read, stops the writer."""

    async def read(self, n: int = 65536) -> bytes:
        while self._descriptor >= 0:
            try:
                return read_some(self._descriptor, n)
            except BlockingIOError:
                await self._wait(to_write=False)
        return b""


class PipeSink(_Ended):
    """Input of a process. One writer at a time."""

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._descriptor < 0:
                raise BrokenPipeError(errno.EPIPE, "input is closed")
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                await self._wait(to_write=True)
            except OSError as error:
                raise BrokenPipeError(errno.EPIPE, "the process reads no more") from error

    async def close(self) -> None:
        self.abort()


class TerminalSink(PipeSink):
    """Keys typed into a terminal. Ending the input is a key too; the descriptor is a copy of the master."""

    async def close(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, END_OF_INPUT)
