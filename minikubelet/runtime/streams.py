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


class PipeSource:
    """Output pulled by one reader. Back-pressure is the pipe itself: who does not read, stops the writer."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def read(self, n: int = 65536) -> bytes:
        while self._descriptor >= 0:
            try:
                return read_some(self._descriptor, n)
            except BlockingIOError:
                await readable(self._descriptor)
        return b""

    def close(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


class PipeSink:
    """Input of a process. One writer at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._descriptor < 0:
                raise BrokenPipeError(errno.EPIPE, "input is closed")
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                await writable(self._descriptor)
            except OSError as error:
                raise BrokenPipeError(errno.EPIPE, "the process reads no more") from error

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


class TerminalSink(PipeSink):
    """Keys typed into a terminal. Ending the input is a key too; the descriptor is the master's own copy."""

    async def close(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, END_OF_INPUT)
