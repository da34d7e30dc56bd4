"""One collection of the API server, kept current: list, then watch, for as long as I run.

I own the copy of the objects and the loop that keeps it; subscribers only look. After an interruption I continue the
watch where it was, and list again when the server has forgotten that point (410). Rule: a subscriber sees each object
move from one known state to the next, also across a relist.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from wire.apiclient import APIError, Client, Expired
from wire.errors import ConnectionLost, WireError

JSON = dict[str, Any]
Key = tuple[str, str]
Callback = Callable[[str, JSON | None, JSON | None], None]

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"
FIRST_DELAY, LAST_DELAY = 0.1, 5.0
# A cluster's processes start together: until the first list, for so long, nobody shall oversleep the server's start.
EAGER_SECONDS, EAGER_DELAY = 5.0, 0.2

_log = logging.getLogger("wire.informer")


class Informer:
    """A live copy of `path`. `run` it in a task; wait for `synced` before trusting `objects`.

    Objects are shared: do not change them.
    """

    def __init__(self, client: Client, path: str, **selectors: Any) -> None:
        self.client = client
        self.path = path
        self.objects: dict[Key, JSON] = {}
        self.synced = asyncio.Event()
        self._selectors = selectors
        self._subscribers: list[Callback] = []
        self._resource_version = ""
        self._delay = FIRST_DELAY
        self._eager_until = float("-inf")

    def subscribe(self, callback: Callback) -> None:
        """Call `callback(event_type, new, old)` at each change; what is already known comes at once as ADDED."""
        self._subscribers.append(callback)
        for known in list(self.objects.values()):
            callback(ADDED, known, None)

    def get(self, namespace: str, name: str) -> JSON | None:
        return self.objects.get((namespace, name))

    async def run(self) -> None:
        """Keep the copy current until cancelled. Interruptions are logged and retried with back-off."""
        self._eager_until = time.monotonic() + EAGER_SECONDS
        while True:
            try:
                if not self._resource_version:
                    await self._list()
                await self._watch()
            except Expired:
                _log.debug("watch.expired path=%s", self.path)
                self._resource_version = ""
            except APIError as error:
                # Upstream's reflector lists again after anything but a clean end: an ERROR event may mean
                # that events were missed.
                self._resource_version = ""
                await self._back_off(error)
            except WireError as error:
                await self._back_off(error)

    async def _back_off(self, error: Exception) -> None:
        delay = self._delay * random.uniform(0.5, 1.0)
        is_eager = not self.synced.is_set() and time.monotonic() < self._eager_until
        # Processes start in any order: that the API server is not there yet is no news at first.
        level = logging.DEBUG if is_eager or self._delay <= FIRST_DELAY else logging.WARNING
        _log.log(level, 'informer.retry path=%s in=%.1fs error="%s"', self.path, delay, error)
        self._delay = min(self._delay * 2, EAGER_DELAY if is_eager else LAST_DELAY)
        await asyncio.sleep(delay)

    async def _list(self) -> None:
        # "0": any state the server has at hand; it is the watch that makes it current.
        since = "" if self.synced.is_set() else "0"
        answer = await self.client.list(self.path, resourceVersion=since, **self._selectors)
        kind = str(answer.get("kind", "")).removesuffix("List")
        version = answer.get("apiVersion", "")
        fresh: dict[Key, JSON] = {}
        for item in answer.get("items") or ():
            # Items of a typed list come without these two; watch events have them. One shape for subscribers.
            item.setdefault("kind", kind)
            item.setdefault("apiVersion", version)
            fresh[_key(item)] = item
        self._replace(fresh)
        self._resource_version = answer["metadata"]["resourceVersion"]
        self._delay = FIRST_DELAY
        self.synced.set()

    def _replace(self, fresh: dict[Key, JSON]) -> None:
        for key in [key for key in self.objects if key not in fresh]:
            old = self.objects.pop(key)
            self._tell(DELETED, old, old)
        for key, new in fresh.items():
            old_or_none = self.objects.get(key)
            self.objects[key] = new
            if old_or_none is None:
                self._tell(ADDED, new, None)
            elif _version(old_or_none) != _version(new):
                self._tell(MODIFIED, new, old_or_none)

    async def _watch(self) -> None:
        watch = self.client.watch(self.path, self._resource_version, **self._selectors)
        since, events = time.monotonic(), 0
        async with contextlib.aclosing(watch):  # type: ignore[type-var]
            async for kind, item in watch:
                self._delay = FIRST_DELAY
                events += 1
                if kind != "BOOKMARK":
                    self._apply(kind, item)
                self._resource_version = _version(item)
        if not events and time.monotonic() - since < 1.0:
            # A server that ends watches at once must not make us spin (client-go: "very short watch").
            raise ConnectionLost("the watch ended at once")

    def _apply(self, kind: str, item: JSON) -> None:
        key = _key(item)
        if kind == DELETED:
            old = self.objects.pop(key, None)
            if old is not None:
                self._tell(DELETED, item, old)
            return
        old = self.objects.get(key)
        self.objects[key] = item
        self._tell(ADDED if old is None else MODIFIED, item, old)

    def _tell(self, kind: str, new: JSON | None, old: JSON | None) -> None:
        for callback in self._subscribers:
            callback(kind, new, old)


def _key(item: JSON) -> Key:
    metadata = item["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _version(item: JSON) -> str:
    return item["metadata"].get("resourceVersion") or ""
