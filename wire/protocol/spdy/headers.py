"""Header blocks: names and values, compressed by one zlib stream per direction and connection.

Rule: order of compression is order of sending, so a block is made when its frame is made. Nothing is allocated by a
number the peer wrote: counts and lengths are checked against what is really there (CVE-2026-35469).
"""

import zlib

from wire.errors import PeerProtocolError
from wire.protocol.spdy.dictionary import HEADER_DICTIONARY

Headers = dict[str, str]

MAX_HEADERS = 1000  # spdystream 0.5.1
MAX_BLOCK = 256 * 1024  # uncompressed; a Kubernetes stream has three short headers

FORBIDDEN = frozenset({"connection", "host", "keep-alive", "proxy-connection", "transfer-encoding"})


class HeaderCompressor:
    """Our direction. Lives as long as the connection."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, HEADER_DICTIONARY)

    def compress(self, headers: Headers) -> bytes:
        parts = [len(headers).to_bytes(4, "big")]
        for name, value in headers.items():
            for word in (name.lower().encode("latin-1"), value.encode("latin-1")):
                parts += (len(word).to_bytes(4, "big"), word)
        return self._zlib.compress(b"".join(parts)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class HeaderDecompressor:
    """Their direction. Every block must pass through, also of frames nobody wants: the zlib state spans them."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=HEADER_DICTIONARY)

    def decompress(self, block: bytes) -> Headers:
        """The headers of one block. Raises PeerProtocolError."""
        try:
            plain = self._zlib.decompress(block, MAX_BLOCK)
        except zlib.error as error:
            raise PeerProtocolError(f"header block does not decompress: {error}") from error
        if self._zlib.unconsumed_tail:
            raise PeerProtocolError(f"header block of more than {MAX_BLOCK} bytes")
        if self._zlib.eof:
            raise PeerProtocolError("header block ends the compression stream")
        return _parse(plain)


def _parse(plain: bytes) -> Headers:
    count = int.from_bytes(plain[:4], "big")
    if len(plain) < 4 or count > MAX_HEADERS:
        raise PeerProtocolError(f"header block announces {count} headers in {len(plain)} bytes")
    headers: Headers = {}
    position = 4
    for _ in range(count):
        name, position = _word(plain, position)
        value, position = _word(plain, position)
        if not name or name != name.lower() or name in FORBIDDEN or name in headers:
            raise PeerProtocolError(f"header name {name[:60]!r} is not allowed")
        headers[name] = value
    if position != len(plain):
        raise PeerProtocolError("header block is longer than its headers")
    return headers


def _word(plain: bytes, position: int) -> tuple[str, int]:
    start = position + 4
    end = start + int.from_bytes(plain[position:start], "big")
    if start > len(plain) or end > len(plain):
        raise PeerProtocolError("header block is shorter than its headers")
    return plain[start:end].decode("latin-1"), end
