"""ResourceQuotas and LimitRanges."""

from typing import Any

from miniapiserver.errors import FieldError, invalid, required
from miniapiserver.resources.columns import AGE, NAME_AND_CREATED, age, column, table
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.names import label_key
from miniapiserver.resources.pods.resources import amount_errors
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.quantity import BadQuantity, canonicalize, parse
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

_SCOPES = ("BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating",
           "VolumeAttributesClass")
_LIMITS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
_STANDARD = frozenset(
    (
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "persistentvolumeclaims",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
    )
)


class ResourceQuotaStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        canonicalize(spec.get("hard"))
        if status := obj.get("status"):
            canonicalize(status.get("hard"))
            canonicalize(status.get("used"))

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors: list[FieldError] = []
        for name, amount in (spec.get("hard") or {}).items():
            errors += _quota_name_errors(name, f"spec.hard[{name}]") + amount_errors(name, amount, f"spec.hard[{name}]")
        for scope in spec.get("scopes") or ():
            if scope not in _SCOPES:
                errors.append(invalid("spec.scopes", spec["scopes"], "unsupported scope"))
        return errors

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
        errors = self.check(obj)
        if set(spec.get("scopes") or ()) != set(old_spec.get("scopes") or ()):
            errors.append(invalid("spec.scopes", spec.get("scopes"), "field is immutable"))
        return errors

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        status = obj.get("status") or {}
        return [error for part in ("hard", "used") for name, amount in (status.get(part) or {}).items()
                for error in amount_errors(name, amount, f"status.{part}[{name}]")]


def _quota_name_errors(name: str, path: str) -> list[FieldError]:
    errors = [invalid(path, name, words) for words in label_key(name)]
    plain = "/" not in name and not name.startswith(("count/", "requests.hugepages-", "hugepages-"))
    if not errors and plain and name not in _STANDARD:
        errors.append(invalid(path, name, "must be a standard resource for quota"))
    return errors


def _summary(obj: JSON, limits: bool) -> str:
    """`name: used/hard` of limits, or of everything else."""
    status = obj.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    return ", ".join(f"{name}: {used.get(name) or 0}/{hard[name]}" for name in sorted(hard)
                     if name.startswith("limits.") == limits)


_QUOTAS = table(
    column("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
    column(
        "Limit",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on "
        "the node.",
    ),
    AGE,
    cells=lambda obj, now: [_summary(obj, limits=False), _summary(obj, limits=True), age(obj, now)],
)


class LimitRangeStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        if "limits" not in spec:
            spec["limits"] = None
        for item in spec["limits"] or ():
            if item is None:
                continue
            for part in _LIMITS:
                canonicalize(item.get(part))
            if item.get("type") == "Container":
                _default_container_limits(item)

    def check(self, obj: JSON) -> list[FieldError]:
        errors: list[FieldError] = []
        seen: set[str] = set()
        for index, item in enumerate(objects((obj.get("spec") or {}).get("limits"))):
            where, kind = f"spec.limits[{index}]", item.get("type") or ""
            if not kind:
                errors.append(required(f"{where}.type"))
            elif "/" not in kind and kind not in ("Pod", "Container", "PersistentVolumeClaim"):
                errors.append(invalid(f"{where}.type", kind, "must be a standard limit type or fully qualified"))
            if kind in seen:
                errors.append(FieldError(f"{where}.type", "FieldValueDuplicate", f'Duplicate value: "{kind}"'))
            seen.add(kind)
            errors += _item_errors(item, where)
        return errors


def _default_container_limits(item: JSON) -> None:
    """A default limit is the maximum, a default request the default limit, else the minimum."""
    default = dict(item.get("max") or {}) | (item.get("default") or {})
    request = dict(item.get("min") or {}) | default | (item.get("defaultRequest") or {})
    for key, value in (("default", default), ("defaultRequest", request)):
        if value:
            item[key] = value


def _item_errors(item: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for part in _LIMITS:
        for name, amount in (item.get(part) or {}).items():
            errors += amount_errors(name, amount, f"{path}.{part}[{name}]")
    if errors:
        return errors
    try:
        return _order_errors(item, path)
    except BadQuantity:
        return errors


def _order_errors(item: JSON, path: str) -> list[FieldError]:
    """min ≤ defaultRequest ≤ default ≤ max, for every resource that has both."""
    errors: list[FieldError] = []
    pairs = (
        ("min", "max", "min value {low} is greater than max value {high}", "min"),
        ("min", "defaultRequest", "min value {low} is greater than default request value {high}", "defaultRequest"),
        ("defaultRequest", "max", "default request value {low} is greater than max value {high}", "defaultRequest"),
        (
            "defaultRequest",
            "default",
            "default request value {low} is greater than default limit value {high}",
            "defaultRequest",
        ),
        ("min", "default", "min value {low} is greater than default value {high}", "default"),
        ("default", "max", "default value {low} is greater than max value {high}", "default"),
    )
    for low_key, high_key, words, where in pairs:
        lows, highs = item.get(low_key) or {}, item.get(high_key) or {}
        for name in sorted(set(lows) & set(highs)):
            if parse(lows[name]) > parse(highs[name]):
                text = words.format(low=lows[name], high=highs[name])
                # Of a default below the minimum, upstream shows the minimum.
                shown = lows if (low_key, high_key) == ("min", "default") else item[where]
                errors.append(invalid(f"{path}.{where}[{name}]", shown[name], text))
    return errors


def resource_quota_row(group: Group) -> Resource:
    return group.row("ResourceQuota", "resourcequotas", ResourceQuotaStrategy(status=True, returns_deleted_object=True),
                     table=_QUOTAS, short=("quota",), subresources=(status_of("ResourceQuota"),))


def limit_range_row(group: Group) -> Resource:
    return group.row("LimitRange", "limitranges", LimitRangeStrategy(create_on_update=True), table=NAME_AND_CREATED,
                     short=("limits",))
