"""Claims that name no class get the default one.

My job: the DefaultStorageClass plugin (`plugin/pkg/admission/storage/storageclass/setdefault`).
"""

from typing import Any

from miniapiserver.admission.interface import Attributes, Operation, Plugin
from miniapiserver.registry.objects import Objects

STORAGE = "storageclasses.storage.k8s.io"
IS_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


class DefaultStorageClass(Plugin):
    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def admit(self, attributes: Attributes) -> None:
        row = attributes.row
        if (row.plural != "persistentvolumeclaims" or row.group or attributes.subresource
                or attributes.operation is not Operation.CREATE):
            return
        assert attributes.obj is not None
        spec, metadata = attributes.obj["spec"], attributes.obj["metadata"]
        # An empty name is an answer: no class at all.
        if spec.get("storageClassName") is not None or BETA_CLASS in (metadata.get("annotations") or {}):
            return
        defaults = [item for item in self._objects.list(STORAGE) if _is_default(item)]
        if defaults:
            newest = min(defaults, key=_newest_first)
            spec["storageClassName"] = newest["metadata"]["name"]


def _is_default(item: dict[str, Any]) -> bool:
    annotations = item["metadata"].get("annotations") or {}
    return any(annotations.get(name) == "true" for name in IS_DEFAULT)


def _newest_first(item: dict[str, Any]) -> tuple[list[int], str]:
    """Of several defaults the newest counts, then the first by name."""
    created = str(item["metadata"].get("creationTimestamp", ""))
    return [-ord(char) for char in created], str(item["metadata"]["name"])
