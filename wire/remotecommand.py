"""Server half of exec and attach: whatever the client speaks becomes one session with four streams.

`accept_remotecommand` answers the handshake, collects the streams and yields a `RemoteCommandSession`. The kubelet
runs the process; the API server's translator (`wire.translate`) puts another kubelet behind it.
Rules: everything written is delivered before the end; the client always learns how it ended, because a connection
that just drops reads as success in kubectl.
"""

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from aiohttp import web

from wire.errors import ConnectionLost, PeerProtocolError, WireError
from wire.handshake import (
    HandshakeRefused,
    no_common_protocol,
    no_stream_protocol,
    no_websocket_protocol,
    upgrade_required,
)
from wire.protocol.remotecommand import (
    SPDY_PROTOCOLS,
    STREAM_TYPE,
    WEBSOCKET_PROTOCOLS,
    Channel,
    ResizeReader,
    SpdyProtocol,
    TerminalSize,
    Wanted,
    WebSocketProtocol,
    negotiate,
    status_bytes,
    stream_protocols,
)
from wire.protocol.spdy.headers import Headers
from wire.protocol.spdy.session import Role
from wire.protocol.status import session_error
from wire.spdy_session import STREAM_TIMEOUT, SpdySession, SpdyStream, spdy_session
from wire.upgrade import is_spdy, is_websocket, switching_protocols, take_over
from wire.websocket_session import (
    WebSocket,
    accept_websocket,
    handshake_refusal,
    offered_protocols,
    receive_or_pong,
)

__all__ = [
    "HandshakeRefused",
    "RemoteCommandSession",
    "Session",
    "TerminalSize",
    "accept_remotecommand",
    "accept_websocket_command",
]

STDIN_LIMIT = 1024 * 1024  # bytes of stdin held for a process that does not read
MAX_MESSAGE = 64 * 1024  # payload of one WebSocket message of ours
SIZES_HELD = 16

_log = logging.getLogger("wire.remotecommand")


class RemoteCommandSession(ABC):
    """A client's standard streams. Lives until `finish` or until the client leaves (`closed`)."""

    def __init__(self, wanted: Wanted, protocol: str) -> None:
        self.wanted = wanted
        self.protocol = protocol
        self.finished = False

    closed: asyncio.Event

    @abstractmethod
    async def read_stdin(self) -> bytes:
        """The next bytes of stdin; b"" at its end, when the client has gone, and where none was asked for."""

    @abstractmethod
    async def write_stdout(self, data: bytes) -> None:
        """Deliver output; waits while the client does not read. Raises ConnectionLost."""

    @abstractmethod
    async def write_stderr(self, data: bytes) -> None:
        """As `write_stdout`. With a terminal there is no stderr: the bytes go to stdout."""

    @abstractmethod
    async def next_resize(self) -> TerminalSize | None:
        """The next terminal size; None when there will be no more."""

    @abstractmethod
    async def finish(self, status: Mapping[str, Any]) -> None:
        """Say how it ended. All output must have been written. Harmless if the client has gone or it was said."""


Session = RemoteCommandSession


# SPDY


class SpdyCommandSession(RemoteCommandSession):
    """exec or attach over SPDY streams."""

    def __init__(
        self, session: SpdySession, streams: Mapping[str, SpdyStream], wanted: Wanted, protocol: SpdyProtocol
    ) -> None:
        super().__init__(wanted, protocol.name)
        self._session = session
        self._streams = streams
        self._has_status = protocol.has_status
        self._sizes: deque[TerminalSize] = deque()
        self._resize = ResizeReader()
        self.closed = session.ended

    async def read_stdin(self) -> bytes:
        stream = self._streams.get("stdin")
        return await stream.read() if stream is not None else b""

    async def write_stdout(self, data: bytes) -> None:
        await self._write("stdout", data)

    async def write_stderr(self, data: bytes) -> None:
        await self._write("stdout" if self.wanted.tty else "stderr", data)

    async def _write(self, name: str, data: bytes) -> None:
        stream = self._streams.get(name)
        if stream is not None and data:
            await stream.write(data)

    async def next_resize(self) -> TerminalSize | None:
        stream = self._streams.get("resize")
        while not self._sizes:
            data = await stream.read() if stream is not None else b""
            if not data:
                return None
            self._sizes.extend(self._resize.feed(data))
        return self._sizes.popleft()

    async def finish(self, status: Mapping[str, Any]) -> None:
        if self.finished:
            return
        self.finished = True
        error = self._streams["error"]
        with contextlib.suppress(ConnectionLost):
            # The client reads the error stream only once both outputs have ended.
            for name in ("stdout", "stderr"):
                if name in self._streams:
                    self._streams[name].finish()
            if message := status_bytes(status, self._has_status):
                await error.write(message)
        for stream in self._streams.values():
            stream.finish()


def _spdy_protocol(request: web.BaseRequest) -> SpdyProtocol:
    offered = stream_protocols(request.headers.getall("X-Stream-Protocol-Version", ()))
    if not offered:
        raise no_stream_protocol(request)
    chosen = negotiate(offered, SPDY_PROTOCOLS)
    if chosen is None:
        raise no_common_protocol(offered, list(SPDY_PROTOCOLS))
    return SPDY_PROTOCOLS[chosen]


@contextlib.asynccontextmanager
async def _accept_spdy(request: web.BaseRequest, wanted: Wanted) -> AsyncIterator[RemoteCommandSession]:
    protocol = _spdy_protocol(request)
    expected = protocol.streams(wanted)
    head = switching_protocols("SPDY/3.1", [("X-Stream-Protocol-Version", protocol.name)])
    streams: dict[str, SpdyStream] = {}

    def admit(headers: Headers) -> bool:
        return not expected <= streams.keys()

    channel = await take_over(request, head)
    async with spdy_session(channel, Role.SERVER, admit=admit) as session:
        await _collect(session, expected, streams)
        command = SpdyCommandSession(session, streams, wanted, protocol)
        async with _always_finished(command):
            yield command


async def _collect(session: SpdySession, expected: frozenset[str], streams: dict[str, SpdyStream]) -> None:
    """Wait for the streams, which come in any order (kubernetes#13673)."""
    try:
        async with asyncio.timeout(STREAM_TIMEOUT):
            while not expected <= streams.keys():
                stream = await session.accept()
                if stream is None:
                    raise ConnectionLost("the client left before its streams were complete") from session.error
                kind = stream.headers.get(STREAM_TYPE, "")
                if kind in streams or kind not in expected:
                    stream.discard()
                else:
                    streams[kind] = stream
    except TimeoutError:
        missing = sorted(expected - streams.keys())
        raise WireError(f"timed out waiting for client to create streams {missing}") from None


# WebSocket

#: kubectl 1.29 to 1.33 reads messages before it has registered its channels, and drops them with a line on the user's
#: terminal (fixed in 1.34). There is nothing to wait for but its start; our own answer comes faster than that.
EARLY_GRACE = 0.015


class WebSocketCommandSession(RemoteCommandSession):
    """exec or attach over WebSocket channels. `run` reads for as long as the session lives."""

    def __init__(self, socket: WebSocket, wanted: Wanted, protocol: WebSocketProtocol) -> None:
        super().__init__(wanted, protocol.name)
        self._socket = socket
        self._protocol = protocol
        self._stdin: deque[bytes] = deque()
        self._stdin_size = 0
        self._stdin_ended = not wanted.stdin
        self._stdin_change = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._resize = ResizeReader()
        self._sizes: deque[TerminalSize] = deque(maxlen=SIZES_HELD)
        self._size_change = asyncio.Event()
        self.closed = asyncio.Event()

    def announce(self) -> None:
        """The readiness message: nothing, on the lowest channel that was asked for."""
        rows = ((self.wanted.stdout, Channel.STDOUT), (self.wanted.separate_stderr, Channel.STDERR))
        channel = next((channel for asked, channel in rows if asked), Channel.ERROR)
        self._send(channel, b"")

    async def run(self) -> None:
        """Take the client's messages apart. Never raises: a client that breaks the rules is a client that left."""
        try:
            while (message := await self._socket.receive()) is not None:
                if message.data:
                    self._on_message(*self._protocol.decode(message.data))
                if not self._room.is_set():
                    await receive_or_pong(self._socket, self._room)
        except (ConnectionLost, PeerProtocolError) as error:
            _log.debug('websocket.left error="%s"', error)
        finally:
            self._stdin_ended = True
            self.closed.set()
            self._stdin_change.set()
            self._size_change.set()

    def _on_message(self, channel: int, data: bytes) -> None:
        if channel == Channel.STDIN and not self._stdin_ended:
            self._stdin.append(data)
            self._stdin_size += len(data)
            if self._stdin_size > STDIN_LIMIT:
                self._room.clear()
            self._stdin_change.set()
        elif channel == Channel.RESIZE and self.wanted.tty:
            self._sizes.extend(self._resize.feed(data))
            self._size_change.set()
        elif channel == Channel.CLOSE and self._protocol.can_close:
            self._on_close(data)
        # Anything else is for a channel that can not be read: dropped, as upstream does.

    def _on_close(self, data: bytes) -> None:
        if len(data) != 1 or data[0] > Channel.RESIZE:
            raise PeerProtocolError(f"close of channel {data.hex()}")
        if data[0] == Channel.STDIN:
            self._stdin_ended = True
            self._stdin_change.set()

    async def read_stdin(self) -> bytes:
        while not self._stdin:
            if self._stdin_ended:
                return b""
            self._stdin_change.clear()
            await self._stdin_change.wait()
        data = self._stdin.popleft()
        self._stdin_size -= len(data)
        if self._stdin_size <= STDIN_LIMIT // 2:
            self._room.set()
        # An empty message is legal and is not the end.
        return data or await self.read_stdin()

    async def write_stdout(self, data: bytes) -> None:
        if self.wanted.stdout:
            await self._write(Channel.STDOUT, data)

    async def write_stderr(self, data: bytes) -> None:
        if self.wanted.tty:
            await self.write_stdout(data)
        elif self.wanted.stderr:
            await self._write(Channel.STDERR, data)

    async def _write(self, channel: Channel, data: bytes) -> None:
        if self.closed.is_set():
            raise ConnectionLost("the client has gone")
        for start in range(0, len(data), MAX_MESSAGE):
            self._send(channel, data[start : start + MAX_MESSAGE])
        await self._socket.drain()

    def _send(self, channel: int, data: bytes) -> None:
        self._socket.send(self._protocol.encode(channel, data), is_text=self._protocol.is_base64)

    async def next_resize(self) -> TerminalSize | None:
        while not self._sizes:
            if self.closed.is_set() or not self.wanted.tty:
                return None
            self._size_change.clear()
            await self._size_change.wait()
        return self._sizes.popleft()

    async def finish(self, status: Mapping[str, Any]) -> None:
        if self.finished:
            return
        self.finished = True
        if message := status_bytes(status, self._protocol.has_status):
            self._send(Channel.ERROR, message)
        self._socket.send_close()
        with contextlib.suppress(ConnectionLost):
            await self._socket.drain()


@contextlib.asynccontextmanager
async def accept_websocket_command(
    request: web.BaseRequest, wanted: Wanted, names: Iterable[str] = tuple(WEBSOCKET_PROTOCOLS)
) -> AsyncIterator[RemoteCommandSession]:
    """exec or attach over WebSocket with one of the given subprotocols. Raises HandshakeRefused."""
    if (wrong := handshake_refusal(request)) is not None:
        raise HandshakeRefused(wrong)
    chosen = negotiate(offered_protocols(request) or [""], names)
    if chosen is None:
        raise no_websocket_protocol()
    socket = await accept_websocket(request, chosen)
    command = WebSocketCommandSession(socket, wanted, WEBSOCKET_PROTOCOLS[chosen])
    reader = asyncio.create_task(command.run(), name="websocket channels")
    try:
        await asyncio.sleep(EARLY_GRACE)
        command.announce()
        async with _always_finished(command):
            yield command
        # Our Close is out; the reader goes on until the peer's, so that nothing unread resets the connection.
        with contextlib.suppress(ConnectionLost):
            await socket.stream.flush()
            await asyncio.wait([reader], timeout=1.0)
    finally:
        reader.cancel()
        socket.send_close()
        socket.stream.close_soon()
        await asyncio.wait([reader])


# Either


@contextlib.asynccontextmanager
async def _always_finished(command: RemoteCommandSession) -> AsyncIterator[None]:
    """However the body ends, the client gets a Status: without one kubectl takes a dropped connection for success."""
    try:
        yield
    except asyncio.CancelledError:
        # A client that does not read must not hold up the shutdown.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await command.finish(session_error("the server is shutting down"))
        raise
    except ConnectionLost:
        raise
    except Exception as error:
        await command.finish(session_error(str(error) or type(error).__name__))
        raise
    else:
        await command.finish(session_error("the command session ended without a result"))


@contextlib.asynccontextmanager
async def accept_remotecommand(
    request: web.BaseRequest, *, stdin: bool, stdout: bool, stderr: bool, tty: bool
) -> AsyncIterator[RemoteCommandSession]:
    """Answer an exec or attach request in whatever the client speaks and yield the session.

    Raises HandshakeRefused before anything was taken over (return its response), ConnectionLost or WireError when the
    client did not complete its streams. After a normal end return `wire.upgrade.TakenOver()`.
    """
    wanted = Wanted(stdin, stdout, stderr, tty)
    if is_spdy(request.headers):
        accepted = _accept_spdy(request, wanted)
    elif is_websocket(request.headers):
        accepted = accept_websocket_command(request, wanted)
    else:
        raise upgrade_required()
    async with accepted as session:
        yield session
