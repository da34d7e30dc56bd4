"""What a gRPC connection says: its events, the status codes, metadata. Pure values.

Job: the vocabulary between `protocol.grpc`, which makes the events, and whoever owns the calls; and the translation of
metadata and verdicts from and to header blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple
from urllib.parse import unquote

from wire.protocol.konnectivity import Buffer

Metadata = Mapping[str, Sequence[str]]
Headers = list[tuple[bytes, bytes]]


class Status(IntEnum):
    """The gRPC status codes in use here."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class CallOpened:
    """A client opened a call (server role). Accept it or end it."""

    call: int
    path: str
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class CallAccepted:
    """The server's initial metadata came (client role)."""

    call: int
    metadata: Metadata


class Message(NamedTuple):  # made for every packet, and three times as cheap as a frozen dataclass
    """`cost` is what to give to `acknowledge` when the message is consumed."""

    call: int
    payload: Buffer
    cost: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The peer will send no more on this call. A server ends its side with `end_call`."""

    call: int
    status: int
    message: str


@dataclass(frozen=True, slots=True)
class CallWritable:
    """Everything queued on this call has been written."""

    call: int


@dataclass(frozen=True, slots=True)
class PingAcked:
    payload: bytes


@dataclass(frozen=True, slots=True)
class GoingAway:
    """No new calls on this connection; calls above `last_call` were not processed."""

    last_call: int
    code: int
    debug: str


Event = CallOpened | CallAccepted | Message | CallEnded | CallWritable | PingAcked | GoingAway


def parse_metadata(headers: Headers) -> Metadata:
    """A header block without its pseudo-headers."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if not name.startswith(b":"):
            found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def header_pairs(metadata: Metadata) -> Headers:
    """The opposite, for h2."""
    return [(name.encode(), value.encode("latin-1")) for name, values in metadata.items() for value in values]


def parse_verdict(metadata: Metadata) -> tuple[int, str]:
    """Status and message of a call's trailers."""
    status, message = metadata.get("grpc-status", ["2"])[0], metadata.get("grpc-message", [""])[0]
    return (int(status) if status.isdigit() else int(Status.UNKNOWN)), unquote(message)
