"""Which node's tunnel reaches an address: decided by the Node objects alone.

My job: from Node objects to an index of addresses and pod ranges. Pure. `tunnels` asks me with each dial. A node
answers for the addresses of its status, its name, and its pod ranges; where two claim the same, the elder keeps it.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What of a Node matters here."""

    name: str
    created: str
    addresses: tuple[str, ...]
    networks: tuple[Network, ...]


def facts_of(node: Mapping[str, Any]) -> NodeFacts:
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    cidrs = spec.get("podCIDRs") or [spec.get("podCIDR")]
    return NodeFacts(
        metadata["name"],
        metadata.get("creationTimestamp") or "",
        tuple(entry["address"] for entry in status.get("addresses") or () if entry.get("address")),
        tuple(network for cidr in cidrs if cidr and (network := _network(cidr)) is not None),
    )


def _network(cidr: str) -> Network | None:
    try:
        return ipaddress.ip_network(cidr)
    except ValueError:
        return None  # validation keeps these out; a node that has one anyway has no pods there


class NodeRoutes:
    """The index. Lives as long as the tunnels."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeFacts] = {}
        self._hosts: dict[str, str] = {}
        self._networks: dict[Network, str] = {}
        self._lengths: list[tuple[int, int]] = []

    def put(self, facts: NodeFacts) -> None:
        if self._nodes.get(facts.name) != facts:  # most updates of a Node are heartbeats
            self._nodes[facts.name] = facts
            self._index()

    def remove(self, name: str) -> None:
        if self._nodes.pop(name, None) is not None:
            self._index()

    def pick(self, host: str) -> str | None:
        """The node that reaches `host`, by its name or address."""
        if (found := self._hosts.get(host)) is not None:
            return found
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None
        for version, length in self._lengths:
            if version == address.version:
                found = self._networks.get(ipaddress.ip_network((address, length), strict=False))
                if found is not None:
                    return found
        return None

    def _index(self) -> None:
        eldest_first = sorted(self._nodes.values(), key=lambda facts: (facts.created, facts.name))
        # A node's name is the API's word for it; no other node's addresses may take it.
        self._hosts = {facts.name: facts.name for facts in eldest_first}
        self._networks = {}
        for facts in eldest_first:
            for address in facts.addresses:
                self._hosts.setdefault(address, facts.name)
            for network in facts.networks:
                self._networks.setdefault(network, facts.name)
        lengths = {(network.version, network.prefixlen) for network in self._networks}
        self._lengths = sorted(lengths, reverse=True)  # the longest prefix first
