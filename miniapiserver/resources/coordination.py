"""coordination.k8s.io/v1: Leases."""

from miniapiserver.resources.kinds import Group
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

COORDINATION = Group("coordination.k8s.io", "v1", "io.k8s.api.coordination")


def rows() -> tuple[Resource, ...]:
    return (COORDINATION.row("Lease", "leases", ObjectStrategy(create_on_update=True, unconditional_update=False)),)
