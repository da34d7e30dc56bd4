"""resource.k8s.io/v1: dynamic resource allocation."""

from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

RESOURCE = Group("resource.k8s.io", "v1", "io.k8s.api.resource")


def rows() -> tuple[Resource, ...]:
    S, row = ObjectStrategy, RESOURCE.row
    return (
        row("DeviceClass", "deviceclasses", S(namespaced=False, generation=True, returns_deleted_object=True), namespaced=False),
        row("ResourceClaim", "resourceclaims", S(status=True, returns_deleted_object=True), subresources=(status_of("ResourceClaim"),)),
        row("ResourceClaimTemplate", "resourceclaimtemplates", S(returns_deleted_object=True)),
        row("ResourceSlice", "resourceslices", S(namespaced=False, generation=True, returns_deleted_object=True), namespaced=False),
    )
