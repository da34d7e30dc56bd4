"""The meeting point of all paths into the nodes' network.

A Dialer gives a connected, non-blocking socket, whatever lies between. Everything above it (TLS, HTTP, upgrades) is
the same code for every path, and TLS is end to end between API server and node.
"""

import socket
from enum import StrEnum
from typing import Protocol


class EgressType(StrEnum):
    """Kinds of traffic (apiserver `egressselector.EgressType`)."""

    CLUSTER = "cluster"
    CONTROL_PLANE = "controlplane"
    ETCD = "etcd"


class Dialer(Protocol):
    """One path. `name` is what errors and the ledger call it: direct, konnectivity, ssh."""

    @property
    def name(self) -> str: ...

    async def dial(self, host: str, port: int) -> socket.socket:
        """A connected, non-blocking socket that the caller owns. Raises wire.errors.DialError."""

    async def aclose(self) -> None:
        """End what the path itself holds open."""
