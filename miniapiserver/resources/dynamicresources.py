"""resource.k8s.io/v1: dynamic resource allocation. Specs are stored as they come."""

from typing import Any

from miniapiserver.errors import FieldError, invalid, required
from miniapiserver.resources.columns import AGE, age, column, table
from miniapiserver.resources.kinds import Group, select, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

RESOURCE = Group("resource.k8s.io", "v1", "io.k8s.api.resource")


class FixedSpecStrategy(ObjectStrategy):
    """Claims and their templates: what is asked for cannot change. `depth` is how far below its spec a claim's is."""

    def __init__(self, *, status: bool = False, depth: int = 0) -> None:
        super().__init__(status=status, returns_deleted_object=True)
        self.depth = depth

    def _requests(self, obj: JSON) -> tuple[str, list[JSON]]:
        """Where the requests stand, and the requests."""
        spec, path = obj.get("spec") or {}, "spec"
        for _ in range(self.depth):
            spec, path = spec.get("spec") or {}, f"{path}.spec"
        return f"{path}.devices.requests", objects((spec.get("devices") or {}).get("requests"))

    def default(self, obj: JSON) -> None:
        super().default(obj)
        obj["spec"] = obj.get("spec") or {}
        for request in self._requests(obj)[1]:
            for exact in (request.get("exactly"), *objects(request.get("firstAvailable"))):
                _default_request(exact)

    def check(self, obj: JSON) -> list[FieldError]:
        path, requests = self._requests(obj)
        errors: list[FieldError] = []
        for index, request in enumerate(requests):
            errors += _request_errors(request, f"{path}[{index}]")
        return errors

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        same = (obj.get("spec") or {}) == (old.get("spec") or {})
        return [] if same else [invalid("spec", obj.get("spec"), "field is immutable")]


def _default_request(request: JSON | None) -> None:
    if request is None:
        return
    request["allocationMode"] = request.get("allocationMode") or "ExactCount"
    if request["allocationMode"] == "ExactCount" and not request.get("count"):
        request["count"] = 1
    for toleration in objects(request.get("tolerations")):
        toleration["operator"] = toleration.get("operator") or "Equal"


def _request_errors(request: JSON, path: str) -> list[FieldError]:
    errors = [] if request.get("name") else [required(f"{path}.name")]
    exact, alternatives = request.get("exactly"), objects(request.get("firstAvailable"))
    if exact is None and not alternatives:
        errors.append(required(path, "exactly one of `exactly` or `firstAvailable` is required"))
    if exact is not None and alternatives:
        errors.append(invalid(path, None, "exactly one of `exactly` or `firstAvailable` is required, but multiple "
                                          "fields are set"))
    if exact is not None and not exact.get("deviceClassName"):
        errors.append(required(f"{path}.exactly.deviceClassName"))
    return errors


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
            FixedSpecStrategy(status=True),
            table=_CLAIMS,
            subresources=(status_of("ResourceClaim"),),
        ),
        row("ResourceClaimTemplate", "resourceclaimtemplates", FixedSpecStrategy(depth=1)),
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
