"""Evicting a pod: a delete that disruption budgets may refuse (`registry/core/pod/storage/eviction.go`).

My job: find the budgets of a pod, take one disruption from the budget, delete. `endpoints.subresources` calls me.
"""

from typing import Any

from miniapiserver.errors import InternalError, TooManyRequests
from miniapiserver.registry.call import Call
from miniapiserver.registry.deletion import delete
from miniapiserver.registry.options import DeleteOptions, delete_options
from miniapiserver.registry.registry import Registry
from miniapiserver.registry.update import replace_raw
from miniapiserver.selectors import label_selector_from

JSON = dict[str, Any]

BUDGETS = "poddisruptionbudgets.policy"
REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
#: Upstream's bound on pods that are going but not gone.
MOST_DISRUPTED = 2000


async def evict(registry: Registry, namespace: str, name: str, eviction: JSON, call: Call) -> None:
    """Raises NotFound, TooManyRequests (the budget says no), InternalError (several budgets)."""
    store = registry.store_of("pods")
    pod = store.read(namespace, name)
    options = delete_options({}, [], eviction.get("deleteOptions") or {})
    options = DeleteOptions(options.dry_run or call.options.dry_run, options.grace, options.uid, options.resource_version,
                            options.propagation)
    if not _needs_no_budget(pod):
        await registry.ready_storage(BUDGETS)
        budgets = [item for item in registry.list(BUDGETS, namespace) if _covers(item, pod)]
        if len(budgets) > 1:
            raise InternalError("This pod has more than one PodDisruptionBudget, which the eviction subresource does not "
                                "support.")
        if budgets and not _is_unready_and_free(budgets[0], pod):
            await _take_disruption(registry, budgets[0], name, call, options.dry_run)
    if not options.dry_run:
        await replace_raw(store, namespace, name, lambda obj: _marked(obj, call.clock.rfc3339()))
    await delete(store, namespace, name, options, call, registry.allocator(store.row))


def _needs_no_budget(pod: JSON) -> bool:
    status = pod.get("status") or {}
    return bool(pod["metadata"].get("deletionTimestamp")) or status.get("phase") in ("Succeeded", "Failed", "Pending")


def _covers(budget: JSON, pod: JSON) -> bool:
    selector = label_selector_from((budget.get("spec") or {}).get("selector"))
    return selector is not None and selector.matches(pod["metadata"].get("labels") or {})


def _is_unready_and_free(budget: JSON, pod: JSON) -> bool:
    """A pod that is not ready does not count against the budget when the policy says so or enough others are healthy."""
    ready = any(item.get("type") == "Ready" and item.get("status") == "True"
                for item in (pod.get("status") or {}).get("conditions") or [])
    status = budget.get("status") or {}
    always = (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow"
    return not ready and (always or status.get("currentHealthy", 0) >= max(status.get("desiredHealthy", 0), 1))


async def _take_disruption(registry: Registry, budget: JSON, pod: str, call: Call, dry_run: bool) -> None:
    name, namespace = budget["metadata"]["name"], budget["metadata"]["namespace"]

    def taken(current: JSON) -> JSON:
        _check(current)
        status = current["status"]
        status["disruptionsAllowed"] = status.get("disruptionsAllowed", 0) - 1
        status.setdefault("disruptedPods", {})[pod] = call.clock.rfc3339()
        return current

    if dry_run:
        _check(budget)
    else:
        await replace_raw(registry.store_of(BUDGETS), namespace, name, taken)


def _check(budget: JSON) -> None:
    """Raises TooManyRequests."""
    metadata, status = budget["metadata"], budget.get("status") or {}
    why, retry = "", 0
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        why, retry = f"The disruption budget {metadata['name']} is still being processed by the server.", 10
    elif len(status.get("disruptedPods") or {}) > MOST_DISRUPTED:
        why = f"The disruption budget {metadata['name']} has too many pods being disrupted."
    elif status.get("disruptionsAllowed", 0) <= 0:
        why = (f"The disruption budget {metadata['name']} needs {status.get('desiredHealthy', 0)} healthy pods and has "
               f"{status.get('currentHealthy', 0)} currently")
    if why:
        raise TooManyRequests(REFUSED, retry_after=retry,
                              details={"causes": [{"reason": "DisruptionBudget", "message": why}]})


def _marked(pod: JSON, now: str) -> JSON:
    status = pod.setdefault("status", {})
    kept = [item for item in status.get("conditions") or [] if item.get("type") != "DisruptionTarget"]
    status["conditions"] = [*kept, {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                                    "message": "Eviction API: evicting", "lastTransitionTime": now}]
    return pod
