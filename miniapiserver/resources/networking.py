"""networking.k8s.io/v1: IngressClasses, Ingresses, IPAddresses, NetworkPolicies, ServiceCIDRs."""

from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

NETWORKING = Group("networking.k8s.io", "v1", "io.k8s.api.networking")


def rows() -> tuple[Resource, ...]:
    S, row = ObjectStrategy, NETWORKING.row
    return (
        row("IngressClass", "ingressclasses", S(namespaced=False, generation=True), namespaced=False),
        row("Ingress", "ingresses", S(status=True, generation=True), short=("ing",), subresources=(status_of("Ingress"),)),
        row("IPAddress", "ipaddresses", S(namespaced=False), namespaced=False, short=("ip",)),
        row("NetworkPolicy", "networkpolicies", S(generation=True), short=("netpol",)),
        row("ServiceCIDR", "servicecidrs", S(namespaced=False, status=True), namespaced=False, subresources=(status_of("ServiceCIDR"),)),
    )
