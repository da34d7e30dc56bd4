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
from wire.nodeplacement import is_selected, untolerated

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rejection:
    reason: str
    message: str


def admit(pod: JSON, node: JSON, others: Iterable[JSON]) -> Rejection | None:
    """`others`: the pods already admitted and not ended."""
    if not is_selected(pod["spec"], node):
        return Rejection("NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match "
                                         "Pod's node affinity/selector")
    # NoSchedule is the scheduler's alone.
    if (taint := untolerated(pod["spec"], node, ("NoExecute",))) is not None:
        what = f"{taint['key']}={taint.get('value', '')}:NoExecute"
        why = f"node(s) had taints that the pod didn't tolerate ({what})"
        return Rejection("TaintToleration", f"Pod was rejected: Predicate TaintToleration failed: {why}")
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return _fits(pod, list(others), allocatable)


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
