"""scheduling.k8s.io/v1: PriorityClasses."""

from typing import Any

from miniapiserver.errors import FieldError, forbidden_field, not_supported
from miniapiserver.resources.columns import AGE, age, column, table
from miniapiserver.resources.kinds import Group
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

SCHEDULING = Group("scheduling.k8s.io", "v1", "io.k8s.api.scheduling")
_HIGHEST = 1_000_000_000
_SYSTEM = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
_POLICIES = ("PreemptLowerPriority", "Never")


class PriorityClassStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        if obj.get("preemptionPolicy") is None:
            obj["preemptionPolicy"] = "PreemptLowerPriority"
        if obj.get("value") is None:
            obj["value"] = 0

    def content_changed(self, obj: JSON, old: JSON) -> bool:
        return False

    def check(self, obj: JSON) -> list[FieldError]:
        name, value = metadata_of(obj).get("name") or "", obj.get("value") or 0
        errors: list[FieldError] = []
        if name.startswith("system-"):
            if _SYSTEM.get(name) != value:
                errors.append(
                    forbidden_field(
                        "metadata.name",
                        "priority class names with 'system-' prefix are reserved for "
                        "system use only. error: " + _reserved_words(name),
                    )
                )
        elif value > _HIGHEST:
            errors.append(forbidden_field("value", f"maximum allowed value of a user defined priority is {_HIGHEST}"))
        policy = obj.get("preemptionPolicy")
        if policy is not None and policy not in _POLICIES:
            errors.append(not_supported("preemptionPolicy", policy, _POLICIES))
        return errors

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        errors: list[FieldError] = []
        if (obj.get("value") or 0) != (old.get("value") or 0):
            errors.append(forbidden_field("value", "may not be changed in an update."))
        if obj.get("preemptionPolicy") != old.get("preemptionPolicy"):
            errors.append(FieldError("preemptionPolicy", "FieldValueInvalid",
                                     f'Invalid value: "{obj.get("preemptionPolicy") or ""}": field is immutable'))
        return errors


def _reserved_words(name: str) -> str:
    return (
        f"value of {name} PriorityClass must be {_SYSTEM[name]}"
        if name in _SYSTEM
        else f"{name} is not a known system priority class"
    )


_TABLE = table(
    column("Value", "PriorityClass.value", type="integer"),
    column("Global-Default", "PriorityClass.globalDefault", type="boolean"),
    AGE,
    column("PreemptionPolicy", "PriorityClass.preemptionPolicy"),
    cells=lambda obj, now: [
        obj.get("value") or 0,
        bool(obj.get("globalDefault")),
        age(obj, now),
        obj.get("preemptionPolicy") or "",
    ],
)


def rows() -> tuple[Resource, ...]:
    strategy = PriorityClassStrategy(namespaced=False, generation=True)
    return (
        SCHEDULING.row("PriorityClass", "priorityclasses", strategy, namespaced=False, table=_TABLE, short=("pc",)),
    )
