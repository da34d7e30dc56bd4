"""A WebSocket that moves messages: a Stream with frames around it.

I own the stream. Reading is the owner's loop (`receive`), which answers PINGs on its way; the server and client
handshakes are here too. Rule: the end is a Close frame; anything else raises ConnectionLost.
"""

import asyncio
import os
from collections import deque
from collections.abc import Iterable

from aiohttp import web

from wire.errors import ConnectionLost, PeerProtocolError
from wire.protocol.http1 import Head
from wire.protocol.websocket import (
    NO_STATUS,
    NORMAL_CLOSURE,
    PROTOCOL_ERROR,
    CloseReceived,
    Masker,
    Message,
    Opcode,
    Reassembly,
    Role,
    WebSocketConnection,
    xor_mask,
)
from wire.stream import Stream
from wire.upgrade import switching_protocols, take_over, websocket_accept

try:
    # Forty times as fast as big integers, and already here because aiohttp is.
    from aiohttp._websocket.mask import _websocket_mask_cython as _mask  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # pragma: no cover - aiohttp without its C extensions
    _mask = xor_mask
_MASKER: Masker = _mask

CLOSE_PATIENCE = 1.0


class WebSocket:
    """One WebSocket, from the 101 to its end. One coroutine receives; any may send."""

    def __init__(self, stream: Stream, role: Role, reassembly: Reassembly = Reassembly.MESSAGES) -> None:
        self.stream = stream
        self._connection = WebSocketConnection(role, reassembly=reassembly, masker=_MASKER)
        self._is_client = role is Role.CLIENT
        self._messages: deque[Message] = deque()
        self._close_sent = False
        self.close_received: CloseReceived | None = None

    async def receive(self) -> Message | None:
        """The next message; None after the peer's Close. Raises ConnectionLost without one, PeerProtocolError."""
        while not self._messages:
            if self.close_received is not None:
                return None
            data = await self.stream.read(1 << 18)
            if not data:
                raise ConnectionLost("WebSocket connection ended without a close frame")
            self._receive(data)
        return self._messages.popleft()

    def _receive(self, data: bytes) -> None:
        try:
            events = self._connection.receive_data(data, self._key())
        except PeerProtocolError:
            self.send_close(PROTOCOL_ERROR)
            raise
        if (answer := self._connection.data_to_send()) and not self._close_sent:
            self.stream.write(answer)
        for event in events:
            if isinstance(event, Message):
                self._messages.append(event)
            elif isinstance(event, CloseReceived):
                self.close_received = event
                self.send_close(event.code if event.code != NO_STATUS else NORMAL_CLOSURE)

    def _key(self) -> bytes | None:
        return os.urandom(4) if self._is_client else None

    def send(self, data: bytes, *, is_text: bool = False) -> None:
        """Queue one message. Behind our Close frame it is dropped."""
        if not self._close_sent:
            opcode = Opcode.TEXT if is_text else Opcode.BINARY
            self.stream.write(self._connection.encode(opcode, data, self._key()))

    def send_pong(self) -> None:
        """An unasked PONG (RFC 6455 section 5.5.3): says that we live while we do not read."""
        if not self._close_sent:
            self.stream.write(self._connection.encode(Opcode.PONG, b"", self._key()))

    def send_ping(self) -> None:
        if not self._close_sent:
            self.stream.write(self._connection.encode(Opcode.PING, b"", self._key()))

    def send_close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        if not self._close_sent:
            self.stream.write(self._connection.encode_close(code, reason, self._key()))
            self._close_sent = True

    async def drain(self) -> None:
        await self.stream.drain()

    async def aclose(self, code: int = NORMAL_CLOSURE) -> None:
        """Close frame, deliver everything, wait a moment for the peer's Close, close."""
        self.send_close(code)
        await self.stream.finish(CLOSE_PATIENCE)


# Handshakes


def offered_protocols(request: web.BaseRequest) -> list[str]:
    """The subprotocols a client offers, best first. Like upstream, only the first header line counts."""
    line = request.headers.get("Sec-WebSocket-Protocol", "")
    return [name.strip() for name in line.split(",") if name.strip()]


def handshake_refusal(request: web.BaseRequest) -> web.Response | None:
    """What is wrong with a WebSocket handshake, as upstream's server answers it; None if nothing is."""
    if request.method != "GET":
        return closing_response(405, b"bad method")
    if request.headers.get("Sec-WebSocket-Version", "").strip() != "13":
        return closing_response(400, b"missing or bad WebSocket Version", {"Sec-WebSocket-Version": "13"})
    if not request.headers.get("Sec-WebSocket-Key", "").strip():
        return closing_response(400, b"challenge response")
    return None


def closing_response(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> web.Response:
    """A plain answer that ends the connection: an upgrading client reads a refusal to its end."""
    response = web.Response(status=status, body=body, headers=headers, content_type="text/plain")
    response.force_close()
    return response


async def accept_websocket(
    request: web.BaseRequest, protocol: str = "", reassembly: Reassembly = Reassembly.MESSAGES
) -> WebSocket:
    """Answer 101 with the chosen subprotocol (none: "") and take the connection over."""
    key = request.headers["Sec-WebSocket-Key"].strip()
    headers = [("Sec-WebSocket-Accept", websocket_accept(key))]
    if protocol:
        headers.append(("Sec-WebSocket-Protocol", protocol))
    stream = await take_over(request, switching_protocols("websocket", headers))
    return WebSocket(stream, Role.SERVER, reassembly)


def websocket_request(protocols: Iterable[str], key: str) -> list[tuple[str, str]]:
    """Headers of a client's handshake."""
    headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ]
    offered = ", ".join(protocols)
    return [*headers, ("Sec-WebSocket-Protocol", offered)] if offered else headers


def check_websocket_answer(head: Head, key: str) -> str:
    """The subprotocol the server chose. Raises PeerProtocolError if it is no WebSocket answer to our key."""
    if head.get("upgrade").lower() != "websocket" or not head.has_token("connection", "upgrade"):
        raise PeerProtocolError("101 without an upgrade to websocket")
    if head.get("sec-websocket-accept") != websocket_accept(key):
        raise PeerProtocolError("wrong Sec-WebSocket-Accept")
    return head.get("sec-websocket-protocol")


async def receive_or_pong(socket: WebSocket, room: asyncio.Event, interval: float = 5.0) -> None:
    """Wait until there is room to read on, and say every few seconds that we live.

    kubectl gives up a WebSocket when no PONG came for a minute, also while it is our consumer who does not read.
    """
    while not room.is_set():
        try:
            async with asyncio.timeout(interval):
                await room.wait()
        except TimeoutError:
            socket.send_pong()
