"""coordination.k8s.io/v1: Leases."""

from typing import Any

from miniapiserver.errors import FieldError, invalid
from miniapiserver.resources.columns import AGE, age, column, table
from miniapiserver.resources.kinds import Group
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

COORDINATION = Group("coordination.k8s.io", "v1", "io.k8s.api.coordination")


class LeaseStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        obj["spec"] = obj.get("spec") or {}

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors: list[FieldError] = []
        if (seconds := spec.get("leaseDurationSeconds")) is not None and seconds <= 0:
            errors.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
        if (transitions := spec.get("leaseTransitions")) is not None and transitions < 0:
            errors.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
        return errors


_TABLE = table(column("Holder", "LeaseSpec.holderIdentity"), AGE,
               cells=lambda obj, now: [(obj.get("spec") or {}).get("holderIdentity") or "", age(obj, now)])


def rows() -> tuple[Resource, ...]:
    strategy = LeaseStrategy(create_on_update=True, unconditional_update=False)
    return (COORDINATION.row("Lease", "leases", strategy, table=_TABLE),)
