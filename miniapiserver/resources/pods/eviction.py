"""Whether a pod may be evicted, and what its disruption budget says afterwards.

My job: the decision of `pods/eviction` (kubernetes `pkg/registry/core/pod/storage/eviction.go`). Pure: the registry
finds the budgets, stores the new one with compare-and-swap, and deletes the pod.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from miniapiserver.errors import Forbidden, PlainInternal, TooManyRequests
from miniapiserver.resources.pods.binding import set_condition
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.selectors import matches

JSON = dict[str, Any]

_VIOLATED = "Cannot evict pod as it would violate the pod's disruption budget."
_MAX_DISRUPTED = 2000
_UNPROTECTED = ("Succeeded", "Failed", "Pending")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The pod may go. `budget` is the PodDisruptionBudget to store first, None if none is spent."""

    budget: JSON | None = None


def budgets_of(pod: JSON, budgets: Sequence[JSON]) -> list[JSON]:
    """Those of the pod's namespace that select it. An empty selector selects everything (policy/v1)."""
    meta = pod.get("metadata") or {}
    return [budget for budget in budgets
            if (budget.get("metadata") or {}).get("namespace") == meta.get("namespace")
            and matches((budget.get("spec") or {}).get("selector"), meta.get("labels"))]


def decide(pod: JSON, budgets: Sequence[JSON], now: str) -> Verdict:
    """Raises TooManyRequests, Forbidden or PlainInternal when the pod must stay."""
    meta, status = pod.get("metadata") or {}, pod.get("status") or {}
    if status.get("phase") in _UNPROTECTED or meta.get("deletionTimestamp"):
        return Verdict()
    if not (covering := budgets_of(pod, budgets)):
        return Verdict()
    if len(covering) > 1:
        raise PlainInternal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    if not _is_ready(status) and _unhealthy_may_go(covering[0]):
        return Verdict()
    return Verdict(_spend(covering[0], meta.get("name") or "", now))


def _is_ready(status: JSON) -> bool:
    return any(
        item.get("type") == "Ready" and item.get("status") == "True" for item in objects(status.get("conditions"))
    )


def _unhealthy_may_go(budget: JSON) -> bool:
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy") or 0
    return desired > 0 and (status.get("currentHealthy") or 0) >= desired


def _spend(budget: JSON, pod_name: str, now: str) -> JSON:
    meta, status = budget.get("metadata") or {}, budget.get("status") or {}
    name = meta.get("name") or ""
    if (status.get("observedGeneration") or 0) < (meta.get("generation") or 0):
        raise _violation(f"The disruption budget {name} is still being processed by the server.", retry_after=10)
    allowed, disrupted = status.get("disruptionsAllowed") or 0, status.get("disruptedPods") or {}
    if allowed < 0:
        raise Forbidden.resource("poddisruptionbudget", "policy", name, "pdb disruptions allowed is negative")
    if len(disrupted) > _MAX_DISRUPTED:
        raise Forbidden.resource("poddisruptionbudget", "policy", name,
                                 "DisruptedPods map too big - too many evictions not confirmed by PDB controller")
    if allowed == 0:
        raise _violation(f"The disruption budget {name} needs {status.get('desiredHealthy') or 0} healthy pods and has "
                         f"{status.get('currentHealthy') or 0} currently")
    spent = status | {"disruptionsAllowed": allowed - 1, "disruptedPods": disrupted | {pod_name: now}}
    if allowed == 1:
        spent = set_condition(spent, {"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
                                      "message": "", "observedGeneration": meta.get("generation") or 0}, now)
        spent["conditions"] = [
            {key: value for key, value in item.items() if key != "lastProbeTime"} for item in spent["conditions"]
        ]
    return budget | {"status": spent}


def _violation(words: str, retry_after: int | None = None) -> TooManyRequests:
    return TooManyRequests(_VIOLATED, details={"causes": [{"reason": "DisruptionBudget", "message": words}]},
                           retry_after=retry_after)


def evicted(pod: JSON, now: str) -> JSON:
    """The pod with the condition that says why it goes."""
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                 "message": "Eviction API: evicting"}
    return pod | {"status": set_condition(pod.get("status") or {}, condition, now)}
