"""policy/v1: PodDisruptionBudgets."""

from typing import Any

from miniapiserver.errors import FieldError, invalid
from miniapiserver.resources.columns import AGE, age, column, table
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.names import path_segment_name
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.selectors import label_selector_errors
from miniapiserver.resources.strategy import ObjectStrategy
from miniapiserver.resources.workloads.values import amount_or_percent_errors, at_most_all_errors, count_errors

JSON = dict[str, Any]

POLICY = Group("policy", "v1", "io.k8s.api.policy")
_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


class PodDisruptionBudgetStrategy(ObjectStrategy):
    status_shape = tuple((key, 0) for key in _COUNTS)

    def default(self, obj: JSON) -> None:
        super().default(obj)
        obj["spec"] = obj.get("spec") or {}

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors: list[FieldError] = []
        if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
            internal = {"MinAvailable": spec["minAvailable"], "Selector": spec.get("selector"),
                        "MaxUnavailable": spec["maxUnavailable"],
                        "UnhealthyPodEvictionPolicy": spec.get("unhealthyPodEvictionPolicy")}
            errors.append(invalid("spec", internal, "minAvailable and maxUnavailable cannot be both set"))
        for key in ("minAvailable", "maxUnavailable"):
            if (amount := spec.get(key)) is not None:
                errors += amount_or_percent_errors(amount, f"spec.{key}") + at_most_all_errors(amount, f"spec.{key}")
        errors += label_selector_errors(spec.get("selector"), "spec.selector")
        policy = spec.get("unhealthyPodEvictionPolicy")
        if policy is not None and policy not in ("IfHealthyBudget", "AlwaysAllow"):
            errors.append(
                FieldError(
                    "spec.unhealthyPodEvictionPolicy",
                    "FieldValueNotSupported",
                    f'Unsupported value: "{policy}": supported values: "AlwaysAllow", "IfHealthyBudget"',
                )
            )
        return errors

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        return count_errors(obj.get("status") or {}, _COUNTS, "status")


def _amount(value: Any) -> str:
    return "N/A" if value is None else str(value)


def _cells(obj: JSON, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    return [_amount(spec.get("minAvailable")), _amount(spec.get("maxUnavailable")),
            (obj.get("status") or {}).get("disruptionsAllowed") or 0, age(obj, now)]


_TABLE = table(
    column("Min Available", "The minimum number of pods that must be available."),
    column("Max Unavailable", "The maximum number of pods that may be unavailable."),
    column("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time.", type="integer"), AGE,
    cells=_cells)


def rows() -> tuple[Resource, ...]:
    kind = "PodDisruptionBudget"
    return (
        POLICY.row(
            kind,
            "poddisruptionbudgets",
            PodDisruptionBudgetStrategy(
                names=path_segment_name, status=True, generation=True, unconditional_update=False
            ),
            table=_TABLE,
            short=("pdb",),
            subresources=(status_of(kind),),
        ),
    )
