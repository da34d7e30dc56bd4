"""The live copies all controllers of one identity share.

My job: one informer per collection, however many controllers look at it, and `seen`: wait until the copies show a
write we made, so that no decision is taken on a state older than our own doing (upstream's "expectations", by
resourceVersion instead of counting).
"""

import asyncio
from collections.abc import Iterator
from typing import Any

from wire.apiclient import Client, resource_path
from wire.informer import Informer

JSON = dict[str, Any]

#: How long a copy may lag behind our own write before we go on without it.
SEEN_SECONDS = 5.0


class Informers:
    """Lives as long as its client. Ask for collections with `of` before `run`."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._informers: dict[str, Informer] = {}
        self._revisions: dict[str, int] = {}
        self._moved: dict[str, asyncio.Event] = {}

    def of(self, group: str, version: str, plural: str, **selectors: Any) -> Informer:
        path = resource_path(group, version, plural)
        key = path + "?" + "&".join(f"{name}={value}" for name, value in sorted(selectors.items()))
        found = self._informers.get(key)
        if found is None:
            found = self._informers[key] = Informer(self.client, path, **selectors)
            if not selectors:
                self._moved[path] = asyncio.Event()
                found.subscribe(lambda kind, new, old: self._note(path, new))
        return found

    def run(self, group: asyncio.TaskGroup) -> None:
        for key, informer in self._informers.items():
            group.create_task(informer.run(), name=f"informer {key}")

    async def synced(self) -> None:
        for informer in list(self._informers.values()):
            await informer.synced.wait()

    def _note(self, path: str, obj: JSON | None) -> None:
        if obj is not None:
            revision = int(obj["metadata"].get("resourceVersion") or 0)
            self._revisions[path] = max(self._revisions.get(path, 0), revision)
            moved, self._moved[path] = self._moved[path], asyncio.Event()
            moved.set()

    async def seen(self, written: JSON) -> None:
        """Until the copy of `written`'s collection is at least that new, if there is such a copy."""
        path = next((path for path in self._moved if _is_of(written, self._informers, path)), None)
        revision = int(written.get("metadata", {}).get("resourceVersion") or 0)
        if path is None or not revision:
            return
        try:
            async with asyncio.timeout(SEEN_SECONDS):
                while self._revisions.get(path, 0) < revision:
                    await self._moved[path].wait()
        except TimeoutError:
            return


def _is_of(obj: JSON, informers: dict[str, Informer], path: str) -> bool:
    return path.rsplit("/", 1)[1] == plural_of(obj.get("kind", "")) and _version_in(path) == obj.get("apiVersion")


def _version_in(path: str) -> str:
    parts = path.strip("/").split("/")
    return parts[1] if parts[0] == "api" else f"{parts[1]}/{parts[2]}"


def plural_of(kind: str) -> str:
    """The resource of a built-in kind."""
    lower = kind.lower()
    if lower.endswith("s"):
        return lower if lower.endswith("endpoints") else lower + "es"
    if lower.endswith("y"):
        return lower[:-1] + "ies"
    return lower + "s"


def each(informer: Informer, namespace: str = "") -> Iterator[JSON]:
    """The objects of a copy, of one namespace if given."""
    for (found, _), obj in list(informer.objects.items()):
        if not namespace or found == namespace:
            yield obj
