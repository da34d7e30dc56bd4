"""resource.k8s.io/v1: dynamic resource allocation. Specs are stored as they come."""

from typing import Any

from miniapiserver.errors import FieldError, invalid
from miniapiserver.resources.columns import AGE, age, column, table
from miniapiserver.resources.kinds import Group, select, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

RESOURCE = Group("resource.k8s.io", "v1", "io.k8s.api.resource")


class FixedSpecStrategy(ObjectStrategy):
    """Claims and their templates: what is asked for cannot change."""

    def default(self, obj: JSON) -> None:
        obj["spec"] = obj.get("spec") or {}

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        same = (obj.get("spec") or {}) == (old.get("spec") or {})
        return [] if same else [invalid("spec", obj.get("spec"), "field is immutable")]


def claim_state(obj: JSON) -> str:
    """`allocated,reserved` or `pending`, and whether it is going."""
    status = obj.get("status") or {}
    words = ["deleted"] if metadata_of(obj).get("deletionTimestamp") else []
    if status.get("allocation") is None:
        words += [] if words else ["pending"]
    else:
        words += ["allocated", "reserved"] if status.get("reservedFor") else ["allocated"]
    return ",".join(words)


def _slice_cells(obj: JSON, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    node = spec.get("nodeName") or ("<all>" if spec.get("allNodes") else "<unset>")
    return [node, spec.get("driver") or "", (spec.get("pool") or {}).get("name") or "", age(obj, now)]


_CLAIMS = table(column("State", "A summary of the current state (allocated, pending, reserved, etc.)."), AGE,
                cells=lambda obj, now: [claim_state(obj), age(obj, now)])
_SLICES = table(column("Node", "ResourceSliceSpec.nodeName"), column("Driver", "ResourceSliceSpec.driver"),
                column("Pool", "ResourcePool.name"), AGE, cells=_slice_cells)
_FIELDS: dict[str, tuple[str, ...]] = {"spec.nodeName": ("spec", "nodeName"), "spec.driver": ("spec", "driver")}


def rows() -> tuple[Resource, ...]:
    row = RESOURCE.row
    return (
        row(
            "DeviceClass",
            "deviceclasses",
            ObjectStrategy(namespaced=False, generation=True, returns_deleted_object=True),
            namespaced=False,
        ),
        row(
            "ResourceClaim",
            "resourceclaims",
            FixedSpecStrategy(status=True, returns_deleted_object=True),
            table=_CLAIMS,
            subresources=(status_of("ResourceClaim"),),
        ),
        row("ResourceClaimTemplate", "resourceclaimtemplates", FixedSpecStrategy(returns_deleted_object=True)),
        row(
            "ResourceSlice",
            "resourceslices",
            ObjectStrategy(namespaced=False, generation=True, returns_deleted_object=True),
            namespaced=False,
            table=_SLICES,
            selectable=select(_FIELDS),
            fields=tuple(_FIELDS),
        ),
    )
