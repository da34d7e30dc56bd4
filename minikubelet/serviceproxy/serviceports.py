"""Services and EndpointSlices in, service ports with their endpoints out.

My job: read the two kinds as kube-proxy does, and say which endpoints a client may be sent to. Pure. Neighbours:
`frontends` turns me into addresses to listen on, `nftables` into a ruleset. Facts:
`pkg/proxy/{servicechangetracker,endpointslicecache,topology}.go`.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

JSON = dict[str, Any]

SERVICE_LABEL = "kubernetes.io/service-name"
OTHER_PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
SLICE_SELECTOR = f"!{HEADLESS_LABEL},!{OTHER_PROXY_LABEL}"

DEFAULT_AFFINITY_SECONDS = 10800


class Policy(enum.Enum):
    """internalTrafficPolicy and externalTrafficPolicy."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


@dataclass(frozen=True, slots=True, order=True)
class ServicePortName:
    """What upstream logs as `namespace/name:port`."""

    namespace: str
    name: str
    port: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" + (f":{self.port}" if self.port else "")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port that may answer."""

    address: str
    port: int
    node: str = ""
    is_ready: bool = True
    is_serving: bool = True
    is_terminating: bool = False
    zone_hints: frozenset[str] = frozenset()
    node_hints: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one Service, and everything that answers for it."""

    name: ServicePortName
    protocol: str
    cluster_ips: tuple[str, ...]
    port: int
    node_port: int
    external_ips: tuple[str, ...]
    affinity_seconds: int | None
    internal: Policy
    external: Policy
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Locality:
    """Where the client is: the nodes that count as its own, and their zone."""

    nodes: frozenset[str]
    zone: str = ""


def service_ports(services: Iterable[JSON], slices: Iterable[JSON]) -> list[ServicePort]:
    """Every port that this proxy has to serve, in a stable order."""
    answering: dict[tuple[str, str], list[JSON]] = {}
    for item in slices:
        labels = item["metadata"].get("labels") or {}
        owner = labels.get(SERVICE_LABEL)
        if owner and HEADLESS_LABEL not in labels and OTHER_PROXY_LABEL not in labels:
            answering.setdefault((item["metadata"].get("namespace", ""), owner), []).append(item)
    found: list[ServicePort] = []
    for service in services:
        if _is_ours(service):
            meta = service["metadata"]
            found += _ports(service, answering.get((meta.get("namespace", ""), meta["name"]), []))
    return sorted(found, key=lambda port: (port.name, port.protocol))


def _is_ours(service: JSON) -> bool:
    spec = service.get("spec") or {}
    return (spec.get("clusterIP") not in (None, "", "None") and spec.get("type") != "ExternalName"
            and OTHER_PROXY_LABEL not in (service["metadata"].get("labels") or {}))


def _ports(service: JSON, slices: list[JSON]) -> Iterable[ServicePort]:
    meta, spec = service["metadata"], service["spec"]
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    externals = [*(spec.get("externalIPs") or ()),
                 *(item["ip"] for item in ingress if item.get("ip") and item.get("ipMode", "VIP") == "VIP")]
    ips = tuple(spec.get("clusterIPs") or (spec["clusterIP"],))
    for port in spec.get("ports") or ():
        name = ServicePortName(meta.get("namespace", ""), meta["name"], port.get("name") or "")
        protocol = str(port.get("protocol") or "TCP")
        yield ServicePort(
            name, protocol, ips, int(port["port"]), int(port.get("nodePort") or 0), tuple(dict.fromkeys(externals)),
            _affinity(spec), Policy(spec.get("internalTrafficPolicy") or "Cluster"),
            Policy(spec.get("externalTrafficPolicy") or "Cluster"), tuple(_endpoints(slices, name.port, protocol)))


def _affinity(spec: JSON) -> int | None:
    if spec.get("sessionAffinity") != "ClientIP":
        return None
    seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
    return int(seconds or DEFAULT_AFFINITY_SECONDS)


def _endpoints(slices: list[JSON], port_name: str, protocol: str) -> list[Endpoint]:
    """An address may be in two slices while it moves between them: it counts once."""
    found: dict[tuple[str, int], Endpoint] = {}
    for item in slices:
        if item.get("addressType") not in ("IPv4", "IPv6"):
            continue
        numbers = [port.get("port") for port in item.get("ports") or ()
                   if (port.get("name") or "") == port_name and (port.get("protocol") or "TCP") == protocol]
        for number in filter(None, numbers):
            for endpoint in item.get("endpoints") or ():
                if endpoint.get("addresses"):
                    made = _endpoint(endpoint, int(number))
                    found.setdefault((made.address, made.port), made)
    return [found[key] for key in sorted(found)]


def _endpoint(item: JSON, port: int) -> Endpoint:
    conditions, hints = item.get("conditions") or {}, item.get("hints") or {}
    ready = conditions.get("ready") is not False  # nil means ready
    serving = conditions.get("serving")
    # Only the first address of an endpoint is used, as upstream.
    return Endpoint(
        str(item["addresses"][0]), port, str(item.get("nodeName") or ""), ready,
        ready if serving is None else bool(serving), bool(conditions.get("terminating")),
        frozenset(hint["name"] for hint in hints.get("forZones") or ()),
        frozenset(hint["name"] for hint in hints.get("forNodes") or ()))


def eligible(port: ServicePort, policy: Policy, at: Locality, *, is_ipv6: bool = False) -> tuple[Endpoint, ...]:
    """Whom a client at `at` may be sent to: the ready ones; if there are none, those that serve while they end."""
    family = [endpoint for endpoint in port.endpoints if (":" in endpoint.address) == is_ipv6]
    if policy is Policy.LOCAL:
        family = [endpoint for endpoint in family if endpoint.node in at.nodes]
    ready = [endpoint for endpoint in family if endpoint.is_ready]
    if ready:
        return tuple(ready if policy is Policy.LOCAL else _near(ready, at))
    return tuple(endpoint for endpoint in family if endpoint.is_serving and endpoint.is_terminating)


def _near(ready: list[Endpoint], at: Locality) -> list[Endpoint]:
    """trafficDistribution: hints count only when every endpoint has them and one is for us."""
    if all(endpoint.node_hints for endpoint in ready):
        same = [endpoint for endpoint in ready if endpoint.node_hints & at.nodes]
        if same:
            return same
    if at.zone and all(endpoint.zone_hints for endpoint in ready):
        same = [endpoint for endpoint in ready if at.zone in endpoint.zone_hints]
        if same:
            return same
    return ready
