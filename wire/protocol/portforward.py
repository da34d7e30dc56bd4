"""The port-forward protocols, without I/O.

Over SPDY each forwarded connection is a pair of streams, `error` and `data`, with the same `port` and `requestid`,
in any order. Over the old WebSocket form each port is a pair of channels. `wire.portforward` serves both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from wire.protocol.spdy.headers import Headers

PROTOCOL = "portforward.k8s.io"
ERROR, DATA = "error", "data"

# Subprotocol → whether messages are base64 text.
WEBSOCKET_PROTOCOLS: Mapping[str, bool] = {"v4.channel.k8s.io": False, "v4.base64.channel.k8s.io": True, "": False}

S = TypeVar("S")


def is_valid(headers: Headers) -> bool:
    """Whether a stream may exist at all: a known type and a port. Else it is reset instead of replied to."""
    return headers.get("streamtype") in (ERROR, DATA) and parse_port(headers.get("port", "")) is not None


def parse_port(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    return None


def parse_ports(values: Iterable[str]) -> list[int]:
    """Ports out of repeated, comma separated query values. Raises ValueError."""
    ports = []
    for text in (part.strip() for value in values for part in value.split(",")):
        port = parse_port(text)
        if port is None:
            raise ValueError(f"query parameter \"port\" {text!r} is no port number")
        ports.append(port)
    return ports


@dataclass(slots=True)
class Pair(Generic[S]):
    """The two streams of one forwarded connection, as far as they have come."""

    port: int
    error: S | None = None
    data: S | None = None

    @property
    def is_complete(self) -> bool:
        return self.error is not None and self.data is not None


class Pairing(Generic[S]):
    """Puts streams together by request id. The streams themselves mean nothing to me."""

    def __init__(self) -> None:
        self.waiting: dict[str, Pair[S]] = {}

    def add(self, stream: S, stream_id: int, headers: Headers) -> tuple[str, Pair[S]]:
        """The request id and the pair this stream belongs to. Raises ValueError if its place is taken."""
        kind = headers["streamtype"]
        request_id = headers.get("requestid") or _old_request_id(kind, stream_id)
        port = parse_port(headers["port"]) or 0
        pair = self.waiting.setdefault(request_id, Pair(port))
        if getattr(pair, kind) is not None:
            raise ValueError(f"{kind} stream for request {request_id} exists already")
        setattr(pair, kind, stream)
        if pair.is_complete:
            del self.waiting[request_id]
        return request_id, pair


def _old_request_id(kind: str, stream_id: int) -> str:
    # Ancient clients send none: there error stream k belongs to data stream k+2.
    return str(stream_id if kind == ERROR else stream_id - 2)
