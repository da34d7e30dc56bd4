"""flowcontrol.apiserver.k8s.io/v1: FlowSchemas and PriorityLevelConfigurations."""

from typing import Any

from miniapiserver.errors import FieldError, invalid, not_supported, required
from miniapiserver.resources.columns import AGE, NONE, age, column, table
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

FLOWCONTROL = Group("flowcontrol.apiserver.k8s.io", "v1", "io.k8s.api.flowcontrol")
_PRECEDENCE = 1000
_MAX_PRECEDENCE = 10000


class FlowSchemaStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        if not spec.get("matchingPrecedence"):
            spec["matchingPrecedence"] = _PRECEDENCE
        spec["priorityLevelConfiguration"] = spec.get("priorityLevelConfiguration") or {"name": ""}

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors: list[FieldError] = []
        precedence = spec.get("matchingPrecedence") or 0
        if not 0 < precedence <= _MAX_PRECEDENCE:
            words = "must be a positive value" if precedence <= 0 else f"must not be greater than {_MAX_PRECEDENCE}"
            errors.append(invalid("spec.matchingPrecedence", precedence, words))
        if not (spec.get("priorityLevelConfiguration") or {}).get("name"):
            errors.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
        method = (spec.get("distinguisherMethod") or {}).get("type")
        if method is not None and method not in ("ByUser", "ByNamespace"):
            errors.append(not_supported("spec.distinguisherMethod.type", method, ("ByNamespace", "ByUser")))
        return errors


class PriorityLevelStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        if spec.get("type") == "Exempt":
            exempt = spec["exempt"] = spec.get("exempt") or {}
            defaults: tuple[tuple[str, Any], ...] = (("nominalConcurrencyShares", 0), ("lendablePercent", 0))
        elif (exempt := spec.get("limited")) is not None:
            defaults = (("nominalConcurrencyShares", 30), ("lendablePercent", 0))
            queuing = (exempt.get("limitResponse") or {}).get("queuing")
            for key, value in (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)):
                if queuing is not None and not queuing.get(key):
                    queuing[key] = value
        else:
            return
        for key, value in defaults:
            if exempt.get(key) is None:
                exempt[key] = value

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        kind = spec.get("type") or ""
        if kind not in ("Exempt", "Limited"):
            return [not_supported("spec.type", kind, ("Exempt", "Limited"))]
        if kind == "Limited" and spec.get("limited") is None:
            return [required("spec.limited", "must not be empty when type is Limited")]
        if kind == "Exempt" and spec.get("limited") is not None:
            return [
                FieldError("spec.limited", "FieldValueForbidden", "Forbidden: must be nil if the type is not Limited")
            ]
        return []


def _missing_level(obj: JSON) -> str:
    condition = next(
        (item for item in objects((obj.get("status") or {}).get("conditions")) if item.get("type") == "Dangling"), None
    )
    return str(condition.get("status")) if condition else "?"


def _schema_cells(obj: JSON, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    return [(spec.get("priorityLevelConfiguration") or {}).get("name") or "", spec.get("matchingPrecedence") or 0,
            (spec.get("distinguisherMethod") or {}).get("type") or NONE, age(obj, now), _missing_level(obj)]


def _level_cells(obj: JSON, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    limits = spec.get("limited") or {}
    queuing = (limits.get("limitResponse") or {}).get("queuing") or {}
    shares = (
        limits.get("nominalConcurrencyShares")
        if spec.get("limited")
        else (spec.get("exempt") or {}).get("nominalConcurrencyShares")
    )
    return [spec.get("type") or "", NONE if shares is None else shares,
            *(queuing.get(key) or NONE for key in ("queues", "handSize", "queueLengthLimit")), age(obj, now)]


_SCHEMAS = table(
    column("PriorityLevel", "FlowSchemaSpec.priorityLevelConfiguration"),
    column("MatchingPrecedence", "FlowSchemaSpec.matchingPrecedence", type="integer"),
    column("DistinguisherMethod", "FlowSchemaSpec.distinguisherMethod"), AGE,
    column("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"), cells=_schema_cells)
_LEVELS = table(
    column("Type", "PriorityLevelConfigurationSpec.type"),
    column("NominalConcurrencyShares", "LimitedPriorityLevelConfiguration.nominalConcurrencyShares"),
    column("Queues", "QueuingConfiguration.queues"), column("HandSize", "QueuingConfiguration.handSize"),
    column("QueueLengthLimit", "QueuingConfiguration.queueLengthLimit"), AGE, cells=_level_cells)


def rows() -> tuple[Resource, ...]:
    return (
        FLOWCONTROL.row("FlowSchema", "flowschemas", FlowSchemaStrategy(namespaced=False, status=True, generation=True),
                        namespaced=False, table=_SCHEMAS, subresources=(status_of("FlowSchema"),)),
        FLOWCONTROL.row("PriorityLevelConfiguration", "prioritylevelconfigurations",
                        PriorityLevelStrategy(namespaced=False, status=True, generation=True), namespaced=False,
                        table=_LEVELS, subresources=(status_of("PriorityLevelConfiguration"),)),
    )
