"""The downward API: fields of a pod and resources of a container as text.

My job: `fieldRef` and `resourceFieldRef` (upstream `pkg/fieldpath`, `pkg/api/v1/resource`). Pure. Neighbours:
`environment`, and `volumes` through the pod's worker. Raises UnknownField for a path that means nothing.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from minikubelet import quantity
from minikubelet.pods.podref import find_container

JSON = dict[str, Any]

_SUBSCRIPT = re.compile(r"^metadata\.(annotations|labels)\['(.*)'\]$")


class UnknownField(ValueError):
    """The path names nothing a pod has."""


def field_value(pod: JSON, path: str) -> str:
    """The text at `path`. The pod must already carry its addresses in its status."""
    meta = pod["metadata"]
    if match := _SUBSCRIPT.match(path):
        return str((meta.get(match[1]) or {}).get(match[2], ""))
    if path in ("metadata.annotations", "metadata.labels"):
        return _map_text(meta.get(path.partition(".")[2]) or {})
    if path in _SIMPLE:
        section, key = _SIMPLE[path]
        return str((pod.get(section) or {}).get(key) or "")
    if path in _ADDRESSES:
        return ",".join(str(item["ip"]) for item in (pod.get("status") or {}).get(_ADDRESSES[path]) or ())
    raise UnknownField(f"unsupported fieldPath: {path}")


_SIMPLE = {
    "metadata.name": ("metadata", "name"), "metadata.namespace": ("metadata", "namespace"),
    "metadata.uid": ("metadata", "uid"), "spec.nodeName": ("spec", "nodeName"),
    "spec.serviceAccountName": ("spec", "serviceAccountName"), "status.podIP": ("status", "podIP"),
    "status.hostIP": ("status", "hostIP"),
}
_ADDRESSES = {"status.podIPs": "podIPs", "status.hostIPs": "hostIPs"}


def _map_text(values: Mapping[str, str]) -> str:
    """`key="value"` lines, sorted, values quoted as Go's %q."""
    return "\n".join(f"{key}={json.dumps(values[key], ensure_ascii=False)}" for key in sorted(values))


def resource_value(pod: JSON, container_name: str, reference: JSON, allocatable: Mapping[str, str]) -> str:
    """A container's limit or request divided by the divisor, rounded up; the node's allocatable where no limit is
    set."""
    found = find_container(pod, reference.get("containerName") or container_name)
    if found is None:
        raise UnknownField(f"container {reference.get('containerName')} not found")
    section, _, name = str(reference.get("resource", "")).partition(".")
    if section not in ("limits", "requests") or not name:
        raise UnknownField(f"unsupported container resource : {reference.get('resource')}")
    resources = found[1].get("resources") or {}
    text = (resources.get(section) or {}).get(name)
    if text is None:
        text = "0" if section == "requests" else allocatable.get(name, "0")
        if section == "requests" and (limit := (resources.get("limits") or {}).get(name)) is not None:
            text = limit
    divisor = quantity.parse(reference.get("divisor") or "1")
    return str(quantity.divided(quantity.parse(text), divisor if divisor else Decimal(1)))
