"""A SPDY connection that moves: one reader task, streams that are read and written.

I own the byte channel (a Stream, or a tunnel in WebSocket messages) from the moment a session is entered until it is
left. `wire.protocol.spdy.session` decides; deadlines and buffers are here. Rules: one unread stream holds at most
`READ_BUDGET` bytes of the whole connection before reading stops for all (SPDY as Kubernetes uses it has no windows);
a stream whose consumer is gone is drained into nothing.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from wire.errors import ConnectionLost, PeerProtocolError, WireError
from wire.protocol.spdy.frames import ResetStatus
from wire.protocol.spdy.headers import Headers
from wire.protocol.spdy.session import (
    DataReceived,
    Event,
    GoneAway,
    Role,
    SpdyConnection,
    StreamOpened,
    StreamReplied,
    StreamReset,
)

READ_BUDGET = 4 * 1024 * 1024  # bytes received and not yet consumed, over all streams of one connection
STREAM_TIMEOUT = 30.0  # upstream's streamCreationTimeout
PING_INTERVAL = 5.0  # client-go; middleboxes and the server's idle limit need it
CLOSE_PATIENCE = 2.0

_log = logging.getLogger("wire.spdy")


class ByteChannel(Protocol):
    """What a session runs on: a `wire.stream.Stream` or a `wire.tunnel.Tunnel`."""

    async def read(self, n: int = ...) -> bytes: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    async def flush(self) -> None: ...
    async def finish(self, patience: float = ...) -> None: ...
    def close_soon(self) -> None: ...
    def abort(self) -> None: ...


Admit = Callable[[Headers], bool]


def admit_all(headers: Headers) -> bool:
    return True


class SpdyStream:
    """One stream. Lives until both sides have ended it or one reset it."""

    def __init__(self, session: "SpdySession", stream_id: int, headers: Headers) -> None:
        self.session = session
        self.id = stream_id
        self.headers = headers
        self.is_replied = False
        self.was_reset = False
        self.broken = asyncio.Event()  # set by a reset and by the end of the session, not by FIN
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._discarding = False
        self._reader: asyncio.Future[None] | None = None
        self._replied: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def read(self, n: int = 65536) -> bytes:
        """The next bytes, b"" at the end (FIN, reset, or the connection's end: see `was_reset`, `session.error`)."""
        while not self._chunks:
            if self._ended:
                return b""
            assert self._reader is None, "two coroutines read one stream"
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        chunk = self._chunks.popleft()
        if len(chunk) > n:
            self._chunks.appendleft(chunk[n:])
            chunk = chunk[:n]
        self._held -= len(chunk)
        self.session._consumed(len(chunk))
        return chunk

    async def write(self, data: bytes) -> None:
        """Send data and wait until there is room for more. Raises ConnectionLost if the stream or session is over."""
        await self.session._send(self.id, data)

    def finish(self) -> None:
        """FIN: nothing more from us. Harmless when the stream is over."""
        self.session._finish(self.id)

    def reset(self, status: ResetStatus = ResetStatus.CANCEL) -> None:
        self.session._reset(self.id, status)
        self._end()

    def discard(self) -> None:
        """Nobody will read any more: what comes is dropped, so that it can not stall the other streams."""
        self._discarding = True
        self.session._consumed(self._held)
        self._held = 0
        self._chunks.clear()

    @property
    def is_writable(self) -> bool:
        return self.session._connection.can_send(self.id) and not self.session.ended.is_set()

    def _feed(self, data: bytes) -> int:
        """Take data; how much of the session's budget it uses."""
        if self._discarding or not data:
            return 0
        self._chunks.append(data)
        self._held += len(data)
        self._wake()
        return len(data)

    def _end(self) -> None:
        self._ended = True
        self._wake()
        if not self._replied.done():
            self._replied.set_result(None)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class SpdySession:
    """One connection in one role. Enter it by `spdy_session`; `ended` is set when the peer or the wire ended it."""

    def __init__(self, channel: ByteChannel, role: Role, admit: Admit) -> None:
        self._channel = channel
        self._connection = SpdyConnection(role)
        self._admit = admit
        self._streams: dict[int, SpdyStream] = {}
        self._accepted: asyncio.Queue[SpdyStream | None] = asyncio.Queue()
        self._held = 0
        self._room = asyncio.Event()
        self._room.set()
        self._heard = False
        self._closing = False
        self.ended = asyncio.Event()
        self.error: BaseException | None = None

    # Used by owners

    async def accept(self) -> SpdyStream | None:
        """The peer's next stream, already replied to; None when the session has ended."""
        if self.ended.is_set() and self._accepted.empty():
            return None
        return await self._accepted.get()

    async def open(self, headers: Headers, timeout: float = STREAM_TIMEOUT) -> SpdyStream:
        """Open a stream and wait for its reply. Raises WireError if it is refused or the session ends."""
        if self.ended.is_set():
            raise ConnectionLost("the SPDY session has ended")
        stream = SpdyStream(self, self._connection.open_stream(headers), headers)
        self._streams[stream.id] = stream
        self._flush()
        try:
            async with asyncio.timeout(timeout):
                await self._channel.drain()
                await stream._replied
        except TimeoutError:
            stream.reset()
            raise WireError(f"timed out waiting for the reply to stream {stream.id}") from None
        # What came behind the reply, even the end of everything, is the reader's business.
        if stream.is_replied:
            return stream
        if stream.was_reset:
            raise WireError("Stream reset")
        raise ConnectionLost("the SPDY session ended while a stream was opened")

    # The reader

    async def run(self) -> None:
        """Read until the end. Never raises: `error` says why it ended, if not well."""
        try:
            while data := await self._channel.read(1 << 18):
                self._heard = True
                if self._closing:
                    continue
                going = self._dispatch(self._connection.receive_data(data))
                self._flush()
                if not going:
                    break
                if self._held > READ_BUDGET:
                    self._room.clear()
                    await self._room.wait()
        except (PeerProtocolError, ConnectionLost) as error:
            self.error = error
            if isinstance(error, PeerProtocolError):
                _log.debug('spdy.error error="%s"', error)
                self._channel.abort()
        finally:
            self.ended.set()
            self._accepted.put_nowait(None)
            for stream in self._streams.values():
                stream.broken.set()
                stream._end()

    def _dispatch(self, events: list[Event]) -> bool:
        for event in events:
            match event:
                case DataReceived(stream_id, data, fin):
                    self._on_data(stream_id, data, fin)
                case StreamOpened(stream_id, headers, fin):
                    self._on_opened(stream_id, headers, fin)
                case StreamReplied(stream_id, _, fin):
                    self._on_replied(stream_id, fin)
                case StreamReset(stream_id, _):
                    if stream := self._streams.pop(stream_id, None):
                        stream.was_reset = True
                        stream.broken.set()
                        stream._end()
                case GoneAway():
                    return False
        return True

    def _on_data(self, stream_id: int, data: bytes, fin: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        self._held += stream._feed(data)
        if fin:
            stream._end()
            self._forget(stream_id)

    def _on_opened(self, stream_id: int, headers: Headers, fin: bool) -> None:
        if not self._admit(headers):
            self._connection.reset(stream_id)
            return
        # At once: what the peer sends before the reply, Go's end would drop.
        self._connection.reply(stream_id)
        stream = self._streams[stream_id] = SpdyStream(self, stream_id, headers)
        stream.is_replied = True
        if fin:
            stream._end()
        self._accepted.put_nowait(stream)

    def _on_replied(self, stream_id: int, fin: bool) -> None:
        if stream := self._streams.get(stream_id):
            stream.is_replied = True
            if not stream._replied.done():
                stream._replied.set_result(None)
            if fin:
                stream._end()

    def _forget(self, stream_id: int) -> None:
        """Drop what both sides have ended: a port-forward session carries thousands of streams."""
        if stream_id not in self._connection.streams:
            self._streams.pop(stream_id, None)

    # Used by streams

    def _consumed(self, size: int) -> None:
        self._held -= size
        if self._held <= READ_BUDGET // 2:
            self._room.set()

    async def _send(self, stream_id: int, data: bytes) -> None:
        if self.ended.is_set() or not self._connection.can_send(stream_id):
            raise ConnectionLost(f"stream {stream_id} is closed")
        self._connection.send_data(stream_id, data)
        self._flush()
        await self._channel.drain()

    def _finish(self, stream_id: int) -> None:
        if not self.ended.is_set():
            self._connection.finish(stream_id)
            self._flush()
        self._forget(stream_id)

    def _reset(self, stream_id: int, status: ResetStatus) -> None:
        if not self.ended.is_set():
            self._connection.reset(stream_id, status)
            self._flush()
        self._streams.pop(stream_id, None)

    def _flush(self) -> None:
        if data := self._connection.data_to_send():
            self._channel.write(data)

    # Ending

    def leave(self) -> None:
        """End now, without waiting: reset what is open, GOAWAY, and close behind what is still to be sent."""
        if not self._closing and not self.ended.is_set() and self._may_speak:
            self._connection.go_away()
            self._flush()
        self._closing = True
        for stream in list(self._streams.values()):
            stream.discard()
        self._channel.close_soon()

    @property
    def _may_speak(self) -> bool:
        # A client that has not spoken yet must not be spoken to: it would lose the bytes.
        return self._heard or self._connection.role is Role.CLIENT

    async def aclose(self) -> None:
        """Reset what is open, GOAWAY, deliver everything, close."""
        if self.ended.is_set() or not self._may_speak:
            self.leave()
            return
        self._connection.go_away()
        self._flush()
        self._closing = True
        for stream in list(self._streams.values()):
            stream.discard()
        with contextlib.suppress(ConnectionLost):
            await self._channel.flush()
            if self._connection.role is Role.SERVER:
                # The client closes by itself once it has read GOAWAY: then nothing of ours can have been lost.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_PATIENCE):
                        await self.ended.wait()
        await self._channel.finish()

    async def ping_forever(self, interval: float = PING_INTERVAL) -> None:
        """Keep the connection warm (client role)."""
        while True:
            await asyncio.sleep(interval)
            if self._closing or self.ended.is_set():
                return
            self._connection.ping()
            self._flush()


@contextlib.asynccontextmanager
async def spdy_session(
    channel: ByteChannel, role: Role, *, admit: Admit = admit_all, ping_interval: float | None = None
) -> AsyncIterator[SpdySession]:
    """Run SPDY on a channel for the time of a `with`; the channel is closed behind it, in good order if it can be."""
    session = SpdySession(channel, role, admit)
    # Children of this `with`: cancelled and awaited below. A TaskGroup would wrap the caller's own errors.
    tasks = [asyncio.create_task(session.run(), name="spdy reader")]
    if ping_interval is not None:
        tasks.append(asyncio.create_task(session.ping_forever(ping_interval), name="spdy ping"))
    try:
        yield session
        await session.aclose()
    finally:
        session.leave()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
