"""TLS contexts of the agent port, the front port and the agent, remade when their files change.

Job: `ServerTLS.context` and `AgentTLS.context` are asked at each handshake; a replaced certificate, key or CA is used
from the next connection on, without restart. Neighbours: `listener` and `agent.serverlink`. Rule: TLS 1.2 or later,
ALPN h2 on the agent port in both directions (grpc-go refuses a peer without).
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from wire.tls import Followed


@dataclass(slots=True)
class ServerTLS:
    """A listener's TLS. With `client_ca` a client certificate is demanded, or asked for if not `require`."""

    cert: str
    key: str
    client_ca: str = ""
    alpn: Sequence[str] = ("h2",)
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    ciphers: str = ""
    _followed: Followed = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._followed = Followed((self.cert, self.key, self.client_ca), self._make)

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next handshake."""
        return self._followed.context

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self.minimum
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        if self.ciphers:
            context.set_ciphers(self.ciphers)
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        context.load_cert_chain(self.cert, self.key)
        if self.client_ca:
            context.load_verify_locations(cafile=self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@dataclass(slots=True)
class AgentTLS:
    """The agent's side of its links. Without `ca` the system's roots decide."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    alpn: Sequence[str] = ("h2",)
    _followed: Followed = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._followed = Followed((self.ca, self.cert, self.key), self._make)

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next dial."""
        return self._followed.context

    def _make(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(list(self.alpn))
        if self.cert:
            context.load_cert_chain(self.cert, self.key or None)
        return context
