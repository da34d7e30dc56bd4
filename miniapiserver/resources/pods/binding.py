"""Binding a pod to a node.

My job: what a Binding may say, and the pod that follows from one. Pure: the registry stores the answer.
"""

from typing import Any

from miniapiserver.errors import Conflict, FieldError, not_supported, required

JSON = dict[str, Any]


def binding_errors(binding: JSON) -> list[FieldError]:
    target = binding.get("target") or {}
    errors = (
        []
        if target.get("kind") in (None, "", "Node")
        else [not_supported("target.kind", target["kind"], ("Node", "<empty>"))]
    )
    return errors if target.get("name") else [*errors, required("target.name")]


def set_condition(status: JSON, condition: JSON, now: str) -> JSON:
    """`status` with `condition` in it; the time of transition moves only when its status does."""
    conditions = [item for item in status.get("conditions") or () if item]
    before = next((item for item in conditions if item.get("type") == condition["type"]), None)
    stamp = before.get("lastTransitionTime") if before and before.get("status") == condition["status"] else now
    entry = {"lastProbeTime": None, "lastTransitionTime": stamp} | condition
    kept = [entry if item is before else item for item in conditions]
    return status | {"conditions": kept if before else [*kept, entry]}


def bind(pod: JSON, binding: JSON, now: str) -> JSON:
    """The pod once it is assigned to `binding.target`. Raises Conflict."""
    meta, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    name = meta.get("name") or ""
    if why := _refusal(name, meta, spec):
        raise Conflict.resource("pods/binding", "", name, why)
    changed = dict(meta)
    for key in ("annotations", "labels"):
        if more := (binding.get("metadata") or {}).get(key):
            changed[key] = (meta.get(key) or {}) | more
    return pod | {"metadata": changed, "spec": spec | {"nodeName": binding["target"]["name"]},
                  "status": set_condition(pod.get("status") or {}, {"type": "PodScheduled", "status": "True"}, now)}


def _refusal(name: str, meta: JSON, spec: JSON) -> str:
    if meta.get("deletionTimestamp"):
        return f"pod {name} is being deleted, cannot be assigned to a host"
    if node := spec.get("nodeName"):
        return f'pod {name} is already assigned to node "{node}"'
    return f"pod {name} has non-empty .spec.schedulingGates" if spec.get("schedulingGates") else ""
