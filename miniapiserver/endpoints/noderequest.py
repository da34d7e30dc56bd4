"""What the endpoints towards nodes get from the API server's core: one request, already admitted.

My job: hold it. The core has authenticated, authorized and admitted the request; it gives look-ups instead of the
registry, and one callback for the second authorization that a WebSocket upgrade needs.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from miniapiserver.kubelet import NodePath, Target
from wire.stream import Stream

JSON = Mapping[str, Any]


class Lookups(Protocol):
    """Objects by name. Each raises errors.NotFound."""

    async def get_pod(self, namespace: str, name: str) -> JSON: ...
    async def get_node(self, name: str) -> JSON: ...
    async def get_service(self, namespace: str, name: str) -> JSON: ...
    async def get_endpoints(self, namespace: str, name: str) -> JSON: ...


async def _nothing() -> None:
    return None


def _no_annotation(key: str, value: str) -> None:
    return None


#: Audit annotation: by which path the hop into the nodes' network went, and what protected it.
HOP = "miniplane.io/hop"


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """One request for `log`, `exec`, `attach`, `portforward` or `proxy`.

    `tail` is what follows `/proxy` as it was sent (encoded, with its slash). `query` are all parameters in order,
    `raw_query` the same as sent. `authorize_create` raises errors.Forbidden unless the user may `create` the
    subresource. `annotate(key, value)` adds to the audit event. `headers` go onto every answer (Audit-Id,
    Cache-Control).
    """

    namespace: str
    name: str
    subresource: str
    objects: Lookups
    path: NodePath
    resource: str = "pods"
    tail: str = ""
    query: Sequence[tuple[str, str]] = ()
    raw_query: str = ""
    user: str = ""
    authorize_create: Callable[[], Awaitable[None]] = _nothing
    annotate: Callable[[str, str], None] = _no_annotation
    headers: Mapping[str, str] = field(default_factory=dict)

    async def connect(self, target: Target) -> Stream:
        """A connection into the nodes' network, noted for the audit log. Raises what `NodePath.connect` raises."""
        stream = await self.path.connect(target)
        self.note(stream)
        return stream

    def note(self, stream: Stream) -> None:
        """Say in the audit event what protects this connection, by the ledger's facts."""
        entry = self.path.entry_of(stream)
        if entry is not None:
            self.annotate(HOP, f"{entry.path}, {entry.protection.value}")
