"""Deployments."""

from typing import Any

from miniapiserver.errors import FieldError, forbidden_field, invalid, not_supported, required
from miniapiserver.resources.columns import (
    AGE,
    CONTAINERS,
    IMAGES,
    age,
    column,
    container_cells,
    selector_text,
    table,
)
from miniapiserver.resources.kinds import SCALE, Group, status_of
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

_DEFAULTS = (("replicas", 1), ("revisionHistoryLimit", 10), ("progressDeadlineSeconds", 600))


class DeploymentStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        for key, value in _DEFAULTS:
            if spec.get(key) is None:
                spec[key] = value
        strategy = spec["strategy"] = spec.get("strategy") or {}
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy["rollingUpdate"] = strategy.get("rollingUpdate") or {}
            for key in ("maxUnavailable", "maxSurge"):
                if rolling.get(key) is None:
                    rolling[key] = "25%"
        default_template(default_template_of(spec))

    def content_changed(self, obj: JSON, old: JSON) -> bool:
        annotations = "annotations"  # a Deployment's annotations count, because they are copied to its ReplicaSets
        return (super().content_changed(obj, old)
                or (metadata_of(obj).get(annotations) or {}) != (metadata_of(old).get(annotations) or {}))

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = count_errors(spec, ("replicas",)) + selector_errors(spec, "deployment") + running_template_errors(spec)
        errors += _strategy_errors(spec.get("strategy") or {}) + count_errors(
            spec, ("minReadySeconds", "revisionHistoryLimit")
        )
        if (deadline := spec.get("progressDeadlineSeconds")) is not None:
            errors += count_errors(spec, ("progressDeadlineSeconds",))
            if deadline <= (spec.get("minReadySeconds") or 0):
                errors.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
        return errors

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        return self.check(obj) + immutable_errors(obj.get("spec") or {}, old.get("spec") or {}, "selector")

    def prepare_for_status_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        super().prepare_for_status_update(obj, old, context)
        if (labels := metadata_of(old).get("labels")) is not None:
            obj["metadata"]["labels"] = labels
        else:
            obj["metadata"].pop("labels", None)

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        status = obj.get("status") or {}
        parts = ("updatedReplicas", "readyReplicas", "availableReplicas")
        errors = count_errors(status, ("observedGeneration", "replicas", *parts, "unavailableReplicas"), "status")
        total, ready = status.get("replicas") or 0, status.get("readyReplicas") or 0
        errors += [invalid(f"status.{key}", status[key], "cannot be greater than status.replicas")
                   for key in parts if (status.get(key) or 0) > max(total, 0)]
        if (available := status.get("availableReplicas") or 0) > ready:
            errors.append(invalid("status.availableReplicas", available, "cannot be greater than readyReplicas"))
        return errors


def _strategy_errors(strategy: JSON) -> list[FieldError]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    path = "spec.strategy.rollingUpdate"
    if kind == "Recreate":
        words = "may not be specified when strategy `type` is 'Recreate'"
        return [forbidden_field(path, words)] if rolling is not None else []
    if kind != "RollingUpdate":
        internal = {"Type": kind or "", "RollingUpdate": rolling}
        return [not_supported("spec.strategy", internal, ("Recreate", "RollingUpdate"))]
    if rolling is None:
        return [required(path, "this should be defaulted and never be nil")]
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    errors = amount_or_percent_errors(unavailable, f"{path}.maxUnavailable") + amount_or_percent_errors(
        surge, f"{path}.maxSurge"
    )
    if is_zero(unavailable) and is_zero(surge):
        errors.append(invalid(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    return errors + at_most_all_errors(unavailable, f"{path}.maxUnavailable")


def _cells(obj: JSON, now: float) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}", status.get("updatedReplicas") or 0,
            status.get("availableReplicas") or 0, age(obj, now), *container_cells(spec.get("template")),
            selector_text(spec.get("selector"))]


_TABLE = table(
    column("Ready", "Number of the pod with ready state"), column("Up-to-date", "DeploymentStatus.updatedReplicas"),
    column("Available", "DeploymentStatus.availableReplicas"), AGE, CONTAINERS, IMAGES,
    column("Selector", "DeploymentSpec.selector", wide=True), cells=_cells)


def deployment_row(group: Group) -> Resource:
    return group.row("Deployment", "deployments", DeploymentStrategy(status=True, generation=True), table=_TABLE,
                     short=("deploy",), categories=("all",), subresources=(SCALE, status_of("Deployment")))
