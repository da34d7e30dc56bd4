"""The garbage collector: what is owned goes with its owner.

My job: a graph of owners over every collection, from copies of metadata only, and three rules: an object whose owners
are all gone is deleted; an owner in foreground deletion goes after its blocking dependents; an owner that orphans
loses its dependents first (`pkg/controller/garbagecollector`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from minicontroller.actions import Action, Delete, Patch
from minicontroller.controller import Controller, Key
from minicontroller.discovery import Collection, collections
from minicontroller.informers import Informers
from wire.apiclient import APIError, Client, NotFound
from wire.errors import WireError
from wire.informer import Informer

JSON = dict[str, Any]

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
#: Never owned, and too many.
IGNORED = frozenset({("", "events"), ("coordination.k8s.io", "leases")})
#: The rest of the cluster starts first: garbage can wait.
START_AFTER_SECONDS = 2.0

log = logging.getLogger("controller")


@dataclass(slots=True)
class Node:
    collection: Collection
    metadata: JSON

    @property
    def owners(self) -> list[JSON]:
        found: list[JSON] = self.metadata.get("ownerReferences") or []
        return found

    @property
    def finalizers(self) -> list[str]:
        found: list[str] = self.metadata.get("finalizers") or []
        return found

    @property
    def path(self) -> str:
        return self.collection.path(self.metadata.get("namespace", ""), self.metadata["name"])


@dataclass(slots=True)
class Graph:
    """Everything by uid, and who depends on whom."""

    nodes: dict[str, Node] = field(default_factory=dict)
    dependents: dict[str, dict[str, None]] = field(default_factory=dict)

    def put(self, node: Node) -> None:
        uid = node.metadata["uid"]
        self.remove(uid)
        self.nodes[uid] = node
        for owner in node.owners:
            self.dependents.setdefault(owner["uid"], {})[uid] = None

    def remove(self, uid: str) -> None:
        old = self.nodes.pop(uid, None)
        for owner in old.owners if old else ():
            remaining = self.dependents.get(owner["uid"], {})
            remaining.pop(uid, None)
            if not remaining:
                self.dependents.pop(owner["uid"], None)

    def depending_on(self, uid: str) -> list[Node]:
        return [self.nodes[found] for found in self.dependents.get(uid, ()) if found in self.nodes]


def blocks(dependent: Node, owner_uid: str) -> bool:
    return any(ref["uid"] == owner_uid and ref.get("blockOwnerDeletion") for ref in dependent.owners)


def decide(graph: Graph, uid: str, absent: Callable[[JSON, Node], bool]) -> list[Action]:
    """What to do about the object `uid`. `absent(reference, node)` says that an owner is certainly gone."""
    node = graph.nodes.get(uid)
    if node is None:
        return []
    if node.metadata.get("deletionTimestamp"):
        return _finish(graph, node)
    if not node.owners:
        return []
    gone = [ref for ref in node.owners if ref["uid"] not in graph.nodes and absent(ref, node)]
    waiting = [ref for ref in node.owners if _waits(graph, ref["uid"])]
    solid = [ref for ref in node.owners if ref not in gone and ref not in waiting]
    if solid:
        return [_without_owners(node, {ref["uid"] for ref in gone + waiting})] if gone or waiting else []
    if waiting:
        has_blocking = any(blocks(item, uid) for item in graph.depending_on(uid))
        return [Delete(node.path, uid, "Foreground" if has_blocking else "Background")]
    propagation = (
        "Orphan" if ORPHAN in node.finalizers else "Foreground" if FOREGROUND in node.finalizers else "Background"
    )
    return [Delete(node.path, uid, propagation)]


def _waits(graph: Graph, uid: str) -> bool:
    owner = graph.nodes.get(uid)
    return owner is not None and bool(owner.metadata.get("deletionTimestamp")) and FOREGROUND in owner.finalizers


def _finish(graph: Graph, owner: Node) -> list[Action]:
    uid = owner.metadata["uid"]
    dependents = graph.depending_on(uid)
    if ORPHAN in owner.finalizers:
        if dependents:
            return [_without_owners(item, {uid}) for item in dependents]
        return [_without_finalizer(owner, ORPHAN)]
    if FOREGROUND in owner.finalizers:
        going = [
            Delete(item.path, item.metadata["uid"], "Background")
            for item in dependents
            if not item.metadata.get("deletionTimestamp")
        ]
        if any(blocks(item, uid) for item in dependents):
            return list(going)
        return [*going, _without_finalizer(owner, FOREGROUND)]
    return []


def _without_owners(node: Node, uids: set[str]) -> Action:
    kept = [ref for ref in node.owners if ref["uid"] not in uids]
    return Patch(
        node.path,
        {
            "metadata": {
                "uid": node.metadata["uid"],
                "resourceVersion": node.metadata["resourceVersion"],
                "ownerReferences": kept or None,
            }
        },
    )


def _without_finalizer(node: Node, name: str) -> Action:
    kept = [item for item in node.finalizers if item != name]
    return Patch(
        node.path,
        {
            "metadata": {
                "uid": node.metadata["uid"],
                "resourceVersion": node.metadata["resourceVersion"],
                "finalizers": kept or None,
            }
        },
    )


class GarbageCollector(Controller):
    """Keys are ("", uid)."""

    name = "garbage"

    def __init__(self, informers: Informers, clock: Callable[[], float] = time.time) -> None:
        self.graph = Graph()
        self._absent: set[tuple[str, str]] = set()
        self._known: dict[str, Collection] = {}
        super().__init__(informers, clock)

    def watch(self) -> None:
        """The collections are not known before discovery: see `run`."""

    def plan(self, key: Key) -> Iterable[Action]:
        return decide(
            self.graph, key[1], lambda ref, node: (ref["uid"], node.metadata.get("namespace", "")) in self._absent
        )

    async def sync(self, key: Key) -> None:
        node = self.graph.nodes.get(key[1])
        if node is not None:
            await self._look_up_absent(node)
        await super().sync(key)

    async def _look_up_absent(self, node: Node) -> None:
        """Ask the API server about owners the graph does not know: the copy may lag, and an owner is only gone if it
        is gone there."""
        namespace = node.metadata.get("namespace", "")
        for ref in node.owners:
            if ref["uid"] in self.graph.nodes or (ref["uid"], namespace) in self._absent:
                continue
            collection = self._collection_of(ref)
            if collection is None:
                continue  # a kind nobody serves: upstream leaves such objects alone, too
            try:
                found = await self.informers.client.get(
                    collection.path(namespace if collection.namespaced else "", ref["name"])
                )
            except NotFound:
                self._absent.add((ref["uid"], namespace))
                continue
            if found["metadata"]["uid"] != ref["uid"]:
                self._absent.add((ref["uid"], namespace))

    def _collection_of(self, reference: JSON) -> Collection | None:
        group = reference["apiVersion"].rpartition("/")[0]
        return next(
            (item for item in self._known.values() if item.group == group and item.kind == reference["kind"]), None
        )

    async def run(self) -> None:
        await asyncio.sleep(START_AFTER_SECONDS)
        async with asyncio.TaskGroup() as group:
            copies = await self._follow_everything(group)
            for copy in copies:
                await copy.synced.wait()
            for uid in list(self.graph.nodes):
                self.queue.add(("", uid))
            await super().run()

    async def _follow_everything(self, group: asyncio.TaskGroup) -> list[Informer]:
        delay = 0.2
        while True:
            try:
                found = await collections(self.informers.client)
                break
            except (APIError, WireError) as error:
                log.warning('garbage.discovery error="%s"', error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10.0)
        copies = []
        metadata_only = MetadataClient(self.informers.client)
        for collection in found:
            if (collection.group, collection.plural) in IGNORED or not {"watch", "delete"} <= collection.verbs:
                continue
            self._known[collection.path()] = collection
            copy = Informer(metadata_only, collection.path())
            copy.subscribe(self._follower(collection))
            group.create_task(copy.run(), name=f"garbage {collection.path()}")
            copies.append(copy)
        return copies

    def _follower(self, collection: Collection) -> Callable[[str, JSON | None, JSON | None], None]:
        def changed(kind: str, new: JSON | None, old: JSON | None) -> None:
            obj = new or old
            assert obj is not None
            uid = obj["metadata"]["uid"]
            if kind == "DELETED":
                self.graph.remove(uid)
                self._absent.add((uid, obj["metadata"].get("namespace", "")))
            else:
                self.graph.put(Node(collection, _slim(obj["metadata"])))
                self.queue.add(("", uid))
            touched = [
                *self.graph.dependents.get(uid, ()),
                *(ref["uid"] for ref in _slim(obj["metadata"]).get("ownerReferences") or []),
            ]
            for other in touched:
                self.queue.add(("", other))

        return changed


def _slim(metadata: JSON) -> JSON:
    """What the graph needs: a cluster has many objects."""
    return {
        key: metadata[key]
        for key in ("name", "namespace", "uid", "resourceVersion", "ownerReferences", "finalizers", "deletionTimestamp")
        if key in metadata
    }


class MetadataClient(Client):
    """The same connection settings, asking for metadata only. A list of it has another name than the one object of a
    watch event, and upstream ends a watch that was asked for by the wrong one."""

    lists_as = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    watches_as = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"

    def __init__(self, client: Client) -> None:
        super().__init__(client.access, user_agent="minicontroller/metadata")
