"""SPDY tunnelled in WebSocket messages: names only.

The payloads of all binary messages of one direction, put together, are exactly the SPDY byte stream; message borders
mean nothing, and empty messages happen. A subprotocol `SPDY/3.1+<name>.k8s.io` carries the SPDY protocol `<name>`.
"""

from collections.abc import Iterable

PREFIX = "SPDY/3.1+"
SUFFIX = ".k8s.io"


def is_tunnel(offered: Iterable[str]) -> bool:
    """Whether a WebSocket client asks for a tunnel."""
    return any(name.startswith(PREFIX) and name.endswith(SUFFIX) for name in offered)


def inner_protocols(offered: Iterable[str]) -> list[str]:
    """The SPDY stream protocols inside the tunnels a client offers."""
    return [name[len(PREFIX) :] for name in offered if name.startswith(PREFIX) and name.endswith(SUFFIX)]


def outer_protocol(inner: str) -> str:
    """The WebSocket subprotocol that says which SPDY protocol was chosen; none for none."""
    return PREFIX + inner if inner else ""
