"""storage.k8s.io/v1."""

from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

STORAGE = Group("storage.k8s.io", "v1", "io.k8s.api.storage")


def rows() -> tuple[Resource, ...]:
    S, row = ObjectStrategy, STORAGE.row
    return (
        row("CSIDriver", "csidrivers", S(namespaced=False, returns_deleted_object=True), namespaced=False),
        row("CSINode", "csinodes", S(namespaced=False, returns_deleted_object=True), namespaced=False),
        row("CSIStorageCapacity", "csistoragecapacities", S()),
        row("StorageClass", "storageclasses", S(namespaced=False, returns_deleted_object=True), namespaced=False, short=("sc",)),
        row("VolumeAttachment", "volumeattachments", S(namespaced=False, returns_deleted_object=True, status=True), namespaced=False, subresources=(status_of("VolumeAttachment"),)),
        row("VolumeAttributesClass", "volumeattributesclasses", S(namespaced=False), namespaced=False, short=("vac",)),
    )
