"""Failed dials: their type, how it crosses a wire, and what the front door answers.

Job: DialError ↔ (text, type name) ↔ HTTP status. Between our own ends the type travels beside the text; a real agent
sends text only, so for it, and only here, the words are searched, with the list upstream's server uses.
"""

import errno
import socket

from wire.errors import DialError, DialRefused, DialTimeout, DialUnreachable, NoTunnel, dial_error

VIA = "konnectivity"


class DialExhausted(DialError):
    """The agent has no descriptors (or memory) left for another connection."""


TYPES: dict[str, type[DialError]] = {
    kind.__name__: kind for kind in (DialTimeout, DialRefused, DialUnreachable, DialExhausted, NoTunnel, DialError)
}
STATUSES: dict[type[DialError], int] = {
    DialTimeout: 504,
    DialExhausted: 503,
    NoTunnel: 500,  # upstream's answer when no agent is connected
}
OTHER_STATUS = 502

_WORDS: list[tuple[type[DialError], tuple[str, ...]]] = [
    (DialTimeout, ("timeout", "timed out", "deadline exceeded")),
    (DialExhausted, ("too many open files",)),
    (DialRefused, ("connection refused",)),
    (NoTunnel, ("no agent available",)),
    (DialUnreachable, ("unreachable", "no route to host", "network is down", "no such host", "name resolution")),
]


def from_os_error(address: str, error: OSError) -> DialError:
    """What the agent's own dial came to."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
        return DialExhausted(address, "agent", "socket: too many open files")
    if isinstance(error, socket.gaierror):
        host = address.rpartition(":")[0]
        return DialUnreachable(address, "agent", f"lookup {host}: no such host")
    return dial_error(address, "agent", error)


def reason_text(error: DialError) -> str:
    """As Go's dialer words it: real peers, and scripts, look for these words."""
    return f"dial tcp {error.address}: {error.reason}"


def from_wire(address: str, text: str, type_name: str) -> DialError:
    """What the agent told us, with its type again."""
    return _type_of(text, type_name)(address, VIA, text)


def _type_of(text: str, type_name: str) -> type[DialError]:
    if type_name in TYPES:
        return TYPES[type_name]
    lowered = text.lower()
    for kind, words in _WORDS:
        if any(word in lowered for word in words):
            return kind
    return DialError


def status_of(error: DialError) -> int:
    return STATUSES.get(type(error), OTHER_STATUS)


def type_name(error: DialError) -> str:
    return type(error).__name__
