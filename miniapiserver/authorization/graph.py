"""What belongs to which node: the Node authorizer's graph.

My job: follow pods, persistent volumes, volume attachments and resource slices, and say whether a path leads from an
object to a node (`secret → pv → pvc → pod → node`). I read the watch caches; a changed object is only marked, and
looked at when the next question comes, so that busy pods cost nothing here. Rules:
`plugin/pkg/auth/authorizer/node/graph.go`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from miniapiserver.authorization.references import pod_references, volume_references
from miniapiserver.watchcache import WatchCache
from miniapiserver.watchcache.events import Change

JSON = dict[str, Any]

Vertex = tuple[str, str, str]  # resource, namespace, name


@dataclass(slots=True)
class _Edges:
    """Which vertices point at which; `by_object` remembers what an object added, so that it can be taken back."""

    targets: dict[Vertex, dict[Vertex, int]] = field(default_factory=dict)
    by_object: dict[str, tuple[tuple[Vertex, Vertex], ...]] = field(default_factory=dict)

    def replace(self, key: str, edges: tuple[tuple[Vertex, Vertex], ...]) -> None:
        if self.by_object.get(key, ()) == edges:
            return
        for source, target in self.by_object.pop(key, ()):
            self._remove(source, target)
        for source, target in edges:
            counts = self.targets.setdefault(source, {})
            counts[target] = counts.get(target, 0) + 1
        if edges:
            self.by_object[key] = edges

    def _remove(self, source: Vertex, target: Vertex) -> None:
        counts = self.targets[source]
        counts[target] -= 1
        if not counts[target]:
            del counts[target]
            if not counts:
                del self.targets[source]


class NodeGraph:
    """Lives as long as the server."""

    RESOURCES: ClassVar[dict[str, Callable[[JSON], tuple[tuple[Vertex, Vertex], ...]]]]

    def __init__(self, caches: Mapping[str, WatchCache]) -> None:
        self._caches = caches
        self._edges = _Edges()
        self._changed: dict[str, set[str] | None] = dict.fromkeys(caches)  # None: everything
        for storage, cache in caches.items():
            cache.observe(partial(self._mark, storage))

    async def start(self) -> None:
        for cache in self._caches.values():
            if not cache.ready:
                await cache.start()

    def has_path(self, node: str, resource: str, namespace: str, name: str) -> bool:
        """Whether the object can be reached from the node's own pods, volumes or slices."""
        self._catch_up()
        goal: Vertex = ("nodes", "", node)
        seen: set[Vertex] = set()
        waiting: list[Vertex] = [(resource, namespace, name)]
        while waiting:
            targets = self._edges.targets.get(waiting.pop(), {})
            if goal in targets:
                return True
            fresh = [target for target in targets if target not in seen and target[0] != "nodes"]
            seen.update(fresh)
            waiting += fresh
        return False

    def _mark(self, storage: str, change: Change | None) -> None:
        marked = self._changed.get(storage, set())
        if change is None:
            self._changed[storage] = None
        elif marked is not None:
            marked.add(change.key)
            self._changed[storage] = marked

    def _catch_up(self) -> None:
        for storage, keys in self._changed.items():
            cache, edges_of = self._caches[storage], self.RESOURCES[storage]
            if keys is None:
                known = {key for key in self._edges.by_object if key.startswith(cache.prefix)}
                keys = known | {item.key for item in cache.list().items}
            for key in keys:
                item = cache.get(key)
                self._edges.replace(key, edges_of(item.decode()) if item is not None else ())
        self._changed = {}


def _pod_edges(pod: JSON) -> tuple[tuple[Vertex, Vertex], ...]:
    metadata, node = pod["metadata"], pod["spec"].get("nodeName")
    if not node:
        return ()
    here: Vertex = ("pods", metadata["namespace"], metadata["name"])
    edges: list[tuple[Vertex, Vertex]] = [(here, ("nodes", "", node))]
    # A mirror pod is what the kubelet says it is: it must not open secrets to the kubelet.
    if "kubernetes.io/config.mirror" not in (metadata.get("annotations") or {}):
        edges += [((resource, metadata["namespace"], name), here) for resource, name in pod_references(pod)]
    return tuple(edges)


def _volume_edges(volume: JSON) -> tuple[tuple[Vertex, Vertex], ...]:
    claim = volume["spec"].get("claimRef")
    if not claim:
        return ()
    here: Vertex = ("persistentvolumes", "", volume["metadata"]["name"])
    edges: list[tuple[Vertex, Vertex]] = [
        (here, ("persistentvolumeclaims", claim.get("namespace", ""), claim.get("name", "")))]
    edges += [(("secrets", namespace, name), here) for namespace, name in volume_references(volume)]
    return tuple(edges)


def _attachment_edges(attachment: JSON) -> tuple[tuple[Vertex, Vertex], ...]:
    node = attachment["spec"].get("nodeName")
    here: Vertex = ("volumeattachments", "", attachment["metadata"]["name"])
    return ((here, ("nodes", "", node)),) if node else ()


def _slice_edges(resource_slice: JSON) -> tuple[tuple[Vertex, Vertex], ...]:
    node = resource_slice["spec"].get("nodeName")
    here: Vertex = ("resourceslices", "", resource_slice["metadata"]["name"])
    return ((here, ("nodes", "", node)),) if node else ()


NodeGraph.RESOURCES = {"pods": _pod_edges, "persistentvolumes": _volume_edges,
                       "volumeattachments.storage.k8s.io": _attachment_edges,
                       "resourceslices.resource.k8s.io": _slice_edges}
