"""DaemonSets and ControllerRevisions."""

from typing import Any

from miniapiserver.errors import FieldError, invalid, not_supported, required
from miniapiserver.resources.columns import (
    AGE,
    CONTAINERS,
    IMAGES,
    NONE,
    age,
    column,
    container_cells,
    labels_text,
    selector_text,
    table,
)
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.pods.defaults import default_template
from miniapiserver.resources.resource import Resource, WriteContext
from miniapiserver.resources.strategy import ObjectStrategy
from miniapiserver.resources.workloads.values import (
    amount_or_percent_errors,
    at_most_all_errors,
    count_errors,
    default_template_of,
    immutable_errors,
    is_zero,
    running_template_errors,
    selector_errors,
)

JSON = dict[str, Any]

#: Where apps/v1 keeps the internal templateGeneration
_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_COUNTS = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")


class DaemonSetStrategy(ObjectStrategy):
    status_shape = tuple((key, 0) for key in _COUNTS)

    def default(self, obj: JSON) -> None:
        super().default(obj)
        spec = obj["spec"] = obj.get("spec") or {}
        strategy = spec["updateStrategy"] = spec.get("updateStrategy") or {}
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy["rollingUpdate"] = strategy.get("rollingUpdate") or {}
            for key, value in (("maxUnavailable", 1), ("maxSurge", 0)):
                if rolling.get(key) is None:
                    rolling[key] = value
        if spec.get("revisionHistoryLimit") is None:
            spec["revisionHistoryLimit"] = 10
        default_template(default_template_of(spec))

    def prepare_for_create(self, obj: JSON, context: WriteContext) -> None:
        super().prepare_for_create(obj, context)
        annotations = metadata_of(obj).get("annotations") or {}
        obj["metadata"]["annotations"] = annotations | {
            _TEMPLATE_GENERATION: annotations.get(_TEMPLATE_GENERATION) or "1"
        }

    def prepare_for_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        super().prepare_for_update(obj, old, context)
        before = (metadata_of(old).get("annotations") or {}).get(_TEMPLATE_GENERATION) or "1"
        if (obj.get("spec") or {}).get("template") != (old.get("spec") or {}).get("template") and before.isdecimal():
            before = str(int(before) + 1)
        obj["metadata"]["annotations"] = (obj["metadata"].get("annotations") or {}) | {_TEMPLATE_GENERATION: before}

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        # Unlike its siblings a DaemonSet without selector is only told that it matches nothing.
        errors = [] if spec.get("selector") is None else selector_errors(spec, "daemonset")
        errors += running_template_errors(spec, "DaemonSet")
        return (
            errors
            + count_errors(spec, ("minReadySeconds",))
            + _strategy_errors(spec)
            + count_errors(spec, ("revisionHistoryLimit",))
        )

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        return self.check(obj) + immutable_errors(obj.get("spec") or {}, old.get("spec") or {}, "selector")

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        keys = (*_COUNTS, "observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable")
        return count_errors(obj.get("status") or {}, keys, "status")


def _strategy_errors(spec: JSON) -> list[FieldError]:
    strategy = spec.get("updateStrategy") or {}
    path = "spec.updateStrategy.rollingUpdate"
    if (kind := strategy.get("type")) == "OnDelete":
        return []
    if kind != "RollingUpdate":
        internal = {"Type": kind or "", "RollingUpdate": strategy.get("rollingUpdate")}
        return [not_supported("spec.updateStrategy", internal, ("RollingUpdate", "OnDelete"))]
    if (rolling := strategy.get("rollingUpdate")) is None:
        return [required(path)]
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    errors: list[FieldError] = []
    for key, value in (("maxUnavailable", unavailable), ("maxSurge", surge)):
        errors += amount_or_percent_errors(value, f"{path}.{key}") + at_most_all_errors(value, f"{path}.{key}")
    if not is_zero(unavailable) and not is_zero(surge):
        errors.append(invalid(f"{path}.maxSurge", surge, "may not be set when maxUnavailable is non-zero"))
    if is_zero(unavailable) and is_zero(surge):
        errors.append(required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return errors


def _cells(obj: JSON, now: float) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    keys = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    template = spec.get("template") or {}
    return [*(status.get(key) or 0 for key in keys), labels_text((template.get("spec") or {}).get("nodeSelector")),
            age(obj, now), *container_cells(template), selector_text(spec.get("selector"))]


_TABLE = table(
    column("Desired", "DaemonSetStatus.desiredNumberScheduled", type="integer"),
    column("Current", "DaemonSetStatus.currentNumberScheduled", type="integer"),
    column("Ready", "DaemonSetStatus.numberReady", type="integer"),
    column("Up-to-date", "DaemonSetStatus.updatedNumberScheduled", type="integer"),
    column("Available", "DaemonSetStatus.numberAvailable", type="integer"),
    column("Node Selector", "PodSpec.nodeSelector"), AGE, CONTAINERS, IMAGES,
    column("Selector", "DaemonSetSpec.selector", wide=True), cells=_cells)


class ControllerRevisionStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        if obj.get("revision") is None:
            obj["revision"] = 0

    def check(self, obj: JSON) -> list[FieldError]:
        errors = [] if obj.get("data") is not None else [required("data", "data is mandatory")]
        revision = obj.get("revision") or 0
        return errors + ([invalid("revision", revision, "must be greater than or equal to 0")] if revision < 0 else [])

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        errors = [] if obj.get("data") == old.get("data") else [invalid("data", obj.get("data"), "field is immutable")]
        return self.check(obj) + errors


def _controller(obj: JSON) -> str:
    for owner in metadata_of(obj).get("ownerReferences") or ():
        if owner and owner.get("controller"):
            group = (owner.get("apiVersion") or "").rpartition("/")[0]
            kind = (owner.get("kind") or "").lower()
            return f"{kind}.{group}/{owner.get('name') or ''}" if group else f"{kind}/{owner.get('name') or ''}"
    return NONE


_REVISIONS = table(
    column("Controller", "Controller of the object"), column("Revision", "ControllerRevision.revision"), AGE,
    cells=lambda obj, now: [_controller(obj), obj.get("revision") or 0, age(obj, now)])


def daemon_set_row(group: Group) -> Resource:
    return group.row("DaemonSet", "daemonsets", DaemonSetStrategy(status=True, generation=True), table=_TABLE,
                     short=("ds",), categories=("all",), subresources=(status_of("DaemonSet"),))


def controller_revision_row(group: Group) -> Resource:
    return group.row("ControllerRevision", "controllerrevisions", ControllerRevisionStrategy(), table=_REVISIONS)
