"""rbac.authorization.k8s.io/v1: roles and their bindings."""

from miniapiserver.resources.kinds import Group
from miniapiserver.resources.names import path_segment_name
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

RBAC = Group("rbac.authorization.k8s.io", "v1", "io.k8s.api.rbac")


def rows() -> tuple[Resource, ...]:
    return tuple(RBAC.row(kind, f"{kind.lower()}s", ObjectStrategy(namespaced=not kind.startswith("Cluster"), names=path_segment_name, create_on_update=True),
                          namespaced=not kind.startswith("Cluster"))
                 for kind in ("ClusterRoleBinding", "ClusterRole", "RoleBinding", "Role"))
