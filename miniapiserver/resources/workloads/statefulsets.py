"""StatefulSets."""

from typing import Any

from miniapiserver.errors import FieldError, forbidden_field, invalid, required
from miniapiserver.resources.columns import AGE, CONTAINERS, IMAGES, age, column, container_cells, table
from miniapiserver.resources.kinds import SCALE, Group, status_of
from miniapiserver.resources.names import label_name
from miniapiserver.resources.pods.defaults import default_template
from miniapiserver.resources.quantity import canonicalize
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy
from miniapiserver.resources.workloads.values import (
    count_errors,
    default_template_of,
    running_template_errors,
    selector_errors,
)

JSON = dict[str, Any]

_MUTABLE = ("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy", "minReadySeconds")
_FORBIDDEN = ("updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
              "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden")
_POLICIES = ("OrderedReady", "Parallel")
_RETENTION = ("Delete", "Retain")


class StatefulSetStrategy(ObjectStrategy):
    status_shape = (("replicas", 0), ("availableReplicas", 0))

    def default(self, obj: JSON) -> None:
        super().default(obj)
        spec = obj["spec"] = obj.get("spec") or {}
        if not spec.get("podManagementPolicy"):
            spec["podManagementPolicy"] = "OrderedReady"
        strategy = spec["updateStrategy"] = spec.get("updateStrategy") or {}
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
            strategy["rollingUpdate"] = strategy.get("rollingUpdate") or {}
        if (rolling := strategy.get("rollingUpdate")) is not None:
            if rolling.get("partition") is None:
                rolling["partition"] = 0
            rolling.pop("maxUnavailable", None)  # behind a gate that is off (MaxUnavailableStatefulSet)
        retention = spec["persistentVolumeClaimRetentionPolicy"] = (
            spec.get("persistentVolumeClaimRetentionPolicy") or {}
        )
        for key in ("whenDeleted", "whenScaled"):
            retention[key] = retention.get(key) or "Retain"
        for key, value in (("replicas", 1), ("revisionHistoryLimit", 10)):
            if spec.get(key) is None:
                spec[key] = value
        if spec.get("serviceName") is None:
            spec["serviceName"] = ""
        default_template(default_template_of(spec))
        for claim in spec.get("volumeClaimTemplates") or ():
            if claim is not None:
                _default_claim(claim)

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        policy = spec.get("podManagementPolicy")
        errors: list[FieldError] = []
        if not policy:
            errors.append(required("spec.podManagementPolicy"))
        elif policy not in _POLICIES:
            errors.append(invalid("spec.podManagementPolicy", policy, f"must be '{_POLICIES[0]}' or '{_POLICIES[1]}'"))
        errors += _strategy_errors(spec.get("updateStrategy") or {}) + _retention_errors(spec)
        errors += count_errors(spec, ("replicas", "minReadySeconds"))
        if (start := (spec.get("ordinals") or {}).get("start") or 0) < 0:
            errors.append(invalid("spec.ordinals.start", start, "must be greater than or equal to 0"))
        return errors + selector_errors(spec, "statefulset") + running_template_errors(spec, "StatefulSet")

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
        errors = self.check(obj)
        if any(spec.get(key) != old_spec.get(key) for key in {*spec, *old_spec} - {*_MUTABLE}):
            errors.append(forbidden_field("spec", _FORBIDDEN))
        return errors

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        status = obj.get("status") or {}
        parts = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
        errors = count_errors(status, ("replicas", *parts, "observedGeneration"), "status")
        total = status.get("replicas") or 0
        return errors + [invalid(f"status.{key}", status[key], "cannot be greater than status.replicas")
                         for key in parts if (status.get(key) or 0) > max(total, 0)]


def _default_claim(claim: JSON) -> None:
    claim["kind"], claim["apiVersion"] = "PersistentVolumeClaim", "v1"
    spec = claim["spec"] = claim.get("spec") or {}
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"
    resources = spec["resources"] = spec.get("resources") or {}
    canonicalize(resources.get("requests"))
    canonicalize(resources.get("limits"))
    claim["status"] = (claim.get("status") or {}) | {"phase": "Pending"}


def _strategy_errors(strategy: JSON) -> list[FieldError]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    path = "spec.updateStrategy"
    if not kind:
        return [required(path)]
    if kind == "OnDelete":
        words = "only allowed for updateStrategy 'RollingUpdate'"
        return [invalid(f"{path}.rollingUpdate", rolling, words)] if rolling is not None else []
    if kind != "RollingUpdate":
        return [invalid(path, {"Type": kind, "RollingUpdate": rolling}, "must be 'RollingUpdate' or 'OnDelete'")]
    partition = (rolling or {}).get("partition") or 0
    if partition < 0:
        return [invalid(f"{path}.rollingUpdate.partition", partition, "must be greater than or equal to 0")]
    return []


def _retention_errors(spec: JSON) -> list[FieldError]:
    policy = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    return [FieldError(f"spec.persistentVolumeClaimRetentionPolicy.{key}", "FieldValueNotSupported",
                       f'Unsupported value: "{policy[key]}": supported values: "Delete", "Retain"')
            for key in ("whenDeleted", "whenScaled") if policy.get(key) and policy[key] not in _RETENTION]


def _cells(obj: JSON, now: float) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}", age(obj, now),
            *container_cells(spec.get("template"))]


_TABLE = table(column("Ready", "Number of the pod with ready state"), AGE, CONTAINERS, IMAGES, cells=_cells)


def stateful_set_row(group: Group) -> Resource:
    strategy = StatefulSetStrategy(names=label_name, status=True, generation=True)
    return group.row("StatefulSet", "statefulsets", strategy, table=_TABLE,
                     short=("sts",), categories=("all",), subresources=(SCALE, status_of("StatefulSet")))
