"""The scale subresource: how many replicas, and which pods they are.

My job: `autoscaling/v1 Scale` out of Deployments, ReplicaSets, StatefulSets and ReplicationControllers, what may stand
in one, and its effect on them. Pure: the registry stores the answer.
"""

from typing import Any

from miniapiserver.errors import FieldError, invalid
from miniapiserver.resources.columns import selector_text

JSON = dict[str, Any]

_COPIED = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def _selector(obj: JSON) -> str:
    selector = (obj.get("spec") or {}).get("selector")
    if not selector:
        return ""
    plain = not ("matchLabels" in selector or "matchExpressions" in selector)  # ReplicationControllers have a plain map
    text = selector_text({"matchLabels": selector} if plain else selector)
    return "" if text == "<none>" else text


def scale_from(obj: JSON) -> JSON:
    """The Scale of an object."""
    meta, status = obj.get("metadata") or {}, {"replicas": (obj.get("status") or {}).get("replicas") or 0}
    if selector := _selector(obj):
        status["selector"] = selector
    replicas = (obj.get("spec") or {}).get("replicas")
    return {"kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {key: meta[key] for key in _COPIED if meta.get(key) is not None},
            "spec": {} if not replicas else {"replicas": replicas}, "status": status}


def scale_errors(scale: JSON) -> list[FieldError]:
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    return [] if replicas >= 0 else [invalid("spec.replicas", replicas, "must be greater than or equal to 0")]


def scale_into(obj: JSON, scale: JSON) -> JSON:
    """The object with the Scale's replicas, and its resourceVersion if it has one."""
    meta = dict(obj.get("metadata") or {})
    if version := (scale.get("metadata") or {}).get("resourceVersion"):
        meta["resourceVersion"] = version
    return obj | {
        "metadata": meta,
        "spec": (obj.get("spec") or {}) | {"replicas": (scale.get("spec") or {}).get("replicas") or 0},
    }
