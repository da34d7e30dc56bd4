"""Volumes and claims in use are not torn away.

My job: the StorageObjectInUseProtection plugin (`plugin/pkg/admission/storage/storageobjectinuseprotection`): a
finalizer on each new claim and volume. The controller manager takes it off once nobody uses the object.
"""

from miniapiserver.admission.interface import Attributes, Operation, Plugin

FINALIZERS = {"persistentvolumeclaims": "kubernetes.io/pvc-protection",
              "persistentvolumes": "kubernetes.io/pv-protection"}


class StorageObjectInUseProtection(Plugin):
    async def admit(self, attributes: Attributes) -> None:
        row = attributes.row
        finalizer = FINALIZERS.get(row.plural) if not row.group else None
        if finalizer is None or attributes.subresource or attributes.operation is not Operation.CREATE:
            return
        assert attributes.obj is not None
        metadata = attributes.obj["metadata"]
        present = metadata.get("finalizers") or []
        if finalizer not in present:
            metadata["finalizers"] = [*present, finalizer]
