"""A byte stream over any asyncio transport, with bounded buffers both ways.

One class for TCP, TLS and UNIX sockets, asyncio and uvloop. I own the transport; whoever opened or took over the
stream owns me and closes me. Reading pauses the transport when nobody consumes; writing waits in `drain`.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import ssl as ssl_module
import struct
import sys
import termios
from collections import deque
from collections.abc import Callable
from typing import Any

from wire.errors import ConnectionLost, PeerProtocolError, dial_error
from wire.net import join_host_port

READ_LIMIT = 256 * 1024  # one recv of asyncio's: above it the transport is paused
HANDSHAKE_TIMEOUT = 10.0  # TLS handshake in upstream's transports
CLOSE_TIMEOUT = 2.0
TCP_CLOSE = 7  # the state of a connection that is no more (linux/tcp_states.h)
CLOSE_SOON_LIMIT = 10.0
FINISH_TIMEOUT = 4 * 3600.0  # upstream's streamingConnectionIdleTimeout: the longest a stopped reader is waited for


class Stream(asyncio.Protocol):
    """One connection. Lives until both sides ended or the owner aborts it.

    `read` returns b"" at the end of the peer's bytes, and raises ConnectionLost if the connection broke instead.
    Cancelling `read` or `drain` loses nothing.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._eof = False
        self._lost = False
        self._error: BaseException | None = None
        self._paused_reading = False
        self._paused_writing = False
        self._reader: asyncio.Future[None] | None = None
        self._drainers: list[asyncio.Future[None]] = []
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._can_half_close = False
        self.bytes_in = 0
        self.bytes_out = 0

    # Protocol callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._can_half_close = self.transport.can_write_eof()

    def data_received(self, data: bytes) -> None:
        size = len(data)
        self.bytes_in += size
        self._chunks.append(data)
        self._buffered += size
        if self._buffered > READ_LIMIT and not self._paused_reading:
            self._paused_reading = True
            self.transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> bool:
        self._eof = True
        self._wake_reader()
        # TLS transports can not stay open for writing, and warn when asked to.
        return self._can_half_close

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lost = True
        self._eof = True
        self._error = exc
        self._wake_reader()
        for waiter in self._drainers:
            if not waiter.done():
                waiter.set_result(None)
        self._drainers.clear()
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._paused_writing = True

    def resume_writing(self) -> None:
        self._paused_writing = False
        for waiter in self._drainers:
            if not waiter.done():
                waiter.set_result(None)
        self._drainers.clear()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # Reading

    async def read(self, n: int = 65536) -> bytes:
        """The next bytes, at most `n`; b"" at the end."""
        while not self._chunks:
            if self._error is not None:
                raise ConnectionLost(str(self._error) or "connection lost") from self._error
            if self._eof:
                return b""
            await self._wait_for_data()
        return self._take(n)

    async def read_until(self, mark: bytes, limit: int) -> bytes:
        """The bytes up to and including `mark`. Raises PeerProtocolError beyond `limit`, ConnectionLost at the end."""
        held = bytearray()
        while True:
            piece = await self.read()
            if not piece:
                self.pushback(bytes(held))
                raise ConnectionLost("unexpected EOF")
            start = max(0, len(held) - len(mark) + 1)
            held += piece
            end = held.find(mark, start)
            if end >= 0:
                end += len(mark)
                self.pushback(bytes(held[end:]))
                return bytes(held[:end])
            if len(held) > limit:
                raise PeerProtocolError(f"more than {limit} bytes without an end")

    def _take(self, n: int) -> bytes:
        chunk = self._chunks.popleft()
        if len(chunk) > n:
            self._chunks.appendleft(chunk[n:])
            chunk = chunk[:n]
        self._buffered -= len(chunk)
        if self._paused_reading and self._buffered <= READ_LIMIT // 2 and not self._lost:
            self._paused_reading = False
            self.transport.resume_reading()
        return chunk

    async def _wait_for_data(self) -> None:
        assert self._reader is None, "two coroutines read one stream"
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def pushback(self, data: bytes) -> None:
        """Put bytes back in front of what is read next."""
        if data:
            self._chunks.appendleft(data)
            self._buffered += len(data)
            self._wake_reader()

    def take_buffered(self) -> list[bytes]:
        """Everything received and not yet read, for whoever takes the transport over."""
        chunks = list(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        return chunks

    @property
    def at_eof(self) -> bool:
        """Whether the peer has ended and everything was read."""
        return self._eof and not self._chunks

    @property
    def eof_seen(self) -> bool:
        """Whether the peer has ended, read or not."""
        return self._eof

    @property
    def writing_paused(self) -> bool:
        return self._paused_writing

    @property
    def is_lost(self) -> bool:
        return self._lost

    @property
    def is_ending(self) -> bool:
        """TLS is over and `connection_lost` on its way, to this stream and to nobody who takes the transport now.

        uvloop's transport complains about whatever is asked of it meanwhile.
        """
        return not self._lost and self.transport.get_protocol() is None

    @property
    def error(self) -> BaseException | None:
        return self._error

    # Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes. On a lost connection they are dropped and the next `drain` says so."""
        if not self._lost and not self.is_ending:
            self.bytes_out += len(data)
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the peer has taken enough for more to be written. Raises ConnectionLost."""
        if self._paused_writing and not self._lost:
            waiter = asyncio.get_running_loop().create_future()
            self._drainers.append(waiter)
            await waiter
        if self._lost:
            raise ConnectionLost(str(self._error or "connection lost")) from self._error
        if self.transport.is_closing():
            # connection_lost is on its way: let it arrive instead of spinning.
            await asyncio.sleep(0)

    def write_eof(self) -> None:
        """End our direction where the transport can; otherwise nothing."""
        if self._can_half_close and not self._lost and not self.transport.is_closing():
            # A peer that has just gone: connection_lost will report it.
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()

    @property
    def can_write_eof(self) -> bool:
        return self._can_half_close

    # Ending

    async def aclose(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Flush, close, and wait until it is closed; a peer that does not take the rest is cut off."""
        self.close()
        if self._transport is None:
            return
        try:
            await asyncio.wait_for(asyncio.shield(self._closed), timeout)
        except TimeoutError:
            self.abort()
        except asyncio.CancelledError:
            self.abort()
            raise

    async def finish(self, patience: float = 0.0) -> None:
        """Deliver everything that was written, then close; a peer that reads slowly is waited for.

        Closing while the kernel still holds unsent bytes loses them if the peer happens to write (its PING meets a
        closed socket, and the reset empties the queue). `patience` is how long the peer may take to close first.
        """
        try:
            async with asyncio.timeout(FINISH_TIMEOUT):
                await self.flush()
                if patience and not self._eof:
                    await self._wait_for_eof(patience)
        except (ConnectionLost, TimeoutError):
            self.abort()
        except asyncio.CancelledError:
            self.abort()
            raise
        await self.aclose()

    async def flush(self) -> None:
        """Wait until the peer's kernel has everything that was written. Raises ConnectionLost."""
        if self.is_ending:
            await self.wait_closed()
        if self._lost:
            raise ConnectionLost(str(self._error or "connection lost")) from self._error
        # Not 0: asyncio's TLS transport pauses at `size >= high`, which an empty buffer then is, for ever.
        self.transport.set_write_buffer_limits(high=1, low=0)
        # The kernel has no event for "all acknowledged", so this one condition is asked for again and again.
        pause, calm = 0.001, 0
        while calm < 2 and not self._lost:
            await self.drain()
            calm = calm + 1 if not self.transport.get_write_buffer_size() and not self._unacknowledged() else 0
            if calm < 2:
                await asyncio.sleep(pause if not calm else 0)
                pause = min(pause * 2, 0.25)

    def _unacknowledged(self) -> int:
        """Bytes the peer's kernel has not taken yet. Raises ConnectionLost for a connection that was reset."""
        sock = self.get_extra_info("socket")
        if sock is None or sock.family == socket.AF_UNIX or not hasattr(termios, "TIOCOUTQ"):
            return 0
        answer = bytearray(4)
        try:
            fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, answer)  # SIOCOUTQ, see tcp(7)
            left = int.from_bytes(answer, sys.byteorder)
            if left and _is_reset(sock.fileno()):
                # asyncio does not watch a socket whose peer has ended, and the queue of a reset one never empties.
                raise ConnectionLost("connection reset by peer")
        except OSError:
            return 0
        return left

    async def _wait_for_eof(self, patience: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while await self.read():
                    pass

    def reset_on_close(self) -> None:
        """From now on closing resets the connection, so that the peer can not take it for a good end."""
        sock = self.get_extra_info("socket")
        if sock is None or sock.family == socket.AF_UNIX or self._lost:
            return
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """Begin to close: what was written is still flushed."""
        if self._transport is not None and not self._lost:
            if self._paused_reading:
                # A paused TLS transport would not see the peer's close_notify.
                self._paused_reading = False
                self.transport.resume_reading()
            self.transport.close()

    def close_soon(self, limit: float = CLOSE_SOON_LIMIT) -> None:
        """Close behind what was written, without waiting for it; cut off a peer that does not take it in time."""
        if not self._lost and self._transport is not None:
            self.close()
            # Ended in time, the timer goes at once: it would keep the TLS buffers of every closed connection.
            self.when_closed(asyncio.get_running_loop().call_later(limit, self.abort).cancel)

    def abort(self) -> None:
        """Close at once; what was not sent is lost."""
        if self._transport is not None and not self._lost:
            self.transport.abort()

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call once, soon after the connection has ended."""
        self._closed.add_done_callback(lambda _: callback())

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    # Facts

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None, "not connected"
        return self._transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default if self._transport is None else self._transport.get_extra_info(name, default)


async def open_stream(
    sock: socket.socket,
    *,
    ssl: ssl_module.SSLContext | None = None,
    server_hostname: str | None = None,
    address: str | None = None,
    via: str = "direct",
) -> Stream:
    """A stream over a connected socket, which it owns from now on. Raises DialError (TLSVerificationError)."""
    loop = asyncio.get_running_loop()
    stream = Stream()
    where = address or _address_of(sock, server_hostname)
    # asyncio insists: a name with TLS ("" for none), no name without.
    server_hostname = (server_hostname or "") if ssl is not None else None
    handshake = HANDSHAKE_TIMEOUT if ssl is not None else None
    connect = loop.create_unix_connection if sock.family == socket.AF_UNIX else loop.create_connection
    try:
        await connect(
            lambda: stream, sock=sock, ssl=ssl, server_hostname=server_hostname, ssl_handshake_timeout=handshake
        )
    except (OSError, ssl_module.SSLError, TimeoutError) as error:
        sock.close()
        if isinstance(error, ConnectionAbortedError):
            # asyncio's word for a handshake that took too long.
            error = TimeoutError("TLS handshake timeout")
        raise dial_error(where, via, error) from error
    except BaseException:
        sock.close()
        raise
    return stream


def _is_reset(fd: int) -> bool:
    with socket.socket(fileno=os.dup(fd)) as same:
        return same.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE


def _address_of(sock: socket.socket, server_hostname: str | None) -> str:
    try:
        peer = sock.getpeername()
    except OSError:
        return server_hostname or "?"
    if isinstance(peer, tuple):
        return join_host_port(server_hostname or peer[0], peer[1])
    return f"unix:{peer}" if peer else (server_hostname or "?")


async def stream_pair() -> tuple[Stream, Stream]:
    """Two connected streams over a socketpair."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return await open_stream(ours), await open_stream(theirs)
