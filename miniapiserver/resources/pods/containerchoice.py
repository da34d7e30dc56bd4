"""Which container a request for a pod means.

My job: the choice that log, exec and attach share (kubernetes `pkg/registry/core/pod`), and its words if there is none.
"""

from typing import Any

from miniapiserver.errors import BadRequest
from miniapiserver.resources.pods.values import objects

JSON = dict[str, Any]


def _names(spec: JSON, key: str) -> list[str]:
    return [container.get("name") or "" for container in objects(spec.get(key))]


def choose_container(pod: JSON, container: str) -> str:
    """The container asked for, or the only one. Raises BadRequest."""
    name, spec = (pod.get("metadata") or {}).get("name") or "", pod.get("spec") or {}
    regular, init = _names(spec, "containers"), _names(spec, "initContainers")
    ephemeral = _names(spec, "ephemeralContainers")
    if container:
        if container not in (*regular, *init, *ephemeral):
            raise BadRequest(f"container {container} is not valid for pod {name}")
        return container
    if len(regular) == 1:
        return regular[0]
    words = f"a container name must be specified for pod {name}"
    if regular:
        words += f", choose one of: [{' '.join(regular)}]"
    if regular and init:
        words += f" or one of the init containers: [{' '.join(init)}]"
    if regular and ephemeral:
        words += f" or one of the ephemeral containers: [{' '.join(ephemeral)}]"
    raise BadRequest(words)
