"""The gRPC health check, just enough HTTP/2 for one unary call.

My job: the bytes of a `grpc.health.v1.Health/Check` request, and the verdict in the bytes that come back. Pure.
Neighbours: `handlers` owns the connection. Header blocks of the answer are not decoded: the message in DATA says all
a probe asks.
"""

import enum
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16384
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK, _END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8


class GRPCError(Exception):
    """The peer speaks no gRPC, or ended the call without an answer."""


class Serving(enum.Enum):
    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


def request(authority: str, service: str) -> bytes:
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    headers = ((":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"),
               (":authority", authority), ("content-type", "application/grpc"), ("te", "trailers"),
               ("user-agent", "kube-probe/1.36"))
    block = b"".join(_literal(key, value) for key, value in headers)
    return (PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, _END_HEADERS, 1, block)
            + _frame(_DATA, _END_STREAM, 1, b"\0" + struct.pack(">I", len(message)) + message))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _literal(name: str, value: str) -> bytes:
    """One header as an HPACK literal without indexing (RFC 7541 6.2.2), no Huffman coding."""
    return b"\0" + _hpack_string(name) + _hpack_string(value)


def _hpack_string(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    return b"\x7f" + _varint(len(data) - 127) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


class HealthCall:
    """One call's answer, fed as it arrives."""

    def __init__(self) -> None:
        self._buffer = b""
        self._message = b""
        self._sent_by_us = b""
        self.verdict: Serving | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes, give back what must be sent in reply. Raises GRPCError."""
        self._buffer += data
        self._sent_by_us = b""
        while self.verdict is None and len(self._buffer) >= 9:
            length = int.from_bytes(self._buffer[:3], "big")
            if length > MAX_FRAME:
                raise GRPCError("not an HTTP/2 peer: oversized frame")
            if len(self._buffer) < 9 + length:
                break
            kind, flags = self._buffer[3], self._buffer[4]
            payload, self._buffer = self._buffer[9:9 + length], self._buffer[9 + length:]
            self._on_frame(kind, flags, payload)
        return self._sent_by_us

    def feed_eof(self) -> None:
        if self.verdict is None:
            raise GRPCError("connection closed before the health check was answered")

    def _on_frame(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._sent_by_us += _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._sent_by_us += _frame(_PING, _ACK, 0, payload)
        elif kind == _DATA:
            self._on_data(payload, padded=bool(flags & _PADDED))
        elif kind == _HEADERS and flags & _END_STREAM and not self._message:
            raise GRPCError("the server does not implement the gRPC health protocol (grpc.health.v1.Health)")
        elif kind in (_RST_STREAM, _GOAWAY):
            raise GRPCError("the server refused the health check")

    def _on_data(self, payload: bytes, *, padded: bool) -> None:
        if padded and payload:
            payload = payload[1:len(payload) - payload[0]]
        self._message += payload
        if len(self._message) >= 5:
            length = struct.unpack(">I", self._message[1:5])[0]
            if len(self._message) >= 5 + length:
                self.verdict = _serving(self._message[5:5 + length])


def _serving(message: bytes) -> Serving:
    """HealthCheckResponse{status = 1}; an absent field is 0."""
    if len(message) >= 2 and message[0] == 0x08:
        try:
            return Serving(message[1])
        except ValueError:
            return Serving.UNKNOWN
    return Serving.UNKNOWN
