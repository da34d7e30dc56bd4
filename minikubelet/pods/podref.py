"""Who a pod is, and short ways to read its spec.

My job: the identity workers, events and the server's routes use. Pure. Rule: pods stay plain dicts; only what code
decides on is pulled out.
"""

import enum
from collections.abc import Iterator
from typing import Any

from minikubelet.runtime.interface import PodRef

JSON = dict[str, Any]

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
SOURCE_ANNOTATION = "kubernetes.io/config.source"
HASH_ANNOTATION = "kubernetes.io/config.hash"
SEEN_ANNOTATION = "kubernetes.io/config.seen"


def pod_ref(pod: JSON) -> PodRef:
    meta = pod["metadata"]
    return PodRef(meta.get("namespace", "default"), meta["name"], meta.get("uid", ""))


def full_name(ref: PodRef) -> str:
    """`name_namespace`, as upstream's messages name a pod."""
    return f"{ref.name}_{ref.namespace}"


def long_name(ref: PodRef) -> str:
    """`name_namespace(uid)`, as upstream's CrashLoopBackOff message names it."""
    return f"{ref.name}_{ref.namespace}({ref.uid})"


class ContainerKind(enum.Enum):
    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"
    EPHEMERAL = "ephemeral"


FIELD_OF_KIND = {
    ContainerKind.INIT: "initContainers", ContainerKind.SIDECAR: "initContainers",
    ContainerKind.MAIN: "containers", ContainerKind.EPHEMERAL: "ephemeralContainers",
}
STATUS_OF_KIND = {
    ContainerKind.INIT: "initContainerStatuses", ContainerKind.SIDECAR: "initContainerStatuses",
    ContainerKind.MAIN: "containerStatuses", ContainerKind.EPHEMERAL: "ephemeralContainerStatuses",
}


def containers(pod: JSON) -> Iterator[tuple[ContainerKind, JSON]]:
    """All containers in the order upstream visits them: init, regular, ephemeral."""
    spec = pod["spec"]
    for container in spec.get("initContainers") or ():
        sidecar = container.get("restartPolicy") == "Always"
        yield (ContainerKind.SIDECAR if sidecar else ContainerKind.INIT), container
    for container in spec.get("containers") or ():
        yield ContainerKind.MAIN, container
    for container in spec.get("ephemeralContainers") or ():
        yield ContainerKind.EPHEMERAL, container


def find_container(pod: JSON, name: str) -> tuple[ContainerKind, JSON] | None:
    return next(((kind, container) for kind, container in containers(pod) if container["name"] == name), None)


def field_path(kind: ContainerKind, name: str) -> str:
    """`spec.containers{web}`, the involvedObject.fieldPath of a container's events."""
    return f"spec.{FIELD_OF_KIND[kind]}{{{name}}}"


def restart_policy(pod: JSON) -> str:
    return str(pod["spec"].get("restartPolicy") or "Always")


def is_host_network(pod: JSON) -> bool:
    return bool(pod["spec"].get("hostNetwork"))


def is_mirror(pod: JSON) -> bool:
    return MIRROR_ANNOTATION in (pod["metadata"].get("annotations") or {})


def is_static(pod: JSON) -> bool:
    """Comes from this node's own manifests, not from the API server."""
    source = (pod["metadata"].get("annotations") or {}).get(SOURCE_ANNOTATION)
    return source is not None and source != "api" and not is_mirror(pod)


def is_finished(pod: JSON) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def termination_grace(pod: JSON) -> float:
    """How long the pod's processes may take to end: the deletion's own answer, else the spec's, else 30 s."""
    asked = pod["metadata"].get("deletionGracePeriodSeconds")
    if asked is None:
        asked = pod["spec"].get("terminationGracePeriodSeconds")
    return 30.0 if asked is None else max(float(asked), 0.0)
