"""Out of HTTP and into another protocol: both ends of `101 Switching Protocols`.

Server side: `take_over` moves the transport from aiohttp to a Stream. Client side: `request_upgrade`.
Neighbours: `wire.http` keeps the bytes behind a request head; `wire.stream` carries what follows.
Rules: a byte behind a head is never lost; nothing is written behind a SPDY 101 before the client has spoken
(kubectl drops what it read together with the head); a refusal is read once, bounded, and the connection closed.
"""

import asyncio
import base64
import hashlib
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy

from wire.errors import UpgradeRefused, WireError
from wire.http import Connection, Incoming
from wire.httpclient import request_head
from wire.protocol.http1 import MAX_HEAD, BodyReader, Head, framing, parse_head
from wire.stream import Stream

UPGRADE_TIMEOUT = 30.0
MAX_REFUSAL = 50_000  # what upstream reads of an error body
REFUSAL_TIMEOUT = 10.0
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class TakenOver(web.StreamResponse):
    """What a handler returns once the connection is no longer HTTP: aiohttp must not write anything."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def take_over(request: web.BaseRequest, head: bytes) -> Stream:
    """Write `head` and take the connection away from aiohttp. The caller owns the stream and returns TakenOver().

    Raises ConnectionLost if the client has gone. Nothing received is lost, with whatever segment it came.
    """
    connection = request.protocol
    if not isinstance(connection, Connection):
        raise TypeError("only connections of wire.http can be taken over")
    early = connection.take_early()
    transport = connection.release()
    stream = Stream()
    stream.connection_made(transport)
    transport.set_protocol(stream)
    if early:
        stream.data_received(early)
    # aiohttp or our keeping of early bytes may have paused it; the stream pauses again by its own limit.
    transport.resume_reading()
    stream.write(head)
    if isinstance(request, Incoming):
        request.note_start(int(head[9:12]))  # behind "HTTP/1.1 "
    return stream


def switching_protocols(upgrade: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A whole 101 head."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {upgrade}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def is_upgrade(headers: CIMultiDictProxy[str]) -> bool:
    """Whether a request asks to switch protocols: any Connection value containing `upgrade` (apimachinery)."""
    return any("upgrade" in value.lower() for value in headers.getall("Connection", ()))


def is_spdy(headers: CIMultiDictProxy[str]) -> bool:
    return is_upgrade(headers) and any("spdy/3.1" in value.lower() for value in headers.getall("Upgrade", ()))


def is_websocket(headers: CIMultiDictProxy[str]) -> bool:
    return is_upgrade(headers) and headers.get("Upgrade", "").strip().lower() == "websocket"


def websocket_accept(key: str) -> str:
    """`Sec-WebSocket-Accept` for a client's key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + WEBSOCKET_GUID).digest()).decode("ascii")


async def request_upgrade(
    stream: Stream,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]],
    *,
    host: str = "",
    timeout: float = UPGRADE_TIMEOUT,
) -> tuple[int, Head, Stream]:
    """Send an upgrade request and read one answer head. Bytes behind the head stay in the stream.

    Whatever the status is, the caller owns the stream and must check it; see `refusal` for anything but 101.
    """
    stream.write(request_head(method, target, host, headers))
    try:
        async with asyncio.timeout(timeout):
            await stream.drain()
            head = parse_head(await stream.read_until(b"\r\n\r\n", MAX_HEAD))
    except TimeoutError as error:
        raise WireError(f"no answer to the upgrade request in {timeout:.0f}s") from error
    return head.status, head, stream


async def refusal(method: str, head: Head, stream: Stream) -> UpgradeRefused:
    """Read what came with a refusal, at most 50,000 bytes and ten seconds, and close the connection."""
    body = bytearray()
    try:
        kind, length = framing(method, head)
        reader = BodyReader(kind, length)
        async with asyncio.timeout(REFUSAL_TIMEOUT):
            while not reader.done and len(body) < MAX_REFUSAL and (data := await stream.read()):
                for piece in reader.feed(data):
                    body += piece
    except (WireError, TimeoutError):
        pass  # What was read so far is still the best explanation there is.
    finally:
        stream.abort()
    return UpgradeRefused(head.status, bytes(body[:MAX_REFUSAL]), list(head.headers))


def tls_facts(request: web.BaseRequest) -> Any:
    """The live ssl_object of a request's connection, or None on plain TCP."""
    return request.get_extra_info("ssl_object")
