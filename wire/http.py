"""HTTP front doors: an aiohttp low-level server on one or more listeners.

I own the listeners and the connections until a handler takes one over (`wire.upgrade`). The handler decides
everything else. Rule: bytes that arrive behind the head of an upgrade request are kept, never parsed as HTTP
and never dropped (aiohttp keeps them for `websocket` only; its C parser discards them for SPDY/3.1).
"""

import asyncio
import contextlib
import http
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from wire.errors import ConnectionLost

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

MAX_BODY = 3 * 1024 * 1024  # upstream's limit for request bodies
MAX_LINE = 128 * 1024  # an exec URL carries the whole command line
MAX_FIELD = 64 * 1024  # a service account token in a header is a few KiB
MAX_HEADERS = 200
MAX_EARLY = 256 * 1024  # bytes kept behind an upgrade request before reading pauses
HEAD_TIMEOUT = 32.0  # upstream's ReadHeaderTimeout: how long the first request's head may take
LINGER = 2.0  # seconds a refused body is still read, so that the refusal is not lost in a reset
CLEANUP = 5.0  # seconds that cancelled handlers have
HEAD_END = b"\r\n\r\n"

_log = logging.getLogger("wire.http")
# What aiohttp reports of clients that speak no HTTP is their fault, not ours: keep it out of the error log.
_aiohttp_log = logging.getLogger("wire.http.aiohttp")


class Connection(RequestHandler):
    """One client connection, until it ends or is taken over. Keeps the bytes behind an upgrade head."""

    __slots__ = ("_early", "_ending", "_head_timer", "_upgrading")

    def __init__(self, manager: web.Server, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._ending = b""  # the last three bytes seen: a head may end across two segments
        self._upgrading = False
        self._early = bytearray()
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # aiohttp's keep-alive timer is longer, and reset by nothing but whole requests: this one is for the slow head.
        self._head_timer = self._loop.call_later(HEAD_TIMEOUT, self._close_headless)

    def _close_headless(self) -> None:
        self._head_timer = None
        self.force_close()

    def data_received(self, data: bytes) -> None:
        if self._upgrading:
            self._keep(data)
            return
        seen = len(self._messages)
        super().data_received(data)
        fresh = len(self._messages) - seen
        if fresh > 0 and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if fresh > 0 and not self._upgraded and self._asks_for_upgrade():
            self._upgrading = True
            joined = self._ending + data
            end = joined.find(HEAD_END) if fresh == 1 else joined.rfind(HEAD_END)
            if end >= 0:
                self._keep(joined[end + len(HEAD_END) :])
        self._ending = data[-3:]

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if self._task_handler is not None and self._task_handler.cancelling():
            # The handler is cancelled already (shutdown): a second time would interrupt its clean-up.
            self._task_handler = None
        super().connection_lost(exc)

    def _asks_for_upgrade(self) -> bool:
        return bool(getattr(self._messages[-1][0], "upgrade", False))

    def _keep(self, data: bytes) -> None:
        self._early += data
        if len(self._early) >= MAX_EARLY and self.transport is not None:
            self.transport.pause_reading()

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """What serves this connection, while it does."""
        return self._task_handler

    def take_early(self) -> bytes:
        """Everything that came behind the upgrade head. Once: the caller has it then."""
        early = bytes(self._early) + bytes(self._message_tail)
        self._early.clear()
        self._message_tail = b""
        return early

    def release(self) -> asyncio.Transport:
        """Give the transport away for good. The handler goes on; aiohttp forgets the connection when it ends."""
        transport, self.transport = self.transport, None
        if transport is None:
            raise ConnectionLost("the client has gone")
        self.keep_alive(False)
        if self._manager is not None:
            self._manager.connection_lost(self, None)
        return transport

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is the client's mistake. Neither log nor answer repeat it: it may hold a token."""
        if status != 400:
            return self._failed(request, status, exc, message)
        if isinstance(exc, LineTooLong) or (message or "").startswith("Too many headers"):
            status = 431
        text = f"{status} {http.HTTPStatus(status).phrase}"
        _log.debug("request.malformed from=%s status=%d error=%s", request.remote, status, type(exc).__name__)
        response = web.Response(status=status, text=text)
        response.force_close()
        return response

    def _failed(
        self, request: web.BaseRequest, status: int, exc: BaseException | None, message: str | None
    ) -> web.StreamResponse:
        """A handler raised. A client that left is no news; an answer that has begun can only be broken off."""
        if isinstance(request, Incoming) and request.started and self.transport is not None:
            self.transport.abort()
        if not isinstance(exc, ConnectionError):
            return super().handle_error(request, status, exc, message)
        _log.debug("client.left from=%s path=%s", request.remote, request.path)
        response = web.Response(status=status)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        answer = await super().finish_response(request, resp, start_time)
        if self._upgrading and self.transport is not None:
            # The upgrade was declined and the connection lives on: what was kept is the next request.
            self._upgrading = False
            early = self.take_early()
            self.transport.resume_reading()
            if early:
                self.data_received(early)
        return answer


class Incoming(web.BaseRequest):
    """A request that knows whether its answer has begun; then only the connection's end tells of an error.

    `started` is the status that was sent, 0 before. `when_started` is called with it, once.
    """

    started: int = 0
    when_started: Callable[[int], None] | None = None

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        self.note_start(response.status)

    def note_start(self, status: int) -> None:
        if not self.started:
            self.started = status
            if self.when_started is not None:
                self.when_started(status)


class _Server(web.Server):
    """aiohttp's connection factory with our connection, our requests and our body limit."""

    def __init__(self, handler: Handler, max_body: int, **kwargs: Any) -> None:
        super().__init__(self._answer, request_factory=self._make_limited, **kwargs)
        self._serve = handler
        self._max_body = max_body

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.version.major != 1:
            response = web.Response(status=505, text="505 HTTP Version Not Supported: unsupported protocol version")
            response.force_close()
            return response
        return await self._serve(request)

    def _make_limited(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        return Incoming(message, payload, protocol, writer, task, self._loop, client_max_size=self._max_body)

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class HTTPServer:
    """An HTTP server on any number of listeners. `async with` it; leaving stops listening and ends handlers.

    A handler is cancelled when its client leaves. `grace` is how long running requests may finish at the end.
    """

    def __init__(
        self, handler: Handler, *, max_body: int = MAX_BODY, keepalive: float = 90.0, grace: float = 0.5
    ) -> None:
        self._handler = handler
        self._max_body = max_body
        self._keepalive = keepalive
        self._grace = grace
        self._server: _Server | None = None
        self._listeners: list[asyncio.Server] = []
        self._unix_paths: list[str] = []

    async def __aenter__(self) -> Self:
        self._server = _Server(
            self._handler,
            self._max_body,
            handler_cancellation=True,
            access_log=None,
            logger=_aiohttp_log,
            keepalive_timeout=self._keepalive,
            max_line_size=MAX_LINE,
            max_field_size=MAX_FIELD,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
            lingering_time=LINGER,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        for listener in self._listeners:
            listener.close()
        handlers = [connection.task for connection in self._server.connections if isinstance(connection, Connection)]
        self._server.pre_shutdown()
        await self._server.shutdown(self._grace)
        # aiohttp cancels what still runs and does not wait for it: handlers of taken over connections have to clean up.
        if running := [task for task in handlers if task is not None]:
            await asyncio.wait(running, timeout=CLEANUP)
        # And a turn for the transports they closed.
        await asyncio.sleep(0)
        for path in self._unix_paths:
            _unlink(path)

    async def listen(
        self,
        host: str | None = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        *,
        sock: socket.socket | None = None,
    ) -> int:
        """Listen on `host:port` (0: any free one) or on a bound socket; the port that was taken."""
        assert self._server is not None, "use `async with`"
        loop = asyncio.get_running_loop()
        handshake = 10.0 if ssl_context is not None else None
        if sock is not None:
            listener = await loop.create_server(
                self._server, sock=sock, ssl=ssl_context, backlog=1024, ssl_handshake_timeout=handshake
            )
        else:
            listener = await loop.create_server(
                self._server, host, port, ssl=ssl_context, backlog=1024, ssl_handshake_timeout=handshake
            )
        self._listeners.append(listener)
        bound: int = listener.sockets[0].getsockname()[1]
        _log.debug("listen host=%s port=%d tls=%s", host, bound, ssl_context is not None)
        return bound

    async def listen_unix(self, path: str, mode: int = 0o600) -> None:
        """Listen on a UNIX path, replacing a stale socket file."""
        assert self._server is not None, "use `async with`"
        _unlink(path)
        listener = await asyncio.get_running_loop().create_unix_server(self._server, path)
        os.chmod(path, mode)
        self._listeners.append(listener)
        self._unix_paths.append(path)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
