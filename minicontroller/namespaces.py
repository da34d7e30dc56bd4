"""Namespaces on their way out: delete everything in them, then let them go.

My job: for each namespace with a deletionTimestamp delete the content of every collection, pods first, say in the
conditions what is left, and finalize when nothing is (`pkg/controller/namespace/deletion`).
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from minicontroller.actions import Action
from minicontroller.controller import Controller, Key
from minicontroller.discovery import Collection, collections
from minicontroller.informers import Informers
from minicontroller.podstate import with_condition
from wire.apiclient import APIError, NotFound, resource_path

JSON = dict[str, Any]

#: Pods with grace and finalizers need time; look again soon at first.
LOOK_AGAIN_SECONDS = 0.5


class Namespaces(Controller):
    name = "namespaces"

    def __init__(self, informers: Informers, clock: Callable[[], float] = time.time) -> None:
        super().__init__(informers, clock)
        self.client = informers.client

    def watch(self) -> None:
        self.namespaces = self.on(self.informers.of("", "v1", "namespaces"))

    def plan(self, key: Key) -> Iterable[Action]:
        """Nothing here is decided from copies: what is left must be asked for. See `sync`."""
        return ()

    async def sync(self, key: Key) -> None:
        namespace = self.namespaces.objects.get(key)
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return
        if "kubernetes" not in (namespace["spec"].get("finalizers") or []):
            return
        remaining = await self._empty(key[1])
        if remaining:
            await self._report(namespace, remaining)
            self.queue.add_after(key, LOOK_AGAIN_SECONDS)
        else:
            await self._finalize(namespace)

    async def _empty(self, name: str) -> dict[str, list[JSON]]:
        """Delete the content; what is still there by collection."""
        remaining: dict[str, list[JSON]] = {}
        found = [item for item in await collections(self.client) if item.namespaced and "delete" in item.verbs]
        pods = [item for item in found if item.plural == "pods" and not item.group]
        for collection in [*pods, *(item for item in found if item not in pods)]:
            if left := await self._delete_all(collection, name):
                remaining[collection.plural if not collection.group else f"{collection.plural}.{collection.group}"] = (
                    left
                )
                if collection in pods:
                    break  # what pods use outlives them (KEP-5080)
        return remaining

    async def _delete_all(self, collection: Collection, namespace: str) -> list[JSON]:
        path = collection.path(namespace)
        items = (await self.client.list(path)).get("items") or []
        if not items:
            return []
        if "deletecollection" in collection.verbs:
            await self.client.delete(path)
        else:
            for item in items:
                try:
                    await self.client.delete(collection.path(namespace, item["metadata"]["name"]))
                except NotFound:
                    continue
        left: list[JSON] = (await self.client.list(path)).get("items") or []
        return left

    async def _report(self, namespace: JSON, remaining: dict[str, list[JSON]]) -> None:
        counts = ", ".join(f"{name} has {len(items)} resource instances" for name, items in sorted(remaining.items()))
        finalizers: dict[str, int] = {}
        for items in remaining.values():
            for item in items:
                for finalizer in item["metadata"].get("finalizers") or []:
                    finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
        waiting = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(finalizers.items()))
        conditions = list((namespace.get("status") or {}).get("conditions") or [])
        for entry in (
            _condition(
                "NamespaceDeletionDiscoveryFailure",
                False,
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            _condition(
                "NamespaceDeletionGroupVersionParsingFailure",
                False,
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            _condition(
                "NamespaceDeletionContentFailure",
                False,
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
            _condition(
                "NamespaceContentRemaining", True, "SomeResourcesRemain", f"Some resources are remaining: {counts}"
            ),
            _condition(
                "NamespaceFinalizersRemaining",
                bool(waiting),
                "SomeFinalizersRemain" if waiting else "ContentHasNoFinalizers",
                f"Some content in the namespace has finalizers remaining: {waiting}"
                if waiting
                else "All content-preserving finalizers finished",
            ),
        ):
            conditions = with_condition(conditions, entry, self.clock())
        if conditions != (namespace.get("status") or {}).get("conditions"):
            path = resource_path("", "v1", "namespaces", None, namespace["metadata"]["name"], "status")
            await self.client.patch(path, {"status": {"conditions": conditions}}, "application/merge-patch+json")

    async def _finalize(self, namespace: JSON) -> None:
        name = namespace["metadata"]["name"]
        path = resource_path("", "v1", "namespaces", None, name)
        try:
            current = await self.client.get(path)
            kept = [item for item in current["spec"].get("finalizers") or [] if item != "kubernetes"]
            current["spec"]["finalizers"] = kept
            await self.client.update(f"{path}/finalize", current)
        except NotFound:
            return
        except APIError as error:
            if error.code != 409:
                raise
            self.queue.add(("", name))


def _condition(kind: str, holds: bool, reason: str, message: str) -> JSON:
    return {"type": kind, "status": "True" if holds else "False", "reason": reason, "message": message}
