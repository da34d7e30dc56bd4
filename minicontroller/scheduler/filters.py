"""May this pod run on that node?

My job: one predicate per reason a node may be refused, in upstream's words (`pkg/scheduler/framework/plugins`). Pure.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from minicontroller.ownership import labels_of, matches
from minicontroller.scheduler.amounts import Amounts, request_of
from wire.nodeplacement import is_selected, tolerates, untolerated

JSON = dict[str, Any]


@dataclass(slots=True)
class NodeState:
    """A node with the pods that are on it or on their way."""

    node: JSON
    pods: dict[str, JSON] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.node["metadata"]["name"])

    def used(self) -> Amounts:
        total = Amounts()
        for pod in self.pods.values():
            total = total + request_of(pod)
        return total


def _unschedulable(pod: JSON, state: NodeState, everywhere: Sequence[NodeState]) -> str:
    if not (state.node.get("spec") or {}).get("unschedulable"):
        return ""
    taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    if any(tolerates(item, taint) for item in pod["spec"].get("tolerations") or []):
        return ""
    return "node(s) were unschedulable"


def _tainted(pod: JSON, state: NodeState, everywhere: Sequence[NodeState]) -> str:
    taint = untolerated(pod["spec"], state.node, ("NoSchedule", "NoExecute"))
    return f"node(s) had untolerated taint(s) {{{taint['key']}: {taint.get('value', '')}}}" if taint else ""


def _misplaced(pod: JSON, state: NodeState, everywhere: Sequence[NodeState]) -> str:
    return "" if is_selected(pod["spec"], state.node) else "node(s) didn't match Pod's node affinity/selector"


def _too_small(pod: JSON, state: NodeState, everywhere: Sequence[NodeState]) -> str:
    allocatable = Amounts.of((state.node.get("status") or {}).get("allocatable") or {})
    missing = (state.used() + request_of(pod)).beyond(allocatable)
    return ", ".join("Too many pods" if name == "pods" else f"Insufficient {name}" for name in missing)


def _port_taken(pod: JSON, state: NodeState, everywhere: Sequence[NodeState]) -> str:
    wanted = set(host_ports(pod))
    taken = {port for other in state.pods.values() for port in host_ports(other)}
    clash = any(
        port == other_port and protocol == other_protocol and (ip == other_ip or "0.0.0.0" in (ip, other_ip))
        for protocol, ip, port in wanted
        for other_protocol, other_ip, other_port in taken
    )
    return "node(s) didn't have free ports for the requested pod ports" if clash else ""


def host_ports(pod: JSON) -> Iterable[tuple[str, str, int]]:
    for container in pod["spec"].get("containers") or []:
        for port in container.get("ports") or []:
            if port.get("hostPort"):
                yield port.get("protocol", "TCP"), port.get("hostIP") or "0.0.0.0", port["hostPort"]


def _pod_affinity(pod: JSON, state: NodeState, everywhere: Sequence[NodeState]) -> str:
    """Required affinity and anti-affinity between pods, and that of the pods already there."""
    affinity = pod["spec"].get("affinity") or {}
    for term in _required(affinity.get("podAffinity")):
        near = _near(term, state, everywhere, pod)
        if not near and not (_matches_itself(term, pod) and not _anywhere(term, everywhere, pod)):
            return "node(s) didn't match pod affinity rules"
    if any(_near(term, state, everywhere, pod) for term in _required(affinity.get("podAntiAffinity"))):
        return "node(s) didn't match pod anti-affinity rules"
    for other_state in everywhere:
        for other in other_state.pods.values():
            for term in _required((other["spec"].get("affinity") or {}).get("podAntiAffinity")):
                if _selects(term, other, pod) and _same_place(term, state, other_state):
                    return "node(s) didn't satisfy existing pods anti-affinity rules"
    return ""


def _required(affinity: JSON | None) -> list[JSON]:
    return (affinity or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or []


def _selects(term: JSON, owner: JSON, pod: JSON) -> bool:
    namespaces = term.get("namespaces") or [owner["metadata"]["namespace"]]
    return pod["metadata"]["namespace"] in namespaces and matches(term.get("labelSelector"), labels_of(pod))


def _same_place(term: JSON, one: NodeState, other: NodeState) -> bool:
    value = labels_of(one.node).get(term.get("topologyKey", ""))
    return value is not None and value == labels_of(other.node).get(term.get("topologyKey", ""))


def _near(term: JSON, state: NodeState, everywhere: Sequence[NodeState], pod: JSON) -> bool:
    return any(
        _same_place(term, state, other) and any(_selects(term, pod, item) for item in other.pods.values())
        for other in everywhere
    )


def _anywhere(term: JSON, everywhere: Sequence[NodeState], pod: JSON) -> bool:
    return any(_selects(term, pod, item) for other in everywhere for item in other.pods.values())


def _matches_itself(term: JSON, pod: JSON) -> bool:
    return _selects(term, pod, pod)


Filter = Callable[[JSON, NodeState, Sequence[NodeState]], str]

#: In upstream's order of cheapness.
FILTERS: tuple[Filter, ...] = (_unschedulable, _tainted, _misplaced, _port_taken, _too_small, _pod_affinity)


def refusal(pod: JSON, state: NodeState, everywhere: Sequence[NodeState]) -> str:
    """Why not on this node; "" when it may."""
    return next((why for check in FILTERS if (why := check(pod, state, everywhere))), "")
