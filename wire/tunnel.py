"""A byte channel inside a WebSocket: what SPDY runs on when it is tunnelled.

Has the methods of `wire.stream.Stream` that `wire.spdy_session` uses. I own the WebSocket.
"""

from wire.errors import ConnectionLost, PeerProtocolError
from wire.protocol.websocket import NORMAL_CLOSURE
from wire.websocket_session import WebSocket


class Tunnel:
    """Bytes over binary messages. Lives as long as its WebSocket, which must hand on fragments."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket

    async def read(self, n: int = 65536) -> bytes:
        """The next bytes, of any number; b"" after Close 1000. Raises ConnectionLost for any other end."""
        while True:
            message = await self.socket.receive()
            if message is None:
                close = self.socket.close_received
                if close is not None and close.code != NORMAL_CLOSURE:
                    raise ConnectionLost(f"tunnel closed with {close.code} {close.reason}".rstrip())
                return b""
            if message.is_text:
                raise PeerProtocolError("text message in a SPDY tunnel")
            if message.data:
                return message.data

    def write(self, data: bytes) -> None:
        self.socket.send(data)

    async def drain(self) -> None:
        await self.socket.drain()

    async def flush(self) -> None:
        await self.socket.stream.flush()

    async def finish(self, patience: float = 0.0) -> None:
        self.socket.send_close(NORMAL_CLOSURE)
        await self.socket.stream.finish(patience)

    def close_soon(self) -> None:
        self.socket.send_close(NORMAL_CLOSURE)
        self.socket.stream.close_soon()

    def abort(self) -> None:
        self.socket.stream.abort()
