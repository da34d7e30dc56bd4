"""HTTP/1.1 requests over streams: a small pool towards one origin.

I own the idle connections and lend one to each request. Who dials, and by which path, is the caller's: I am given
`connect`. Rule: an answer is either read to its end (its connection goes back) or its connection is closed.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from wire.errors import ConnectionLost, PeerProtocolError
from wire.protocol.http1 import MAX_HEAD, BodyReader, Framing, Head, framing, parse_head
from wire.stream import Stream

Headers = Iterable[tuple[str, str]]
Connect = Callable[[], Awaitable[Stream]]

MAX_IDLE = 25  # per host, as upstream's kubelet transport
IDLE_TIMEOUT = 60.0  # below every server's own keep-alive, so that we close first
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Answer:
    """One answer: the head at once, the body as it comes. `async with` it."""

    def __init__(self, head: Head, stream: Stream, body: BodyReader, give_back: Callable[[Stream], None]) -> None:
        self.head = head
        self.status = head.status
        self._stream = stream
        self._body = body
        self._give_back: Callable[[Stream], None] | None = give_back
        self._pieces: deque[bytes] = deque()
        if body.done:
            self._finish()

    @property
    def stream(self) -> Stream:
        """The connection it came over, to look at."""
        return self._stream

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def chunk(self) -> bytes:
        """The next piece of the body, b"" at its end. Raises ConnectionLost or PeerProtocolError if it is cut off."""
        while not self._pieces:
            if self._body.done:
                return b""
            data = await self._stream.read(1 << 20)
            if data:
                self._pieces.extend(self._body.feed(data))
            else:
                self._on_eof()
            if self._body.done:
                self._finish()
        return self._pieces.popleft()

    def _on_eof(self) -> None:
        try:
            self._body.feed_eof()
        except PeerProtocolError as error:
            raise ConnectionLost("unexpected EOF") from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.chunk():
            yield piece

    async def read(self, limit: int | None = None) -> bytes:
        """The whole body, or its first `limit` bytes (then the connection is given up)."""
        parts: list[bytes] = []
        size = 0
        while piece := await self.chunk():
            parts.append(piece)
            size += len(piece)
            if limit is not None and size >= limit:
                self.close()
                break
        body = b"".join(parts)
        return body if limit is None else body[:limit]

    def _finish(self) -> None:
        if self._give_back is None:
            return
        give_back, self._give_back = self._give_back, None
        if self.head.keeps_alive and self._body.kind is not Framing.UNTIL_EOF and not self._body.trailing:
            give_back(self._stream)
        else:
            self._stream.close()

    def close(self) -> None:
        """Give the connection up unless the body was read to its end. Idempotent."""
        if self._give_back is not None:
            self._give_back = None
            self._stream.abort()


class HTTPClient:
    """Requests to one origin. `connect` opens a connection; `close` ends the idle ones."""

    def __init__(self, connect: Connect, host: str) -> None:
        self._connect = connect
        self._host = host
        self._idle: list[tuple[float, Stream]] = []
        self._closed = False

    async def request(
        self, method: str, target: str, headers: Headers = (), body: bytes | None = None, timeout: float | None = None
    ) -> Answer:
        """Send one request and wait for the head of its answer. Raises WireError.

        A reused connection that the server had just closed is tried again on a new one where that is harmless.
        """
        async with asyncio.timeout(timeout):
            while True:
                stream, reused = await self._acquire()
                try:
                    return await self._exchange(stream, method, target, headers, body)
                except ConnectionLost:
                    stream.abort()
                    if not reused or method not in SAFE:
                        raise
                except BaseException:
                    stream.abort()
                    raise

    async def _exchange(
        self, stream: Stream, method: str, target: str, headers: Headers, body: bytes | None
    ) -> Answer:
        stream.write(request_head(method, target, self._host, headers, body) + (body or b""))
        await stream.drain()
        while True:
            head = parse_head(await stream.read_until(b"\r\n\r\n", MAX_HEAD))
            # 100 Continue and its kin announce nothing; 101 is only ever asked for in `wire.upgrade`.
            if head.status >= 200:
                break
            if head.status == 101:
                raise PeerProtocolError("101 without a request to upgrade")
        kind, length = framing(method, head)
        return Answer(head, stream, BodyReader(kind, length), self._release)

    async def _acquire(self) -> tuple[Stream, bool]:
        oldest = time.monotonic() - IDLE_TIMEOUT
        while self._idle:
            since, stream = self._idle.pop()
            if not stream.is_lost and not stream.at_eof and since > oldest:
                return stream, True
            stream.close()
        return await self._connect(), False

    def _release(self, stream: Stream) -> None:
        if self._closed or stream.is_lost or stream.at_eof or len(self._idle) >= MAX_IDLE:
            stream.close()
        else:
            self._idle.append((time.monotonic(), stream))

    def drop_idle(self) -> None:
        """Close the idle connections, e.g. because the credentials changed."""
        for _, stream in self._idle:
            stream.close()
        self._idle.clear()

    async def aclose(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for _, stream in idle:
            await stream.aclose(0.5)


def request_head(method: str, target: str, host: str, headers: Headers, body: bytes | None = None) -> bytes:
    """A request head. Raises ValueError for anything that would break out of its line."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body or b'')}")
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise ValueError("line break in a request head")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
