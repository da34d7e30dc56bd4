"""ReplicaSets and ReplicationControllers."""

from typing import Any

from miniapiserver.errors import FieldError, invalid, required
from miniapiserver.resources.columns import (
    AGE,
    CONTAINERS,
    IMAGES,
    age,
    column,
    container_cells,
    labels_text,
    selector_text,
    table,
)
from miniapiserver.resources.kinds import SCALE, Group, select, status_of
from miniapiserver.resources.pods.defaults import default_template
from miniapiserver.resources.pods.template import deadline_errors, restart_policy_errors, template_errors
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy
from miniapiserver.resources.workloads.values import (
    MISMATCH,
    count_errors,
    default_template_of,
    immutable_errors,
    running_template_errors,
    selector_errors,
    template_labels,
)

JSON = dict[str, Any]

_COUNTS = ("replicas", "minReadySeconds")


class ReplicaSetStrategy(ObjectStrategy):
    status_shape = (("replicas", 0),)

    def default(self, obj: JSON) -> None:
        super().default(obj)
        spec = obj["spec"] = obj.get("spec") or {}
        if spec.get("replicas") is None:
            spec["replicas"] = 1
        default_template(default_template_of(spec))

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        return count_errors(spec, _COUNTS) + selector_errors(spec, "deployment") + running_template_errors(spec)

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        return self.check(obj) + immutable_errors(obj.get("spec") or {}, old.get("spec") or {}, "selector")

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        return replica_status_errors(obj.get("status") or {})


def replica_status_errors(status: JSON) -> list[FieldError]:
    parts = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")
    errors = count_errors(status, ("replicas", *parts, "observedGeneration"), "status")
    total, ready = status.get("replicas") or 0, status.get("readyReplicas") or 0
    words = "cannot be greater than status.replicas"
    errors += [invalid(f"status.{key}", status[key], words) for key in parts if (status.get(key) or 0) > max(total, 0)]
    if (available := status.get("availableReplicas") or 0) > ready:
        errors.append(invalid("status.availableReplicas", available, "cannot be greater than readyReplicas"))
    return errors


class ReplicationControllerStrategy(ObjectStrategy):
    default_propagation = "orphan"
    status_shape = (("replicas", 0),)

    def default(self, obj: JSON) -> None:
        super().default(obj)
        spec = obj["spec"] = obj.get("spec") or {}
        if spec.get("replicas") is None:
            spec["replicas"] = 1
        if spec.get("template") is None:
            return
        default_template(spec["template"])
        if labels := spec["template"]["metadata"].get("labels"):
            if not spec.get("selector"):
                spec["selector"] = dict(labels)
            meta = obj.setdefault("metadata", {})
            if not meta.get("labels"):
                meta["labels"] = dict(labels)

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        selector, template = spec.get("selector") or {}, spec.get("template")
        errors = [] if selector else [required("spec.selector")]
        errors += count_errors(spec, _COUNTS)
        if template is None:
            return [*errors, required("spec.template")]
        labels = template_labels(spec)
        if selector and not selector.items() <= (labels or {}).items():
            errors.append(invalid("spec.template.metadata.labels", labels, MISMATCH))
        errors += template_errors(template, "spec.template") + restart_policy_errors(template, "spec.template")
        return errors + deadline_errors(template, "spec.template", "ReplicationController")

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        return replica_status_errors(obj.get("status") or {})


def _cells(obj: JSON, now: float) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [spec.get("replicas") or 0, status.get("replicas") or 0, status.get("readyReplicas") or 0, age(obj, now),
            *container_cells(spec.get("template"))]


def _columns(kind: str) -> tuple[Any, ...]:
    return (column("Desired", f"{kind}Spec.replicas", type="integer"),
            column("Current", f"{kind}Status.replicas", type="integer"),
            column("Ready", f"{kind}Status.readyReplicas", type="integer"), AGE, CONTAINERS, IMAGES,
            column("Selector", f"{kind}Spec.selector", wide=True))


_REPLICA_SETS = table(*_columns("ReplicaSet"), cells=lambda obj, now: [
    *_cells(obj, now), selector_text((obj.get("spec") or {}).get("selector"))])
_CONTROLLERS = table(*_columns("ReplicationController"), cells=lambda obj, now: [
    *_cells(obj, now), labels_text((obj.get("spec") or {}).get("selector"))])
_fields = select({"status.replicas": ("status", "replicas")}, {"status.replicas": "0"})


def replica_set_row(group: Group) -> Resource:
    return group.row("ReplicaSet", "replicasets", ReplicaSetStrategy(status=True, generation=True), table=_REPLICA_SETS,
                     short=("rs",), categories=("all",), subresources=(SCALE, status_of("ReplicaSet")),
                     selectable=_fields, fields=("status.replicas",))


def replication_controller_row(group: Group) -> Resource:
    kind = "ReplicationController"
    return group.row(kind, "replicationcontrollers", ReplicationControllerStrategy(status=True, generation=True),
                     table=_CONTROLLERS, short=("rc",), categories=("all",), subresources=(SCALE, status_of(kind)),
                     selectable=_fields, fields=("status.replicas",))
