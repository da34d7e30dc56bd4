"""Evicting a pod: a delete that disruption budgets may refuse.

My job: store what `resources.pods.eviction` decided: first the budget that pays, then the pod's condition, then the
delete. `endpoints.subresources` calls me.
"""

from dataclasses import replace
from typing import Any

from miniapiserver.registry.call import Call
from miniapiserver.registry.deletion import delete
from miniapiserver.registry.encoding import decode
from miniapiserver.registry.options import delete_options
from miniapiserver.registry.registry import Registry
from miniapiserver.registry.store import StaleWrite
from miniapiserver.registry.update import ATTEMPTS, replace_raw
from miniapiserver.resources.pods import eviction as rules

JSON = dict[str, Any]

BUDGETS = "poddisruptionbudgets.policy"


async def evict(registry: Registry, namespace: str, name: str, eviction: JSON, call: Call) -> None:
    """Raises NotFound, Conflict, TooManyRequests (the budget says no) and what a delete raises."""
    pods = registry.store_of("pods")
    asked = delete_options({}, [], eviction.get("deleteOptions") or {})
    asked = replace(asked, dry_run=asked.dry_run or call.options.dry_run)
    await registry.ready_storage(BUDGETS)
    await _pay(registry, pods.read(namespace, name), call.clock.rfc3339(), asked.dry_run)
    if not asked.dry_run:
        await replace_raw(pods, namespace, name, lambda pod: rules.evicted(pod, call.clock.rfc3339()))
    await delete(pods, namespace, name, asked, call, registry.allocator(pods.row))


async def _pay(registry: Registry, pod: JSON, now: str, dry_run: bool) -> None:
    """Take the disruption from the pod's budget; again when another eviction was faster."""
    budgets = registry.store_of(BUDGETS)
    for attempt in range(ATTEMPTS):
        found = [item.decode() for item in budgets.cache.list(pod["metadata"]["namespace"]).items]
        spent = rules.decide(pod, found, now).budget
        if spent is None or dry_run:
            return
        current = budgets.get(spent["metadata"]["namespace"], spent["metadata"]["name"])
        if decode(current.data)["metadata"]["resourceVersion"] != spent["metadata"]["resourceVersion"]:
            continue
        try:
            await budgets.replace(spent, current)
            return
        except StaleWrite as stale:
            if attempt == ATTEMPTS - 1:
                raise budgets.conflict(spent["metadata"]["name"]) from None
            await budgets.catch_up(stale)
