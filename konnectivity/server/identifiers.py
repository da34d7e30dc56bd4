"""What an agent says it can reach: the `agentidentifiers` metadata, a URL query string.

Keys upstream knows: ipv4, ipv6, host, cidr, default-route; repeatable. A server ignores keys it does not know.
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import parse_qs

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Identifiers:
    hosts: frozenset[str] = frozenset()  # ipv4, ipv6 and host together: one table, as in upstream
    networks: tuple[Network, ...] = ()
    is_default_route: bool = False


def parse_identifiers(query: str) -> Identifiers:
    """Raises ValueError if a `cidr` is none, or the query is absurd."""
    found = parse_qs(query, max_num_fields=1000)
    hosts = [value for key in ("ipv4", "ipv6", "host") for value in found.get(key, ())]
    networks = tuple(ipaddress.ip_network(value, strict=False) for value in found.get("cidr", ()))
    is_default_route = any(value == "true" for value in found.get("default-route", ()))
    return Identifiers(frozenset(hosts), networks, is_default_route)
