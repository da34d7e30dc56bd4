"""Which addresses the user-space proxy listens on, and who answers behind each.

My job: service ports and the nodes of this machine in, a table of addresses out. Pure. Neighbours: `serviceports`
below, `userspace` opens what I list. Rule: an address without an eligible endpoint is not in the table, so nothing
listens there and the kernel refuses clients at once, as upstream's REJECT rule does.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minikubelet.serviceproxy.serviceports import (
    Endpoint,
    Locality,
    Policy,
    ServicePort,
    ServicePortName,
    eligible,
)

LOOPBACK = "127.0.0.1"

Address = tuple[str, int]


class Entrance(enum.Enum):
    """How a client comes in."""

    CLUSTER_IP = "clusterIP"
    NODE_PORT = "nodePort"


@dataclass(frozen=True, slots=True)
class Frontend:
    """One address to listen on."""

    service: ServicePortName
    entrance: Entrance
    endpoints: tuple[Endpoint, ...]
    affinity_seconds: int | None = None


def frontends(ports: Iterable[ServicePort], nodes: Mapping[str, str], zone: str = "") -> dict[Address, Frontend]:
    """`nodes`: name → address of every node this proxy serves. Where two services claim one address, the first wins."""
    table: dict[Address, Frontend] = {}
    everywhere = Locality(frozenset(nodes), zone)
    for port in ports:
        if port.protocol != "TCP":
            continue
        for address in port.cluster_ips:
            _add(table, port, Entrance.CLUSTER_IP, (address, port.port), port.internal, everywhere)
        if port.node_port:
            for name, address in sorted(nodes.items()):
                here = Locality(frozenset({name}), zone)
                _add(table, port, Entrance.NODE_PORT, (address, port.node_port), port.external, here)
            _add(table, port, Entrance.NODE_PORT, (LOOPBACK, port.node_port), port.external, everywhere)
    return table


def _add(table: dict[Address, Frontend], port: ServicePort, entrance: Entrance, address: Address, policy: Policy,
         at: Locality) -> None:
    endpoints = eligible(port, policy, at, is_ipv6=":" in address[0])
    if endpoints:
        table.setdefault(address, Frontend(port.name, entrance, endpoints, port.affinity_seconds))


def unserved(ports: Iterable[ServicePort]) -> list[ServicePort]:
    """What only nftables can do: UDP and SCTP, and addresses that are not the machine's own."""
    return [port for port in ports if port.protocol != "TCP" or port.external_ips]
