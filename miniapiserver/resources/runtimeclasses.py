"""node.k8s.io/v1: RuntimeClasses."""

from miniapiserver.resources.kinds import Group
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

NODE = Group("node.k8s.io", "v1", "io.k8s.api.node")


def rows() -> tuple[Resource, ...]:
    return (NODE.row("RuntimeClass", "runtimeclasses", ObjectStrategy(namespaced=False, create_on_update=True, unconditional_update=False), namespaced=False),)
