"""HTTP/1.1 answers, without I/O: the head and the three ways a body ends.

Used by every client of ours (`wire.httpclient`, `wire.upgrade`). Strict on purpose: a head that two parsers could
read differently is refused (CVE-2019-16276 and its kin).
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from wire.errors import PeerProtocolError

MAX_HEAD = 1 << 20  # Go's DefaultMaxHeaderBytes
MAX_CHUNK_LINE = 4096

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: ([^\r\n]*))?")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and headers of an answer. Names are lower case; order and repetition are kept."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    minor: int = 1

    def get(self, name: str, default: str = "") -> str:
        """The first value of a header."""
        for key, value in self.headers:
            if key == name:
                return value
        return default

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def has_token(self, name: str, token: str) -> bool:
        """Whether a comma separated header names `token`, in any case."""
        return any(part.strip().lower() == token for value in self.all(name) for part in value.split(","))

    @property
    def keeps_alive(self) -> bool:
        if self.minor == 0:
            return self.has_token("connection", "keep-alive")
        return not self.has_token("connection", "close")


def parse_head(block: bytes) -> Head:
    """Parse a head that ends in (or without) its empty line. Raises PeerProtocolError."""
    lines = block.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise PeerProtocolError(f"malformed HTTP status line {lines[0][:60]!r}")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or _TOKEN.fullmatch(name) is None or _BAD_VALUE.search(value):
            raise PeerProtocolError(f"malformed HTTP header line {line[:60]!r}")
        headers.append((name.decode("ascii").lower(), value.decode("latin-1")))
    return Head(int(match[2]), (match[3] or b"").decode("latin-1"), tuple(headers), int(match[1]))


class Framing(Enum):
    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_EOF = auto()


def framing(method: str, head: Head) -> tuple[Framing, int]:
    """How the body of an answer ends (RFC 9112 section 6.3), and its length where that is said."""
    if method == "HEAD" or head.status in (204, 304) or 100 <= head.status < 200:
        return Framing.NONE, 0
    lengths = set(head.all("content-length"))
    codings = [part.strip().lower() for value in head.all("transfer-encoding") for part in value.split(",")]
    if codings:
        if lengths or codings != ["chunked"]:
            raise PeerProtocolError(f"unsupported body framing: transfer-encoding {codings}, lengths {sorted(lengths)}")
        return Framing.CHUNKED, 0
    if not lengths:
        return Framing.UNTIL_EOF, 0
    (length, *others) = lengths
    if others or not (length.isascii() and length.isdigit()):
        raise PeerProtocolError(f"malformed Content-Length {sorted(lengths)}")
    return (Framing.LENGTH, int(length)) if int(length) else (Framing.NONE, 0)


class BodyReader:
    """Takes the body of one answer out of the byte stream. `done` once its last byte was seen.

    `feed` returns payload pieces; bytes behind the body are in `trailing`.
    """

    def __init__(self, kind: Framing, length: int) -> None:
        self.kind = kind
        self.done = kind is Framing.NONE
        self.trailing = b""
        self._left = length if kind is Framing.LENGTH else 0
        self._line = b""
        self._in_trailers = False
        self._crlf_due = False

    def feed(self, data: bytes) -> list[bytes]:
        match self.kind:
            case Framing.CHUNKED:
                return self._feed_chunked(data)
            case Framing.LENGTH:
                return self._feed_length(data)
            case Framing.UNTIL_EOF:
                return [data] if data else []
        self.trailing += data
        return []

    def feed_eof(self) -> None:
        """The connection ended. Raises PeerProtocolError if the body had not."""
        if self.kind is Framing.UNTIL_EOF:
            self.done = True
        elif not self.done:
            raise PeerProtocolError("unexpected EOF")

    def _feed_length(self, data: bytes) -> list[bytes]:
        piece = data[: self._left] if len(data) > self._left else data
        self._left -= len(piece)
        if self._left == 0:
            self.done = True
            self.trailing += data[len(piece) :]
        return [piece] if piece else []

    def _feed_chunked(self, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        position, size = 0, len(data)
        while position < size and not self.done:
            if self._left:
                end = min(position + self._left, size)
                pieces.append(data[position:end])
                self._left -= end - position
                self._crlf_due = self._left == 0
                position = end
                continue
            newline = data.find(b"\n", position)
            if newline < 0:
                self._hold(data[position:])
                return pieces
            self._hold(data[position:newline])
            line, self._line = self._line, b""
            position = newline + 1
            self._on_line(line)
        if self.done:
            self.trailing += data[position:]
        return pieces

    def _hold(self, part: bytes) -> None:
        self._line += part
        if len(self._line) > MAX_CHUNK_LINE:
            raise PeerProtocolError("chunk header is too long")

    def _on_line(self, line: bytes) -> None:
        if not line.endswith(b"\r"):
            raise PeerProtocolError(f"malformed chunked encoding {line[:60]!r}")
        line = line[:-1]
        if self._in_trailers:
            self.done = not line
        elif self._crlf_due:
            if line:
                raise PeerProtocolError("malformed chunked encoding: no line end behind a chunk")
            self._crlf_due = False
        else:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise PeerProtocolError(f"malformed chunk size {line[:60]!r}")
            self._left = int(match[1], 16)
            self._in_trailers = self._left == 0
