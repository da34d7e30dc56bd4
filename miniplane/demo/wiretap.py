"""Listening in on an upgraded connection, and typing into it: what a man in the middle makes of the bytes.

My job: the bytes of both directions in, what they carry out (`Overheard`); and, at a frame's border, the bytes that put
words into the client's mouth. No I/O: `interceptor` moves the bytes. It reads the same protocols that the kubelet
serves, by the same sans-IO parsers: SPDY/3.1 streams, WebSocket channels, SPDY tunnelled in WebSocket.
"""

import struct
from dataclasses import dataclass
from typing import Final, Protocol

from wire.protocol.http1 import Head
from wire.protocol.remotecommand import Channel
from wire.protocol.spdy.frames import Control, Data, FrameReader, FrameType, data_head
from wire.protocol.spdy.headers import HeaderDecompressor
from wire.protocol.tunnel import is_tunnel
from wire.protocol.websocket import Message, Opcode, Reassembly, Role, WebSocketConnection, encode_frame

#: A masking key hides nothing (RFC 6455, 10.3); any will do.
MASK: Final = b"\x00\x00\x00\x00"
_SYN_STREAM_HEAD: Final = struct.Struct(">IIH")
_CHANNELS: Final[dict[int, str]] = {Channel.STDIN: "stdin", Channel.STDOUT: "stdout", Channel.STDERR: "stderr"}


@dataclass(frozen=True, slots=True)
class Overheard:
    """Some bytes of one stream: stdin, stdout, stderr, or a forwarded port's data."""

    stream: str
    data: bytes


class Wiretap(Protocol):
    """One upgraded connection. Raises PeerProtocolError for what is no such protocol."""

    def from_client(self, data: bytes) -> list[Overheard]: ...

    def from_node(self, data: bytes) -> list[Overheard]: ...

    def typed(self, text: bytes) -> bytes | None:
        """`text` as if the client had typed it, to be sent to the node now; None where that is not possible now."""


class SpdyTap:
    """Streams are known by the `streamtype` header that opened them."""

    def __init__(self) -> None:
        self._client, self._node = FrameReader(), FrameReader()
        self._headers = HeaderDecompressor()
        self._streams: dict[int, str] = {}

    def from_client(self, data: bytes) -> list[Overheard]:
        found = []
        for frame in self._client.feed(data):
            if isinstance(frame, Data):
                found.append(frame)
            elif frame.kind == FrameType.SYN_STREAM:
                self._opened(frame)
        return self._overheard(found, "request")

    def from_node(self, data: bytes) -> list[Overheard]:
        return self._overheard([frame for frame in self._node.feed(data) if isinstance(frame, Data)], "response")

    def _opened(self, frame: Control) -> None:
        stream_id = _SYN_STREAM_HEAD.unpack_from(frame.payload)[0] & 0x7FFFFFFF
        headers = dict(self._headers.decompress(frame.payload[_SYN_STREAM_HEAD.size :]))
        self._streams[stream_id] = headers.get("streamtype", "")

    def _overheard(self, frames: list[Data], forwarded: str) -> list[Overheard]:
        found = []
        for frame in frames:
            kind = self._streams.get(frame.stream_id, "")
            if frame.data and kind not in ("error", "resize", ""):
                found.append(Overheard(forwarded if kind == "data" else kind, frame.data))
        return found

    def typed(self, text: bytes) -> bytes | None:
        stdin = next((number for number, kind in self._streams.items() if kind == "stdin"), None)
        if stdin is None or not self._client.is_between_frames:
            return None
        return data_head(stdin, len(text), fin=False) + text


class ChannelTap:
    """WebSocket messages whose first byte is the channel."""

    def __init__(self) -> None:
        self._client, self._node = WebSocketConnection(Role.SERVER), WebSocketConnection(Role.CLIENT)

    def from_client(self, data: bytes) -> list[Overheard]:
        return _channels(self._client, data)

    def from_node(self, data: bytes) -> list[Overheard]:
        return _channels(self._node, data)

    def typed(self, text: bytes) -> bytes | None:
        if not self._client.is_between_messages:
            return None
        return encode_frame(Opcode.BINARY, bytes((Channel.STDIN,)) + text, MASK)


def _channels(connection: WebSocketConnection, data: bytes) -> list[Overheard]:
    messages = [event.data for event in connection.receive_data(data, MASK) if isinstance(event, Message)]
    return [
        Overheard(_CHANNELS[message[0]], message[1:])
        for message in messages
        if len(message) > 1 and message[0] in _CHANNELS
    ]


class TunnelTap:
    """SPDY inside WebSocket messages: what is in them is one byte stream."""

    def __init__(self) -> None:
        self._client = WebSocketConnection(Role.SERVER, reassembly=Reassembly.FRAGMENTS)
        self._node = WebSocketConnection(Role.CLIENT, reassembly=Reassembly.FRAGMENTS)
        self._inner = SpdyTap()

    def from_client(self, data: bytes) -> list[Overheard]:
        return self._inner.from_client(_payload(self._client, data))

    def from_node(self, data: bytes) -> list[Overheard]:
        return self._inner.from_node(_payload(self._node, data))

    def typed(self, text: bytes) -> bytes | None:
        inner = self._inner.typed(text)
        if inner is None or not self._client.is_between_messages:
            return None
        return encode_frame(Opcode.BINARY, inner, MASK)


def _payload(connection: WebSocketConnection, data: bytes) -> bytes:
    return b"".join(event.data for event in connection.receive_data(data, MASK) if isinstance(event, Message))


def tap_for(request: Head) -> Wiretap:
    """How to listen to what this upgrade request leads to."""
    if "spdy" in request.get("upgrade").lower():
        return SpdyTap()
    offered = [name.strip() for value in request.all("sec-websocket-protocol") for name in value.split(",")]
    return TunnelTap() if is_tunnel(offered) else ChannelTap()
