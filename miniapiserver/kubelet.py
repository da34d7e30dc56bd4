"""The way from the API server to a node: which address, which port, which TLS, and the connection itself.

`connection_info` decides (pure); `NodePath` dials through the egress, does TLS end to end, and writes every
connection into the ledger. Neighbours: `location` says what is asked for, `endpoints` ask.
Rule (kubelet `client/kubelet_client.go`): with a kubelet CA every connection is verified, without one none is, and the
ledger says which it was.
"""

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from miniapiserver.egress.interface import EgressType
from miniapiserver.egress.selector import EgressSelector
from miniapiserver.egress.tunnels import NodeTunnelDown
from miniapiserver.errors import PlainInternal, ServiceUnavailable
from wire.connections import ClientCertificate, Connection, Ledger
from wire.errors import DialError, DialTimeout, TLSVerificationError
from wire.httpclient import HTTPClient
from wire.net import DIAL_TIMEOUT, join_host_port
from wire.stream import Stream, open_stream
from wire.tls import ClientTLS, client_context

JSON = dict[str, Any]

log = logging.getLogger("apiserver.nodes")

KUBELET_PORT = 10250
#: kube-apiserver's default order; kubeadm passes InternalIP,ExternalIP,Hostname.
PREFERRED_ADDRESS_TYPES = ("Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP")
ME = "kube-apiserver"
MOST_CLIENTS = 1000


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """Where a node's kubelet answers. Always https; the host is also the name that its certificate must have."""

    node: str
    host: str
    port: int


def connection_info(node: Mapping[str, Any], preferred: Sequence[str] = PREFERRED_ADDRESS_TYPES) -> ConnectionInfo:
    """The first address of the most preferred type. Raises PlainInternal (500) when a node has none of them."""
    status = node.get("status") or {}
    addresses = status.get("addresses") or []
    endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    # The key has a capital letter in Kubernetes' JSON.
    port = int(endpoint.get("Port") or 0) or KUBELET_PORT
    for kind in preferred:
        for address in addresses:
            if address.get("type") == kind and address.get("address"):
                return ConnectionInfo(node["metadata"]["name"], address["address"], port)
    known = " ".join(f"{{{address.get('type')} {address.get('address')}}}" for address in addresses)
    raise PlainInternal(f"no preferred addresses found; known addresses: [{known}]")


class Trust(Enum):
    """What TLS means for one connection."""

    KUBELET = auto()  # our client certificate; verified if there is a kubelet CA
    KUBELET_UNVERIFIED = auto()  # insecureSkipTLSVerifyBackend: our client certificate, nothing verified
    ANYBODY = auto()  # https to a pod or service: nothing presented, nothing verified, as upstream
    PLAIN = auto()  # http


@dataclass(frozen=True, slots=True)
class Target:
    """One connection to make. `address` is dialed; `host` is the name it must prove and what errors print."""

    host: str
    port: int
    trust: Trust
    purpose: str
    address: str = ""


class NodePath:
    """All connections into the nodes' network. Lives as long as the process; owns idle connections to kubelets."""

    def __init__(
        self,
        egress: EgressSelector,
        ledger: Ledger,
        *,
        kubelet_ca: Path | None = None,
        client_cert: Path | None = None,
        client_key: Path | None = None,
        preferred: Sequence[str] = PREFERRED_ADDRESS_TYPES,
        allowed_cidrs: Sequence[str] = (),
    ) -> None:
        self.egress = egress
        self.ledger = ledger
        self.preferred = tuple(preferred)
        self.allowed = AddressRule(allowed_cidrs)
        self._ca = kubelet_ca
        self._verified = ClientTLS(kubelet_ca, client_cert, client_key, verify=kubelet_ca is not None)
        self._unverified = ClientTLS(None, client_cert, client_key, verify=False)
        self._anybody: ssl.SSLContext | None = None
        self._credentials = ClientCertificate(client_cert)
        self._clients: dict[tuple[str, int, Trust], HTTPClient] = {}
        self._entries: WeakKeyDictionary[Stream, Connection] = WeakKeyDictionary()

    def connection_info(self, node: Mapping[str, Any]) -> ConnectionInfo:
        return connection_info(node, self.preferred)

    async def connect(self, target: Target) -> Stream:
        """Dial, TLS, ledger. Raises DialError (TLSVerificationError), ServiceUnavailable (no tunnel to the node)."""
        dialer = self.egress.dialer(EgressType.CLUSTER)
        address = join_host_port(target.host, target.port)
        entry = self.ledger.record(source=ME, target=address, path=dialer.name, purpose=target.purpose,
                                   credentials=self._presented(target.trust))  # fmt: skip
        try:
            sock = await _within(DIAL_TIMEOUT, dialer.dial(target.address or target.host, target.port), address,
                                 dialer.name)  # fmt: skip
            context = self._context(target.trust)
            name = target.host if context is not None else None
            stream = await open_stream(sock, ssl=context, server_hostname=name, address=address, via=dialer.name)
        except NodeTunnelDown as error:
            entry.close(error)
            raise ServiceUnavailable(str(error)) from error
        except (DialError, OSError) as error:
            if isinstance(error, TLSVerificationError):
                log.warning('tls.refused address=%s via=%s reason="%s"', address, dialer.name, error.reason)
                entry.refused(error.peer_certificate)
                entry.credentials = "none"  # the refusal comes before the certificate would have been shown
            entry.close(error)
            raise
        except BaseException:
            entry.close("cancelled")
            raise
        entry.connected(stream, str(self._ca) if self._ca is not None else None)
        self._entries[stream] = entry
        return stream

    def entry_of(self, stream: Stream) -> Connection | None:
        """What the ledger knows of a connection that `connect` made."""
        return self._entries.get(stream)

    def kubelet_client(self, info: ConnectionInfo, *, insecure: bool, purpose: str) -> HTTPClient:
        """Plain requests to a kubelet, over connections that are kept."""
        trust = Trust.KUBELET_UNVERIFIED if insecure else Trust.KUBELET
        key = (info.host, info.port, trust)
        client = self._clients.get(key)
        if client is None:
            target = Target(info.host, info.port, trust, purpose)
            client = HTTPClient(lambda: self.connect(target), join_host_port(info.host, info.port))
            if len(self._clients) >= MOST_CLIENTS:
                # Nodes come and go; the oldest of them loses its idle connections, not what is running.
                self._clients.pop(next(iter(self._clients))).drop_idle()
            self._clients[key] = client
        return client

    async def resolve_checked(self, host: str) -> str:
        """One address of `host` that may be dialed. All of them must be allowed. Raises ValueError (the reason).

        The address that was checked is the one that is dialed: a second look-up could answer otherwise
        (CVE-2020-8562).
        """
        try:
            addresses = [str(ipaddress.ip_address(host))]
        except ValueError:
            addresses = await _resolve(host)
        if not addresses:
            raise ValueError("no addresses for hostname")
        if not all(self.allowed.permits(address) for address in addresses):
            raise ValueError("address not allowed")
        return addresses[0]

    def _context(self, trust: Trust) -> ssl.SSLContext | None:
        match trust:
            case Trust.KUBELET:
                return self._verified.context
            case Trust.KUBELET_UNVERIFIED:
                return self._unverified.context
            case Trust.ANYBODY:
                self._anybody = self._anybody or client_context(None, verify=False)
                return self._anybody
        return None

    def _presented(self, trust: Trust) -> str:
        return self._credentials.shown() if trust in (Trust.KUBELET, Trust.KUBELET_UNVERIFIED) else "none"

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.aclose()
        await self.egress.aclose()


async def _within(seconds: float, dialing: Any, address: str, via: str) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await dialing
    except TimeoutError:
        raise DialTimeout(address, via, "i/o timeout") from None


async def _resolve(host: str) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except OSError as error:
        raise ValueError(f"lookup {host}: no such host") from error
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))


class AddressRule:
    """Which addresses may be proxied to: Go's `IsGlobalUnicast`, and the ranges the operator opened."""

    def __init__(self, allowed_cidrs: Sequence[str] = ()) -> None:
        self._open = [ipaddress.ip_network(cidr) for cidr in allowed_cidrs]

    def permits(self, text: str) -> bool:
        """Raises nothing: what is no address is not allowed."""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address.version == network.version and address in network for network in self._open):
            return True
        return not (
            address.is_unspecified
            or address.is_loopback
            or address.is_multicast
            or address.is_link_local
            or address == ipaddress.IPv4Address("255.255.255.255")
        )
