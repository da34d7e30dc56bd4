"""flowcontrol.apiserver.k8s.io/v1."""

from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

FLOWCONTROL = Group("flowcontrol.apiserver.k8s.io", "v1", "io.k8s.api.flowcontrol")


def rows() -> tuple[Resource, ...]:
    return tuple(FLOWCONTROL.row(kind, f"{kind.lower()}s", ObjectStrategy(namespaced=False, status=True, generation=True), namespaced=False,
                                 subresources=(status_of(kind),)) for kind in ("FlowSchema", "PriorityLevelConfiguration"))
