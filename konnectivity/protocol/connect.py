"""The head of an HTTP CONNECT request, and the answers to it, without I/O.

Job: bytes in, one ConnectRequest out (or BadRequest with the status to answer). The target is the request target, not
the Host header: the API server sends `Host: 127.0.0.1` with everything. Bytes behind the head are the client's first
words to the target and are kept. Rule: HTTP/1.x only, bounded, strict.
"""

import ipaddress
from dataclasses import dataclass

MAX_HEAD = 16 << 10
HEAD_END = b"\r\n\r\n"
ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
ERROR_TYPE_HEADER = "Konnectivity-Error"  # ours: the type of a failed dial, for an API server that knows it

_REASONS = {
    400: "Bad Request",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_NAME_CHARACTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")


class BadRequest(Exception):
    """The client's request cannot be served; answer `status` and close."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    address: str
    early: bytes


def parse_connect(data: bytes) -> ConnectRequest | None:
    """The request, or None while its head is incomplete. Raises BadRequest."""
    end = data.find(HEAD_END)
    if end < 0:
        if len(data) > MAX_HEAD:
            raise BadRequest(431, f"request head larger than {MAX_HEAD} bytes")
        return None
    if end > MAX_HEAD:
        raise BadRequest(431, f"request head larger than {MAX_HEAD} bytes")
    words = data[: data.index(b"\r\n")].split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise BadRequest(400, "malformed request line")
    if words[0] != b"CONNECT":
        raise BadRequest(405, "this proxy only supports CONNECT passthrough")
    return ConnectRequest(check_address(words[1]), data[end + len(HEAD_END) :])


def check_address(target: bytes) -> str:
    """`host:port` or `[ipv6]:port`, checked. Raises BadRequest."""
    host, colon, port = target.rpartition(b":")
    if not colon or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise BadRequest(400, f"malformed address {target[:80]!r}: want host:port")
    if host.startswith(b"[") and host.endswith(b"]"):
        try:
            ipaddress.IPv6Address(host[1:-1].decode("ascii", "replace").partition("%")[0])
        except ValueError as error:
            raise BadRequest(400, f"malformed address {target[:80]!r}: {error}") from error
    elif not host or len(host) > 253 or not _NAME_CHARACTERS.issuperset(host):
        raise BadRequest(400, f"malformed address {target[:80]!r}")
    return target.decode("ascii")


def refusal(status: int, text: str, error_type: str = "") -> bytes:
    """A whole answer that is not 200; the connection closes behind it."""
    body = text.encode() + b"\r\n"
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    if error_type:
        head += f"{ERROR_TYPE_HEADER}: {error_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
