"""What controllers want to know of a pod.

My job: active, ready, available, finished: the words of `pkg/controller/controller_utils.go` and `pkg/api/v1/pod`.
Pure.
"""

import datetime
from typing import Any

JSON = dict[str, Any]

FINISHED = ("Succeeded", "Failed")


def phase(pod: JSON) -> str:
    found: str = (pod.get("status") or {}).get("phase", "")
    return found


def is_finished(pod: JSON) -> bool:
    return phase(pod) in FINISHED


def is_terminating(pod: JSON) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_active(pod: JSON) -> bool:
    return not is_finished(pod) and not is_terminating(pod)


def condition(obj: JSON, kind: str) -> JSON | None:
    conditions = (obj.get("status") or {}).get("conditions") or []
    return next((item for item in conditions if item.get("type") == kind), None)


def is_true(obj: JSON, kind: str) -> bool:
    found = condition(obj, kind)
    return found is not None and found.get("status") == "True"


def is_ready(pod: JSON) -> bool:
    return is_true(pod, "Ready")


def available_in(pod: JSON, min_ready_seconds: float, now: float) -> float | None:
    """Seconds until a ready pod counts as available: 0 now, None while it is not ready."""
    ready = condition(pod, "Ready")
    if ready is None or ready.get("status") != "True":
        return None
    if not min_ready_seconds:
        return 0.0
    return max(0.0, seconds(ready.get("lastTransitionTime") or "") + min_ready_seconds - now)


def seconds(timestamp: str) -> float:
    """RFC3339 as seconds since the epoch; 0 for no time."""
    if not timestamp:
        return 0.0
    return datetime.datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def timestamp(now: float) -> str:
    return datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def with_condition(conditions: list[JSON], new: JSON, now: float, *, updated: bool = False) -> list[JSON]:
    """`conditions` with `new` in place; the transition time moves only when the status does.

    `updated` adds lastUpdateTime, as Deployments have it."""
    old = next((item for item in conditions if item.get("type") == new["type"]), None)
    if old is not None and all(old.get(key) == value for key, value in new.items()):
        return conditions
    moved = old is None or old.get("status") != new["status"]
    entry = new | {"lastTransitionTime": timestamp(now) if moved or old is None else old.get("lastTransitionTime")}
    if updated:
        entry["lastUpdateTime"] = timestamp(now)
    return [*(item for item in conditions if item.get("type") != new["type"]), entry]


def from_template(template: JSON, owner_name: str, namespace: str, reference: JSON) -> JSON:
    """A new pod of a workload, named after it."""
    metadata = template.get("metadata") or {}
    kept = {key: metadata[key] for key in ("labels", "annotations", "finalizers") if metadata.get(key)}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": kept | {"generateName": f"{owner_name}-", "namespace": namespace, "ownerReferences": [reference]},
        "spec": template.get("spec") or {},
    }


def deletion_rank(pod: JSON) -> tuple[Any, ...]:
    """Which pods to delete first when there are too many: smallest first (`ActivePodsWithRanks`)."""
    cost = (pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0")
    restarts = sum(item.get("restartCount", 0) for item in (pod.get("status") or {}).get("containerStatuses") or [])
    return (
        bool(pod["spec"].get("nodeName")),
        {"Pending": 0, "Unknown": 1, "Running": 2}.get(phase(pod), 1),
        is_ready(pod),
        int(cost) if cost.lstrip("-").isdigit() else 0,
        -restarts,
        -seconds(pod["metadata"].get("creationTimestamp", "")),
    )
