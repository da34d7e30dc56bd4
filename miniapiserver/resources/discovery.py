"""discovery.k8s.io/v1: EndpointSlices."""

from miniapiserver.resources.kinds import Group
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

DISCOVERY = Group("discovery.k8s.io", "v1", "io.k8s.api.discovery")


def rows() -> tuple[Resource, ...]:
    return (DISCOVERY.row("EndpointSlice", "endpointslices", ObjectStrategy(generation=True)),)
