"""scheduling.k8s.io/v1: PriorityClasses."""

from miniapiserver.resources.kinds import Group
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

SCHEDULING = Group("scheduling.k8s.io", "v1", "io.k8s.api.scheduling")


def rows() -> tuple[Resource, ...]:
    return (SCHEDULING.row("PriorityClass", "priorityclasses", ObjectStrategy(namespaced=False, generation=True), namespaced=False, short=("pc",)),)
