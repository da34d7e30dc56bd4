"""The nftables ruleset that does what the user-space proxy does, in the kernel.

My job: service ports in, a `Ruleset` out; and a `Ruleset` as text for `nft`, as the change from the one before.
Pure. Neighbours: `serviceports` below, `netfilter` hands the text to the kernel. Shape and names are upstream's
(`pkg/proxy/nftables`): verdict maps from address to chain, one chain per service and per endpoint. Rule: the text is
one transaction; sets that remember clients (session affinity) are kept from one ruleset to the next.
"""

import hashlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from minikubelet.serviceproxy.serviceports import Endpoint, Locality, Policy, ServicePort, eligible

MARK = "0x4000"
NAME_LIMIT = 128  # NFT_NAME_MAXLEN is 256; upstream keeps to this

SERVICE_IPS, SERVICE_NODEPORTS = "service-ips", "service-nodeports"
NO_ENDPOINT_SERVICES, NO_ENDPOINT_NODEPORTS = "no-endpoint-services", "no-endpoint-nodeports"
CLUSTER_IPS, NODEPORT_IPS = "cluster-ips", "nodeport-ips"
REJECT, DROP = "goto reject-chain", "drop"


@dataclass(frozen=True, slots=True)
class Place:
    """What a ruleset has to know of its node."""

    nodes: Mapping[str, str]
    """Name → address, where NodePorts are answered. One node, unless several share a network namespace."""
    pod_cidr: str = ""
    zone: str = ""


@dataclass(slots=True)
class Ruleset:
    """One family's table. Dicts: name → rules, name → elements, name → definition."""

    family: str
    chains: dict[str, list[str]] = field(default_factory=dict)
    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    sets: dict[str, set[str]] = field(default_factory=dict)
    memories: dict[str, str] = field(default_factory=dict)
    """Sets that the kernel fills: their content is not ours."""

    @property
    def table(self) -> str:
        return f"{self.family} kube-proxy"


def plan(ports: Iterable[ServicePort], place: Place, *, is_ipv6: bool = False) -> Ruleset:
    """The ruleset of one family, whole."""
    rules = _skeleton("ip6" if is_ipv6 else "ip")
    rules.sets[NODEPORT_IPS] = {address for address in place.nodes.values() if (":" in address) == is_ipv6}
    for port in ports:
        _ServiceRules(rules, port, place, is_ipv6).add()
    return rules


def families(ports: Sequence[ServicePort], place: Place, before: Container[str]) -> list[Ruleset]:
    """One ruleset per family: IPv4's always, IPv6's once a service has such an address."""
    has_ipv6 = "ip6" in before or any(":" in address for port in ports for address in port.cluster_ips)
    return [plan(ports, place), *([plan(ports, place, is_ipv6=True)] if has_ipv6 else [])]


def _skeleton(family: str) -> Ruleset:
    daddr = f"{family} daddr"
    return Ruleset(family, chains={
        "mark-for-masquerade": [f"meta mark set meta mark or {MARK}"],
        # Through lo both ends are here and replies come back by themselves; lo has no address to masquerade with.
        "masquerading": [f"meta mark and {MARK} == 0 return", f"meta mark set meta mark xor {MARK}",
                         'oifname "lo" return', "masquerade fully-random"],
        "reject-chain": ["reject"],
        "services": [f"{daddr} . meta l4proto . th dport vmap @{SERVICE_IPS}",
                     f"{daddr} @{NODEPORT_IPS} meta l4proto . th dport vmap @{SERVICE_NODEPORTS}"],
        "service-endpoints-check": [f"{daddr} . meta l4proto . th dport vmap @{NO_ENDPOINT_SERVICES}"],
        "nodeport-endpoints-check": [f"{daddr} @{NODEPORT_IPS} meta l4proto . th dport vmap @{NO_ENDPOINT_NODEPORTS}"],
        # After the redirection nothing is left for a service's address but ports the service does not have.
        "cluster-ips-check": [f"{daddr} @{CLUSTER_IPS} reject"],
        "nat-prerouting": ["jump services"],
        "nat-output": ["jump services"],
        "nat-postrouting": ["jump masquerading"],
        "filter-input": ["ct state new jump nodeport-endpoints-check", "ct state new jump service-endpoints-check"],
        "filter-forward": ["ct state new jump service-endpoints-check", "ct state new jump cluster-ips-check"],
        "filter-output": ["ct state new jump nodeport-endpoints-check", "ct state new jump service-endpoints-check"],
        "filter-output-post-dnat": ["ct state new jump cluster-ips-check"],
    }, maps={SERVICE_IPS: {}, SERVICE_NODEPORTS: {}, NO_ENDPOINT_SERVICES: {}, NO_ENDPOINT_NODEPORTS: {}},
        sets={CLUSTER_IPS: set(), NODEPORT_IPS: set()})


_HOOKS = {
    "nat-prerouting": "type nat hook prerouting priority dstnat",
    "nat-output": "type nat hook output priority -100",
    "nat-postrouting": "type nat hook postrouting priority srcnat",
    "filter-input": "type filter hook input priority -110",
    "filter-forward": "type filter hook forward priority -110",
    "filter-output": "type filter hook output priority -110",
    "filter-output-post-dnat": "type filter hook output priority -90",
}


class _ServiceRules:
    """One service port on its way into a ruleset."""

    def __init__(self, rules: Ruleset, port: ServicePort, place: Place, is_ipv6: bool) -> None:
        self.rules, self.port, self.place, self.is_ipv6 = rules, port, place, is_ipv6
        self.family, self.protocol = rules.family, port.protocol.lower()
        here = Locality(frozenset(place.nodes), place.zone)
        self.anywhere = eligible(port, Policy.CLUSTER, here, is_ipv6=is_ipv6)
        self.local = eligible(port, Policy.LOCAL, here, is_ipv6=is_ipv6)
        self.name = chain_name("service", port)

    def add(self) -> None:
        cluster_ips = self._of_family(self.port.cluster_ips)
        self.rules.sets[CLUSTER_IPS].update(cluster_ips)
        for address in cluster_ips:
            self._entrance(SERVICE_IPS, NO_ENDPOINT_SERVICES, self._key(address), self.port.internal,
                           partial(self._inner, address))
        for address in self._of_family(self.port.external_ips):
            self._entrance(SERVICE_IPS, NO_ENDPOINT_SERVICES, self._key(address), self.port.external, self._outer)
        if self.port.node_port:
            self._entrance(SERVICE_NODEPORTS, NO_ENDPOINT_NODEPORTS, f"{self.protocol} . {self.port.node_port}",
                           self.port.external, self._outer)

    def _of_family(self, addresses: Iterable[str]) -> list[str]:
        return [address for address in addresses if (":" in address) == self.is_ipv6]

    def _key(self, address: str) -> str:
        return f"{address} . {self.protocol} . {self.port.port}"

    def _entrance(self, redirect: str, refuse: str, key: str, policy: Policy, chain: Callable[[], str]) -> None:
        if self.local if policy is Policy.LOCAL else self.anywhere:
            self.rules.maps[redirect].setdefault(key, f"goto {chain()}")
        else:
            # Endpoints elsewhere that may not be used: silence, as upstream. None at all: refusal.
            self.rules.maps[refuse].setdefault(key, DROP if self.anywhere else REJECT)

    def _inner(self, address: str) -> str:
        """From within the cluster, by the cluster IP."""
        target = self._spread(self.port.internal)
        if self.place.pod_cidr and (":" in self.place.pod_cidr) == self.is_ipv6:
            rule = (f"{self.family} daddr {address} {self.protocol} dport {self.port.port} "
                    f"{self.family} saddr != {self.place.pod_cidr} jump mark-for-masquerade")
            if rule not in self.rules.chains[target]:
                self.rules.chains[target].insert(0, rule)
        return target

    def _outer(self) -> str:
        """From outside: by NodePort or an external address."""
        name = chain_name("external", self.port)
        if name not in self.rules.chains:
            if self.port.external is Policy.CLUSTER:
                rules = ["jump mark-for-masquerade", f"goto {self._spread(Policy.CLUSTER)}"]
            else:
                rules = []
                if self.anywhere:  # the node's own clients are within the cluster, whichever way they come in
                    whole = self._spread(Policy.CLUSTER)
                    if self.place.pod_cidr and (":" in self.place.pod_cidr) == self.is_ipv6:
                        rules.append(f"{self.family} saddr {self.place.pod_cidr} goto {whole}")
                    rules += ["fib saddr type local jump mark-for-masquerade", f"fib saddr type local goto {whole}"]
                rules.append(f"goto {self._spread(Policy.LOCAL)}")
            self.rules.chains[name] = rules
        return name

    def _spread(self, policy: Policy) -> str:
        """The chain that chooses an endpoint."""
        name, endpoints = ((f"{self.name}/local", self.local) if policy is Policy.LOCAL else (self.name, self.anywhere))
        if name not in self.rules.chains:
            targets = [self._endpoint(endpoint) for endpoint in endpoints]
            rules = [f"{self.family} saddr @{memory} goto {target}" for target, memory in targets if memory]
            choices = ", ".join(f"{number} : goto {target}" for number, (target, _) in enumerate(targets))
            rules.append(f"numgen random mod {len(targets)} vmap {{ {choices} }}")
            self.rules.chains[name] = rules
        return name

    def _endpoint(self, endpoint: Endpoint) -> tuple[str, str]:
        """The chain that redirects to one endpoint, and the set that remembers its clients, if any."""
        name, memory = chain_name("endpoint", self.port, endpoint), ""
        rules = [f"{self.family} saddr {endpoint.address} jump mark-for-masquerade"]  # to itself, by the service
        if self.port.affinity_seconds:
            memory = chain_name("affinity", self.port, endpoint)
            kind = "ipv6_addr" if self.is_ipv6 else "ipv4_addr"
            self.rules.memories[memory] = (f"type {kind} ; size 65535 ; flags dynamic,timeout ; "
                                           f"timeout {self.port.affinity_seconds}s ;")
            rules.append(f"update @{memory} {{ {self.family} saddr }}")
        address = f"[{endpoint.address}]" if self.is_ipv6 else endpoint.address
        rules.append(f"meta l4proto {self.protocol} dnat to {address}:{endpoint.port}")
        self.rules.chains[name] = rules
        return name, memory


def chain_name(kind: str, port: ServicePort, endpoint: Endpoint | None = None) -> str:
    """Unique by its hash, readable by its rest, as upstream's names."""
    where = port.name
    readable = f"{where.namespace}/{where.name}/{port.protocol.lower()}/{where.port}"
    if endpoint is not None:
        readable += f"__{endpoint.address.replace(':', '.')}/{endpoint.port}"
    # A remembered client is worth its set's timeout: another timeout is another set.
    told = f"{readable}/{port.affinity_seconds}" if kind == "affinity" else readable
    digest = hashlib.sha256(told.encode()).hexdigest()[:8].upper()
    return f"{kind}-{digest}-{readable}"[:NAME_LIMIT - len('/local')]


def text(new: Ruleset, old: Ruleset | None = None) -> str:
    """The transaction that makes `new` of `old`; without `old`, of whatever is there."""
    table = new.table
    lines = [f"add table {table}"]
    if old is None:
        lines += [f"delete table {table}", f"add table {table}"]
    lines += _declarations(new)
    for name, rules in new.chains.items():
        lines += [f"flush chain {table} {name}"] if old is not None and name in old.chains else []
        lines += [f"add rule {table} {name} {rule}" for rule in rules]
    lines += _contents(new, is_known=old is not None)
    return "\n".join([*lines, *(_leftovers(new, old) if old is not None else ())]) + "\n"


def _declarations(new: Ruleset) -> list[str]:
    table, address = new.table, "ipv6_addr" if new.family == "ip6" else "ipv4_addr"
    keys: Mapping[str, str] = {name: f"{address} . inet_proto . inet_service" if "nodeports" not in name else
                               "inet_proto . inet_service" for name in new.maps}
    lines = [f"add map {table} {name} {{ type {key} : verdict ; }}" for name, key in keys.items()]
    lines += [f"add set {table} {name} {{ type {address} ; }}" for name in new.sets]
    lines += [f"add set {table} {name} {{ {definition} }}" for name, definition in new.memories.items()]
    hooked = {name: f" {{ {_HOOKS[name]} ; }}" for name in new.chains if name in _HOOKS}
    return lines + [f"add chain {table} {name}{hooked.get(name, '')}" for name in new.chains]


def _contents(new: Ruleset, *, is_known: bool) -> list[str]:
    table, lines = new.table, []
    for name, verdicts in new.maps.items():
        lines += [f"flush map {table} {name}"] if is_known else []
        lines += _elements(table, name, [f"{key} : {verdict}" for key, verdict in verdicts.items()])
    for name, members in new.sets.items():
        lines += [f"flush set {table} {name}"] if is_known else []
        lines += _elements(table, name, sorted(members))
    return lines


def _elements(table: str, name: str, elements: Sequence[str]) -> list[str]:
    return [f"add element {table} {name} {{ {', '.join(elements)} }}"] if elements else []


def _leftovers(new: Ruleset, old: Ruleset) -> list[str]:
    """Emptied before deleted: chains name each other and their sets."""
    table = new.table
    chains = [name for name in old.chains if name not in new.chains]
    return [*(f"flush chain {table} {name}" for name in chains), *(f"delete chain {table} {name}" for name in chains),
            *(f"delete set {table} {name}" for name in old.memories if name not in new.memories)]
