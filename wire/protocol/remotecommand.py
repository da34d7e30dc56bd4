"""The remote command protocols (exec, attach), without I/O: which names exist and what they mean.

Protocol versions are rows, not code: what a version changes is whether there is a resize stream, how the result is
written, and how channels look on a WebSocket. `wire.remotecommand` serves them.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson

from wire.errors import PeerProtocolError
from wire.protocol.status import exit_status, session_success

# The header that names a SPDY stream: `streamType` in the source of upstream, lower case on the wire.
STREAM_TYPE = "streamtype"

MAX_RESIZE = 4096  # a size is about 25 bytes


class Channel(IntEnum):
    """WebSocket channels; on SPDY each but CLOSE is a stream named like it in lower case."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4
    CLOSE = 255


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which standard streams a request asks for."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @property
    def separate_stderr(self) -> bool:
        return self.stderr and not self.tty


@dataclass(frozen=True, slots=True)
class SpdyProtocol:
    """One version over SPDY."""

    name: str
    has_resize: bool
    has_status: bool

    def streams(self, wanted: Wanted) -> frozenset[str]:
        """The streams a client must open before anything starts."""
        names = {"error"}
        names |= {"stdin"} if wanted.stdin else set()
        names |= {"stdout"} if wanted.stdout else set()
        names |= {"stderr"} if wanted.separate_stderr else set()
        names |= {"resize"} if wanted.tty and self.has_resize else set()
        return frozenset(names)


@dataclass(frozen=True, slots=True)
class WebSocketProtocol:
    """One version over WebSocket. `can_close`: the client may end a channel (v5)."""

    name: str
    is_base64: bool
    has_status: bool
    can_close: bool = False

    def encode(self, channel: int, data: bytes) -> bytes:
        if self.is_base64:
            return bytes((0x30 + channel,)) + base64.b64encode(data)
        return bytes((channel,)) + data

    def decode(self, message: bytes) -> tuple[int, bytes]:
        """Channel and payload of a message that is not empty. Raises PeerProtocolError."""
        if not self.is_base64:
            return message[0], message[1:]
        try:
            return message[0] - 0x30, base64.b64decode(message[1:], validate=True)
        except binascii.Error as error:
            raise PeerProtocolError(f"channel message is no base64: {error}") from error


SPDY_PROTOCOLS: Mapping[str, SpdyProtocol] = {
    row.name: row
    for row in (
        SpdyProtocol("v4.channel.k8s.io", has_resize=True, has_status=True),
        SpdyProtocol("v3.channel.k8s.io", has_resize=True, has_status=False),
        SpdyProtocol("v2.channel.k8s.io", has_resize=False, has_status=False),
        SpdyProtocol("channel.k8s.io", has_resize=False, has_status=False),
    )
}

V5 = WebSocketProtocol("v5.channel.k8s.io", is_base64=False, has_status=True, can_close=True)
WEBSOCKET_PROTOCOLS: Mapping[str, WebSocketProtocol] = {
    row.name: row
    for row in (
        V5,
        WebSocketProtocol("v4.channel.k8s.io", is_base64=False, has_status=True),
        WebSocketProtocol("v4.base64.channel.k8s.io", is_base64=True, has_status=True),
        WebSocketProtocol("channel.k8s.io", is_base64=False, has_status=False),
        WebSocketProtocol("base64.channel.k8s.io", is_base64=True, has_status=False),
        WebSocketProtocol("", is_base64=False, has_status=False),
    )
}


def stream_protocols(values: Iterable[str]) -> list[str]:
    """The names in `X-Stream-Protocol-Version` headers, best first: one per line, or several with commas."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def negotiate(offered: Iterable[str], known: Iterable[str]) -> str | None:
    """The client's best protocol that the server knows."""
    served = set(known)
    return next((name for name in offered if name in served), None)


def go_list(names: Iterable[str]) -> str:
    """`[a b]`, as Go prints a slice."""
    return "[" + " ".join(names) + "]"


def status_bytes(status: Mapping[str, Any], has_status: bool) -> bytes:
    """What the error stream carries: a Status since v4; before, nothing for success and plain text for failure."""
    if has_status:
        return orjson.dumps(status)
    if status.get("status") == "Success":
        return b""
    return str(status.get("message") or "command failed").encode()


@dataclass(frozen=True, slots=True)
class TerminalSize:
    width: int
    height: int


_SIZE = re.compile(rb"\{[^{}]*\}")


class ResizeReader:
    """Sizes out of the resize stream: JSON objects one behind the other, cut anywhere."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[TerminalSize]:
        """The sizes that are complete. Raises PeerProtocolError for anything that is not a flat object."""
        self._held += data
        sizes: list[TerminalSize] = []
        end = 0
        for match in _SIZE.finditer(self._held):
            if self._held[end : match.start()].strip():
                break
            sizes.append(_size(match[0]))
            end = match.end()
        self._held = self._held[end:].lstrip()
        is_begun_object = self._held[:1] == b"{" and b"{" not in self._held[1:] and b"}" not in self._held
        if len(self._held) > MAX_RESIZE or (self._held and not is_begun_object):
            raise PeerProtocolError("the resize stream is no sequence of sizes")
        return sizes


def _size(text: bytes) -> TerminalSize:
    try:
        value = orjson.loads(text)
        width, height = int(value.get("Width", 0)), int(value.get("Height", 0))
    except (orjson.JSONDecodeError, TypeError, ValueError) as error:
        raise PeerProtocolError(f"terminal size {text[:60]!r}") from error
    if not (0 <= width <= 0xFFFF and 0 <= height <= 0xFFFF):
        raise PeerProtocolError(f"terminal size {text[:60]!r}")
    return TerminalSize(width, height)


def success() -> dict[str, Any]:
    """The result of a command that ended with 0, and of every attach."""
    return session_success()


def exit_failure(code: int, cause: str) -> dict[str, Any]:
    """The result of a command that ended with another code."""
    return exit_status(code, cause)


def encode_size(size: TerminalSize) -> bytes:
    return b'{"Width":%d,"Height":%d}\n' % (size.width, size.height)
