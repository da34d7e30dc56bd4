"""A pod that names a RuntimeClass gets its overhead and its scheduling constraints.

My job: the RuntimeClass plugin (`plugin/pkg/admission/runtimeclass`).
"""

from typing import Any

from miniapiserver.admission.interface import Attributes, Operation, Plugin
from miniapiserver.errors import Forbidden
from miniapiserver.registry.objects import Objects

JSON = dict[str, Any]

STORAGE = "runtimeclasses.node.k8s.io"


class RuntimeClass(Plugin):
    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def admit(self, attributes: Attributes) -> None:
        found = await self._class_of(attributes)
        if found is None:
            return
        assert attributes.obj is not None
        spec = attributes.obj["spec"]
        overhead = (found.get("overhead") or {}).get("podFixed")
        if overhead:
            if spec.get("overhead") and spec["overhead"] != overhead:
                raise _no(attributes, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
            spec["overhead"] = dict(overhead)
        scheduling = found.get("scheduling") or {}
        selector, own = scheduling.get("nodeSelector") or {}, spec.get("nodeSelector") or {}
        if clashing := sorted(key for key in selector if own.get(key, selector[key]) != selector[key]):
            raise _no(attributes, f"pod rejected: conflict: runtimeClass.scheduling.nodeSelector[{clashing[0]}] = "
                                  f"{selector[clashing[0]]}; pod.spec.nodeSelector[{clashing[0]}] = {own[clashing[0]]}")
        if selector:
            spec["nodeSelector"] = own | selector
        present = spec.get("tolerations") or []
        if missing := [item for item in scheduling.get("tolerations") or () if item not in present]:
            spec["tolerations"] = [*present, *missing]

    async def validate(self, attributes: Attributes) -> None:
        """Overhead comes from a class, never from the client."""
        if _is_new_pod(attributes) and await self._class_of(attributes) is None:
            assert attributes.obj is not None
            if attributes.obj["spec"].get("overhead"):
                raise _no(attributes, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined "
                                      "Overhead")

    async def _class_of(self, attributes: Attributes) -> JSON | None:
        if not _is_new_pod(attributes):
            return None
        assert attributes.obj is not None
        name = attributes.obj["spec"].get("runtimeClassName")
        if not name:
            return None
        found = await self._objects.appears(STORAGE, "", name, 0)
        if found is None:
            raise _no(attributes, f'pod rejected: RuntimeClass "{name}" not found')
        return found


def _is_new_pod(attributes: Attributes) -> bool:
    row = attributes.row
    return (row.plural == "pods" and not row.group and not attributes.subresource
            and attributes.operation is Operation.CREATE)


def _no(attributes: Attributes, why: str) -> Forbidden:
    return Forbidden.resource("pods", "", attributes.name, why)
