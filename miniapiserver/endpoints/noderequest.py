"""What the endpoints towards nodes get from the API server's core: one request, already admitted.

My job: hold it. The core has authenticated, authorized and admitted the request; it gives look-ups instead of the
registry, and one callback for the second authorization that a WebSocket upgrade needs.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from miniapiserver.kubelet import NodePath

JSON = Mapping[str, Any]


class Lookups(Protocol):
    """Objects by name. Each raises errors.NotFound."""

    async def get_pod(self, namespace: str, name: str) -> JSON: ...
    async def get_node(self, name: str) -> JSON: ...
    async def get_service(self, namespace: str, name: str) -> JSON: ...
    async def get_endpoints(self, namespace: str, name: str) -> JSON: ...


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """One request for `log`, `exec`, `attach`, `portforward` or `proxy`.

    `tail` is what follows `/proxy` as it was sent (encoded, with its slash). `query` are all parameters in order,
    `raw_query` the same as sent. `authorize_create` raises errors.Forbidden unless the user may `create` the
    subresource. `headers` go onto every answer (Audit-Id, Cache-Control).
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
    headers: Mapping[str, str] = field(default_factory=dict)
