"""Which of the possible nodes is best?

My job: a score per node: room left, preferred affinity, taints one would rather avoid, spread over nodes. Pure.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from minicontroller.ownership import controller_of
from minicontroller.scheduler.amounts import Amounts, request_of
from minicontroller.scheduler.filters import NodeState
from wire.nodeplacement import term_holds, untolerated

JSON = dict[str, Any]

FULL = 100.0


def least_allocated(pod: JSON, state: NodeState) -> float:
    """The mean share of CPU and memory that would stay free."""
    allocatable = Amounts.of((state.node.get("status") or {}).get("allocatable") or {})
    used = state.used() + request_of(pod)
    shares = []
    for name in ("cpu", "memory"):
        limit = allocatable.values.get(name, Fraction(0))
        if limit:
            shares.append(max(0.0, float(1 - used.values.get(name, Fraction(0)) / limit)))
    return FULL * sum(shares) / len(shares) if shares else 0.0


def preferred(pod: JSON, state: NodeState) -> float:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []
    total = sum(term.get("weight", 0) for term in terms)
    held = sum(term.get("weight", 0) for term in terms if term_holds(term.get("preference") or {}, state.node))
    return FULL * held / total if total else 0.0


def avoided(pod: JSON, state: NodeState) -> float:
    return 0.0 if untolerated(pod["spec"], state.node, ("PreferNoSchedule",)) else FULL


def spread(pod: JSON, state: NodeState) -> float:
    """Fewer pods of the same owner first, then fewer pods."""
    owner = controller_of(pod)
    siblings = sum(
        1
        for other in state.pods.values()
        if owner is not None and (controller_of(other) or {}).get("uid") == owner["uid"]
    )
    return FULL / (1 + siblings) + 1.0 / (1 + len(state.pods))


#: (score, weight): upstream weighs affinity and taints more than room.
SCORES = ((least_allocated, 1.0), (preferred, 2.0), (avoided, 3.0), (spread, 2.0))


def best(pod: JSON, candidates: Sequence[NodeState]) -> NodeState:
    """The highest score; the first by name among equals, so that the choice is reproducible."""
    ranked = sorted(candidates, key=lambda state: state.name)
    return max(ranked, key=lambda state: sum(weight * score(pod, state) for score, weight in SCORES))
