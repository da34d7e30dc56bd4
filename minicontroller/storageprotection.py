"""Claims and volumes that were deleted go once nobody uses them.

My job: take the protecting finalizer off (`pkg/controller/volume/{pvc,pv}protection`). A claim is in use while a pod
on a node names it and has not ended; a volume while it is bound.
"""

from collections.abc import Iterable
from typing import Any

from minicontroller.actions import Action, Update
from minicontroller.controller import Controller, Key
from minicontroller.informers import each
from minicontroller.podstate import is_finished
from wire.apiclient import resource_path

JSON = dict[str, Any]

CLAIM_FINALIZER, VOLUME_FINALIZER = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"


def is_waiting(obj: JSON | None, finalizer: str) -> bool:
    metadata = obj["metadata"] if obj is not None else {}
    return bool(metadata.get("deletionTimestamp")) and finalizer in (metadata.get("finalizers") or ())


def without(obj: JSON, finalizer: str) -> JSON:
    metadata = obj["metadata"]
    return obj | {"metadata": metadata | {"finalizers": [name for name in metadata["finalizers"] if name != finalizer]}}


def claims_of(pod: JSON) -> list[Key]:
    """What a pod names, ephemeral volumes included: their claims are named after pod and volume."""
    metadata = pod["metadata"]
    namespace, found = metadata.get("namespace", ""), []
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        if named := (volume.get("persistentVolumeClaim") or {}).get("claimName"):
            found.append((namespace, named))
        elif "ephemeral" in volume:
            found.append((namespace, f"{metadata['name']}-{volume['name']}"))
    return found


class ClaimProtection(Controller):
    name = "pvcprotection"

    def watch(self) -> None:
        self.claims = self.on(self.informers.of("", "v1", "persistentvolumeclaims"))
        self.pods = self.on(self.informers.of("", "v1", "pods"), claims_of)

    def plan(self, key: Key) -> Iterable[Action]:
        claim = self.claims.objects.get(key)
        if claim is not None and is_waiting(claim, CLAIM_FINALIZER) and not self._is_used(key):
            path = resource_path("", "v1", "persistentvolumeclaims", *key)
            yield Update(path, without(claim, CLAIM_FINALIZER))

    def _is_used(self, key: Key) -> bool:
        return any(key in claims_of(pod) and (pod.get("spec") or {}).get("nodeName") and not is_finished(pod)
                   for pod in each(self.pods, key[0]))


class VolumeProtection(Controller):
    name = "pvprotection"

    def watch(self) -> None:
        self.volumes = self.on(self.informers.of("", "v1", "persistentvolumes"))

    def plan(self, key: Key) -> Iterable[Action]:
        volume = self.volumes.objects.get(key)
        if volume is not None and is_waiting(volume, VOLUME_FINALIZER) \
                and (volume.get("status") or {}).get("phase") != "Bound":
            path = resource_path("", "v1", "persistentvolumes", None, key[1])
            yield Update(path, without(volume, VOLUME_FINALIZER))
