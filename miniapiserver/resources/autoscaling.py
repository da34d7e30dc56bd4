"""autoscaling: HorizontalPodAutoscalers, v2 stored, v1 converted.

My job: their rules, and what v1 has no field for, which it keeps in annotations (kubernetes `pkg/apis/autoscaling/v1`).
"""

from copy import deepcopy
from typing import Any

import orjson

from miniapiserver.errors import FieldError, invalid, required
from miniapiserver.resources.columns import AGE, NONE, UNKNOWN, age, column, table
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.names import path_segment
from miniapiserver.resources.pods.values import choice_errors, objects
from miniapiserver.resources.quantity import BadQuantity, parse
from miniapiserver.resources.resource import Conversion, Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

V2 = Group("autoscaling", "v2", "io.k8s.api.autoscaling")
V1 = Group("autoscaling", "v1", "io.k8s.api.autoscaling")
_PREFIX = "autoscaling.alpha.kubernetes.io/"
_METRICS, _BEHAVIOR, _CONDITIONS, _CURRENT = (
    _PREFIX + word for word in ("metrics", "behavior", "conditions", "current-metrics")
)
_SOURCES = {"ContainerResource": "containerResource", "External": "external", "Object": "object", "Pods": "pods",
            "Resource": "resource"}
_DEFAULT_UTILIZATION = 80
_ALL_PODS = {"type": "Percent", "value": 100, "periodSeconds": 15}
_BEHAVIORS: dict[str, JSON] = {  # what a behavior that leaves rules out means
    "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, _ALL_PODS]},
    "scaleDown": {"selectPolicy": "Max", "policies": [_ALL_PODS]},
}
_SHOWN = 2


def _cpu_metric(percent: int) -> JSON:
    return {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}},
    }


def _is_cpu_percent(metric: JSON) -> bool:
    resource = metric.get("resource") or {}
    return (metric.get("type") == "Resource" and resource.get("name") == "cpu"
            and (resource.get("target") or {}).get("averageUtilization") is not None)


def _loaded(annotations: JSON, key: str) -> Any:
    """What an annotation holds, None if nothing that can be read; it is gone from `annotations` afterwards."""
    text = annotations.pop(key, None)
    try:
        return orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None


def to_v2(obj: JSON) -> JSON:
    meta, spec, status = dict(metadata_of(obj)), dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    annotations = dict(meta.get("annotations") or {})
    metrics = list(_loaded(annotations, _METRICS) or ())
    if (percent := spec.pop("targetCPUUtilizationPercentage", None)) is not None:
        metrics.insert(0, _cpu_metric(percent))
    if metrics:
        spec["metrics"] = metrics
    if behavior := _loaded(annotations, _BEHAVIOR):
        spec["behavior"] = behavior
    if conditions := _loaded(annotations, _CONDITIONS):
        status["conditions"] = conditions
    current = list(_loaded(annotations, _CURRENT) or ())
    if (used := status.pop("currentCPUUtilizationPercentage", None)) is not None:
        current.insert(
            0,
            {
                "type": "Resource",
                "resource": {"name": "cpu", "current": {"averageUtilization": used, "averageValue": "0"}},
            },
        )
    status["currentMetrics"] = current or None
    if not status.get("currentReplicas"):
        status.pop("currentReplicas", None)
    meta.pop("annotations", None)
    if annotations:
        meta["annotations"] = annotations
    return obj | {"apiVersion": "autoscaling/v2", "metadata": meta, "spec": spec, "status": status}


def from_v2(obj: JSON) -> JSON:
    meta, spec, status = dict(metadata_of(obj)), dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    annotations = dict(meta.get("annotations") or {})
    metrics, current = objects(spec.pop("metrics", None)), objects(status.pop("currentMetrics", None))
    cpu = next((metric for metric in metrics if _is_cpu_percent(metric)), None)
    if cpu is not None:
        spec["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"]
    used = next((item for item in current if (item.get("resource") or {}).get("name") == "cpu"), None)
    percent = ((used or {}).get("resource") or {}).get("current", {}).get("averageUtilization")
    if percent is not None:
        status["currentCPUUtilizationPercentage"] = percent
    kept = {_METRICS: [metric for metric in metrics if metric is not cpu], _BEHAVIOR: spec.pop("behavior", None),
            _CONDITIONS: status.pop("conditions", None),
            _CURRENT: [item for item in current if item is not used or percent is None]}
    annotations.update((key, orjson.dumps(value).decode()) for key, value in kept.items() if value)
    if annotations:
        meta["annotations"] = annotations
    if status.get("currentReplicas") is None:
        status["currentReplicas"] = 0
    return obj | {"apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


class HorizontalPodAutoscalerStrategy(ObjectStrategy):
    """Rules of both versions; `is_v1` tells which of them is spoken."""

    def __init__(self, *, is_v1: bool) -> None:
        super().__init__(status=True)
        self.is_v1 = is_v1
        self.status_shape = (("currentReplicas", 0), ("desiredReplicas", 0)) if is_v1 else (("desiredReplicas", 0),)

    def new_status(self, obj: JSON) -> JSON:
        return super().new_status(obj) if self.is_v1 else {"currentMetrics": None, "desiredReplicas": 0}

    def default(self, obj: JSON) -> None:
        super().default(obj)
        spec = obj["spec"] = obj.get("spec") or {}
        if spec.get("minReplicas") is None:
            spec["minReplicas"] = 1
        if (behavior := spec.get("behavior")) is not None:
            for direction, rules in _BEHAVIORS.items():
                behavior[direction] = deepcopy(rules) | {
                    key: value for key, value in (behavior.get(direction) or {}).items() if value is not None
                }
        if self.is_v1:
            held = (metadata_of(obj).get("annotations") or {}).get(_METRICS)
            if spec.get("targetCPUUtilizationPercentage") is None and not held:
                spec["targetCPUUtilizationPercentage"] = _DEFAULT_UTILIZATION
        elif not spec.get("metrics"):
            spec["metrics"] = [_cpu_metric(_DEFAULT_UTILIZATION)]

    def check(self, obj: JSON) -> list[FieldError]:
        spec = (to_v2(obj) if self.is_v1 else obj).get("spec") or {}
        low, high = spec.get("minReplicas"), spec.get("maxReplicas") or 0
        errors: list[FieldError] = []
        if low is not None and low < 1:
            errors.append(invalid("spec.minReplicas", low, "must be greater than or equal to 1"))
        if high < 1:
            errors.append(required("spec.maxReplicas", "must be set and greater than 0"))
        if low is not None and high < low:
            errors.append(invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
        errors += _reference_errors(spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef")
        for index, metric in enumerate(objects(spec.get("metrics"))):
            errors += _metric_errors(metric, f"spec.metrics[{index}]")
        return errors


def _reference_errors(ref: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("kind", "name"):
        if not (text := ref.get(key)):
            errors.append(required(f"{path}.{key}"))
        else:
            errors += [invalid(f"{path}.{key}", text, words) for words in path_segment(text)]
    version = ref.get("apiVersion") or ""
    if version.count("/") > 1:
        errors.append(invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
    elif "/" not in version and ref.get("kind") != "ReplicationController":
        errors.append(invalid(f"{path}.apiVersion", version, "apiVersion must specify API group"))
    return errors


def _metric_errors(metric: JSON, path: str) -> list[FieldError]:
    kind = metric.get("type") or ""
    if not kind:
        return [required(f"{path}.type", "must specify a metric source type")]
    errors = choice_errors(f"{path}.type", kind, tuple(_SOURCES))
    if errors:
        return errors
    key = _SOURCES[kind]
    if (source := metric.get(key)) is None:
        return [required(f"{path}.{key}", "must populate information for the given metric source")]
    if kind in ("Resource", "ContainerResource") and not source.get("name"):
        errors.append(required(f"{path}.{key}.name", "must specify a resource name"))
    return errors + _target_errors(source.get("target") or {}, f"{path}.{key}.target")


def _target_errors(target: JSON, path: str) -> list[FieldError]:
    if not target.get("type"):
        return [required(f"{path}.type", "must specify a metric target type")]
    errors: list[FieldError] = []
    if target["type"] not in ("Utilization", "Value", "AverageValue"):
        errors.append(invalid(f"{path}.type", target["type"], "must be either Utilization, Value, or AverageValue"))
    if (percent := target.get("averageUtilization")) is not None and percent < 1:
        errors.append(invalid(f"{path}.averageUtilization", percent, "must be greater than 0"))
    for key in ("value", "averageValue"):
        try:
            positive = target.get(key) is None or parse(target[key]) > 0
        except BadQuantity:
            positive = False
        if not positive:
            errors.append(invalid(f"{path}.{key}", target[key], "must be positive"))
    return errors


def _target_text(metric: JSON, current: JSON) -> str:
    """`cpu: 10%/80%` of one metric."""
    key = _SOURCES.get(metric.get("type") or "", "")
    source, seen = metric.get(key) or {}, (current.get(key) or {}).get("current") or {}
    target = source.get("target") or {}
    label = f"{source.get('name') or ''}: " if key in ("resource", "containerResource") else ""
    if (percent := target.get("averageUtilization")) is not None:
        now = seen.get("averageUtilization")
        return f"{label}{UNKNOWN if now is None else f'{now}%'}/{percent}%"
    if (average := target.get("averageValue")) is not None:
        return f"{label}{seen.get('averageValue') or UNKNOWN}/{average}" + (
            " (avg)" if not label and key != "pods" else ""
        )
    return f"{label}{seen.get('value') or UNKNOWN}/{target.get('value') or '<auto>'}"


def _targets(spec: JSON, status: JSON) -> str:
    metrics, current = objects(spec.get("metrics")), objects(status.get("currentMetrics"))
    if not metrics:
        return NONE
    texts = [
        _target_text(metric, current[index] if index < len(current) else {}) for index, metric in enumerate(metrics)
    ]
    more = f" + {len(texts) - _SHOWN} more..." if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _cells(obj: JSON, now: float) -> list[Any]:
    if obj.get("apiVersion") == "autoscaling/v1":
        obj = to_v2(obj)
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ref, low = spec.get("scaleTargetRef") or {}, spec.get("minReplicas")
    return [
        f"{ref.get('kind') or ''}/{ref.get('name') or ''}",
        _targets(spec, status),
        "<unset>" if low is None else str(low),
        spec.get("maxReplicas") or 0,
        status.get("currentReplicas") or 0,
        age(obj, now),
    ]


_TABLE = table(
    column("Reference", "HorizontalPodAutoscalerSpec.scaleTargetRef"),
    column("Targets", "HorizontalPodAutoscalerSpec.metrics"),
    column("MinPods", "HorizontalPodAutoscalerSpec.minReplicas"),
    column("MaxPods", "HorizontalPodAutoscalerSpec.maxReplicas"),
    column("Replicas", "HorizontalPodAutoscalerStatus.currentReplicas"),
    AGE,
    cells=_cells,
)


def rows() -> tuple[Resource, ...]:
    def row(group: Group, conversion: Conversion | None) -> Resource:
        return group.row(
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            HorizontalPodAutoscalerStrategy(is_v1=conversion is not None),
            table=_TABLE,
            short=("hpa",),
            categories=("all",),
            subresources=(status_of("HorizontalPodAutoscaler"),),
            conversion=conversion,
        )

    return row(V2, None), row(V1, Conversion(to_v2, from_v2))
