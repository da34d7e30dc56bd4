"""Whether this node takes a pod: what upstream's kubelet checks once more after the scheduler.

My job: node selector and node affinity, taints with NoExecute, resources, the number of pods (upstream
lifecycle/predicate.go). Pure: the node and its admitted pods in, a rejection or None out. Neighbours: `worker` turns
a rejection into phase Failed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minikubelet.quantity import MILLI, ONE, InvalidQuantity, milli, rounded_up, whole
from wire import podresources

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rejection:
    reason: str
    message: str


def admit(pod: JSON, node: JSON, others: Iterable[JSON]) -> Rejection | None:
    """`others`: the pods already admitted and not ended."""
    labels = node["metadata"].get("labels") or {}
    if not selects(pod, labels, node["metadata"]["name"]):
        return Rejection("NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match "
                                         "Pod's node affinity/selector")
    if (taint := _untolerated(pod, node)) is not None:
        return Rejection("TaintToleration", "Pod was rejected: Predicate TaintToleration failed: node(s) had taints "
                                            f"that the pod didn't tolerate ({taint})")
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return _fits(pod, list(others), allocatable)


def selects(pod: JSON, labels: Mapping[str, str], node_name: str) -> bool:
    spec = pod["spec"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(_term_matches(term, labels, node_name) for term in required.get("nodeSelectorTerms") or ())


def _term_matches(term: JSON, labels: Mapping[str, str], node_name: str) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    return (all(_expression_matches(item, labels) for item in expressions)
            and all(_expression_matches(item, {"metadata.name": node_name}) for item in fields))


def _expression_matches(expression: JSON, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            return _compares(value, values, operator)
    return False


def _compares(value: str | None, values: list[str], operator: str) -> bool:
    try:
        left, right = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right


def _untolerated(pod: JSON, node: JSON) -> str | None:
    """The first NoExecute taint the pod does not tolerate; NoSchedule is the scheduler's alone."""
    tolerations = pod["spec"].get("tolerations") or ()
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") == "NoExecute" and not any(_tolerates(item, taint) for item in tolerations):
            return f"{taint['key']}={taint.get('value', '')}:NoExecute"
    return None


def _tolerates(toleration: JSON, taint: JSON) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def _container_requests(container: Mapping[str, Any]) -> podresources.Amounts:
    """A limit without a request is one: nobody has set the defaults of a static pod."""
    return podresources.container_limits(container) | podresources.container_requests(container)


def _fits(pod: JSON, others: list[JSON], allocatable: Mapping[str, str]) -> Rejection | None:
    try:
        if (limit := allocatable.get("pods")) is not None and len(others) + 1 > whole(limit):
            return _out_of("pods", 1, len(others), whole(limit))
        asked = podresources.requests(pod, _container_requests)
        used: podresources.Amounts = {}
        for other in others:
            used = podresources.add(used, podresources.requests(other, _container_requests))
    except InvalidQuantity as error:
        return Rejection("UnexpectedAdmissionError", f"Pod was rejected: {error}")
    for name, amount in sorted(asked.items()):
        if amount <= 0:
            continue
        unit = MILLI if name == "cpu" else ONE
        wanted, taken = rounded_up(amount, unit), rounded_up(used.get(name, 0), unit)
        capacity = (milli if name == "cpu" else whole)(allocatable.get(name, "0"))
        if wanted + taken > capacity:
            return _out_of(name, wanted, taken, capacity)
    return None


def _out_of(name: str, wanted: int, taken: int, capacity: int) -> Rejection:
    return Rejection(f"OutOf{name}", f"Pod was rejected: Node didn't have enough resource: {name}, "
                                     f"requested: {wanted}, used: {taken}, capacity: {capacity}")
