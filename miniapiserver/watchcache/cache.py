"""The objects of one resource, serialized, with their recent history and their watchers.

My job: answer GET, LIST and WATCH from memory. One `WatchCache` per storage prefix, loaded at first use; `caches` feeds
it the events of the one upstream watch. I own the objects and the watches; I never write except through storage.
Everything without `await` sees one consistent state.
"""

import asyncio
import logging
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from heapq import merge
from typing import TYPE_CHECKING

from miniapiserver.storage.interface import Event, KeyValue, StorageUnavailable
from miniapiserver.watchcache.cached import Cached, Extract, splice
from miniapiserver.watchcache.events import Change, Predicate, WatchEvent, bookmark
from miniapiserver.watchcache.history import History
from miniapiserver.watchcache.watch import Watch

if TYPE_CHECKING:
    from miniapiserver.watchcache.caches import WatchCaches

log = logging.getLogger(__name__)

LOAD_PAGE = 1000
BACKFILL_TIMEOUT = 5.0

Scope = tuple[str | None, str | None]


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list. `next_key` starts the next page ("" at the end); `remaining` is None when a selector filters."""

    items: list[Cached]
    revision: int
    next_key: str
    remaining: int | None


class WatchCache:
    """Lives as long as the API server. Call `start` before anything synchronous; it is cheap once `ready`."""

    def __init__(self, caches: "WatchCaches", prefix: str, extract: Extract, *, kind: str = "",
                 api_version: str = "") -> None:
        self.prefix = prefix
        self.kind, self.api_version = kind, api_version
        self._caches, self._storage, self._extract = caches, caches.storage, extract
        self._objects: dict[str, Cached] = {}
        self._keys: list[str] = []
        self._history = History(0)
        self._watches: dict[Scope, dict[Watch, None]] = {}
        self._loading: list[Event] | None = None
        self._loaded = 0  # the revision the load showed; older events are in it already
        self._lock = asyncio.Lock()
        self._observers: list[Callable[[Change | None], None]] = []
        self.ready = False

    # --- loading

    async def start(self) -> None:
        """Load the prefix once. Raises StorageUnavailable; calling again tries again."""
        async with self._lock:
            if not self.ready:
                await self._caches.wait_following()
                self._loading = []
                try:
                    objects, revision = await self._load()
                    self._install(objects, revision, self._loading)
                finally:
                    self._loading = None

    async def _load(self) -> tuple[dict[str, Cached], int]:
        objects: dict[str, Cached] = {}
        start, revision, more = "", 0, True
        while more:
            page = await self._storage.range(self.prefix, start=start, limit=LOAD_PAGE, revision=revision)
            objects.update((item.key, cached) for item in page.items if (cached := self._readable(item)))
            revision, more = page.revision, page.more
            if page.items:
                start = page.items[-1].key + "\0"
        return objects, revision

    def _install(self, objects: dict[str, Cached], revision: int, waiting: Sequence[Event]) -> None:
        self._objects, self._keys = objects, list(objects)
        self._history, self._loaded = History(revision), revision
        self._loading, self.ready = None, True
        for event in waiting:
            self.apply(event)
        self._tell(None)

    def observe(self, observer: Callable[[Change | None], None]) -> None:
        """Call `observer` with each change as it is applied, and with None when everything may have changed. For
        indexes that live as long as the cache; it must be quick and must not raise."""
        self._observers.append(observer)

    def _tell(self, change: Change | None) -> None:
        for observer in self._observers:
            observer(change)

    def reset(self) -> None:
        """The upstream watch lost events: forget everything, end all watches; the next use loads again."""
        self.ready = False
        self._objects, self._keys, self._history = {}, [], History(0)
        for watch in self.watches():
            watch.end()
        self._tell(None)

    def _readable(self, item: KeyValue) -> Cached | None:
        """A value that somebody else put under our prefix (protobuf, say) is as good as absent."""
        try:
            return self._cached(item)
        except ValueError:
            log.error("watchcache.unreadable key=%s revision=%d", item.key, item.mod_revision)
            return None

    def _cached(self, item: KeyValue) -> Cached:
        namespace, _, name = item.key[len(self.prefix):].rpartition("/")
        revision = item.mod_revision
        return Cached(item.key, namespace, name, revision, splice(item.value, revision), self._extract)

    # --- events from upstream

    def apply(self, event: Event) -> None:
        if self._loading is not None:
            self._loading.append(event)
        elif self.ready and event.revision > self._loaded:
            previous = self._objects.get(event.key)
            current = self._readable(event.value) if event.value is not None else None
            self._store(event.key, previous, current)
            change = Change(event.key, event.revision, current, previous)
            self._history.append(change)
            self._tell(change)
            self._publish(change, current or previous)

    def _store(self, key: str, previous: Cached | None, current: Cached | None) -> None:
        if current is not None:
            if previous is None:
                insort(self._keys, key)
            self._objects[key] = current
        elif previous is not None:
            del self._objects[key]
            del self._keys[bisect_left(self._keys, key)]

    def _publish(self, change: Change, touched: Cached | None) -> None:
        if touched is None or not self._watches:
            return
        namespace, name = touched.namespace, touched.name
        for scope in ((None, None), (namespace, None), (None, name), (namespace, name)):
            for watch in tuple(self._watches.get(scope, ())):
                watch.offer(change)
        change.forget_events()

    # --- reading

    @property
    def revision(self) -> int:
        """Everything up to here is shown."""
        return max(self._caches.revision, self._loaded)

    async def wait_until(self, revision: int, timeout: float = 3.0) -> None:
        """Raises FutureRevision if the store does not get there in time."""
        if revision > self.revision:
            await self._caches.wait_until(revision, timeout)

    async def fresh(self) -> None:
        """Be at least as new as the store was when this was called (a consistent read)."""
        if not self.ready:
            await self.start()
        await self.wait_until(await self._storage.current_revision())

    def get(self, key: str) -> Cached | None:
        return self._objects.get(key)

    async def get_fresh(self, key: str) -> Cached | None:
        await self.fresh()
        return self._objects.get(key)

    def key(self, namespace: str, name: str) -> str:
        return f"{self.prefix}{namespace}/{name}" if namespace else self.prefix + name

    def count(self) -> int:
        return len(self._keys)

    def list(self, namespace: str | None = None, selects: Predicate | None = None, *, limit: int = 0,
             start: str = "") -> Page:
        """The cached state, in key order; `start` and `next_key` are whole keys."""
        low, high = self._span(namespace, start)
        if not limit:
            items = [self._objects[key] for key in self._keys[low:high]]
            chosen = items if selects is None else [item for item in items if selects(item)]
            return Page(chosen, self.revision, "", None)
        chosen = []
        position = low
        while position < high and len(chosen) < limit:
            item = self._objects[self._keys[position]]
            position += 1
            if selects is None or selects(item):
                chosen.append(item)
        if position >= high:
            return Page(chosen, self.revision, "", None)
        remaining = high - position if selects is None else None
        return Page(chosen, self.revision, self._keys[position - 1] + "\0", remaining)

    def _span(self, namespace: str | None, start: str) -> tuple[int, int]:
        low, high = self._bounds(namespace, start)
        return bisect_left(self._keys, low), bisect_left(self._keys, high)

    def _bounds(self, namespace: str | None, start: str) -> tuple[str, str]:
        """First key wanted, first key behind: "0" is what follows "/"."""
        scope = f"{self.prefix}{namespace}/" if namespace else self.prefix
        return max(scope, start), scope[:-1] + "0"

    async def list_at(self, revision: int, namespace: str | None = None, selects: Predicate | None = None, *,
                      limit: int = 0, start: str = "") -> Page:
        """The state at exactly `revision`. Raises Compacted, FutureRevision."""
        if revision >= self.revision:
            await self.wait_until(revision)
        if revision >= self._history.floor:
            items = self._at(revision, namespace, start)
            return _page(items, revision, selects, limit)
        return await self._from_storage(revision, namespace, selects, limit, start)

    def _at(self, revision: int, namespace: str | None, start: str) -> Iterator[Cached]:
        undone = self._history.undo(revision)
        low, high = self._bounds(namespace, start)
        first, end = self._span(namespace, start)
        extra = sorted(key for key in undone if low <= key < high)
        for key in merge((key for key in self._keys[first:end] if key not in undone), extra):
            item = undone[key] if key in undone else self._objects[key]
            if item is not None:
                yield item

    async def _from_storage(self, revision: int, namespace: str | None, selects: Predicate | None, limit: int,
                            start: str) -> Page:
        prefix = f"{self.prefix}{namespace}/" if namespace else self.prefix
        chosen: list[Cached] = []
        while True:
            page = await self._storage.range(prefix, start=start, limit=limit or LOAD_PAGE, revision=revision)
            for position, item in enumerate(page.items, 1):
                cached = self._readable(item)
                start = item.key + "\0"
                if cached is not None and (selects is None or selects(cached)):
                    chosen.append(cached)
                if limit and len(chosen) == limit and (page.more or position < len(page.items)):
                    return Page(chosen, revision, start, None)
            if not page.more:
                return Page(chosen, revision, "", None)

    # --- watching

    async def watch(self, namespace: str | None = None, name: str | None = None, selects: Predicate | None = None, *,
                    after_revision: int = 0, send_initial: bool = False, bookmarks: bool = False,
                    timeout: float | None = None) -> Watch:
        """Changes after `after_revision`; 0 or `send_initial` begin with the present state (and, with bookmarks and
        `send_initial`, the bookmark that says so). Raises Compacted, StorageUnavailable."""
        if not self.ready:
            await self.start()
        initial: Sequence[Cached] = ()
        if send_initial or not after_revision:
            initial = self._initial(namespace, name, selects)
            after_revision = self.revision
        elif after_revision < self._history.floor:
            await self._backfill(after_revision)
        watch = Watch(namespace=namespace, name=name, selects=selects, after=after_revision, bookmarks=bookmarks,
                      initial=initial, unsubscribe=self._unsubscribe, make_bookmark=self._bookmark)
        if send_initial and bookmarks:
            watch.put(bookmark(self.kind, self.api_version, self.revision, initial_events_end=True))
        for change in self._history.after(after_revision):
            touched = change.current or change.previous
            if touched and namespace in (None, touched.namespace) and name in (None, touched.name):
                watch.offer(change)
        self._watches.setdefault((namespace, name), {})[watch] = None
        if timeout is not None:
            watch.end_after(timeout)
        return watch

    def _initial(self, namespace: str | None, name: str | None, selects: Predicate | None) -> Sequence[Cached]:
        if name is None:
            return self.list(namespace, selects).items
        if namespace is not None:
            item = self.get(self.key(namespace, name))
            return [item] if item and (selects is None or selects(item)) else []
        return [item for item in self.list(None, selects).items if item.name == name]

    async def _backfill(self, after: int) -> None:
        """Read from storage the changes between `after` and the oldest one in memory: after a restart of the API
        server clients go on where they were. Every revision has an event somewhere, so the end is always seen."""
        floor = self._history.floor
        events: list[Event] = []
        try:
            async with asyncio.timeout(BACKFILL_TIMEOUT):
                async with aclosing(self._storage.watch("", after=after)) as upstream:
                    async for batch in upstream:
                        events += [event for event in batch
                                   if event.revision <= floor and event.key.startswith(self.prefix)]
                        if batch and batch[-1].revision >= floor:
                            break
        except TimeoutError:
            raise StorageUnavailable(f"history of {self.prefix} after {after} took too long") from None
        if self.ready and self._history.floor == floor:
            self._history.extend_back(after, [self._change(event) for event in events])

    def _change(self, event: Event) -> Change:
        current = self._readable(event.value) if event.value else None
        return Change(event.key, event.revision, current, self._readable(event.previous) if event.previous else None)

    def watches(self) -> Sequence[Watch]:
        return [watch for scope in self._watches.values() for watch in scope]

    def _unsubscribe(self, watch: Watch) -> None:
        scope = (watch.namespace, watch.name)
        remaining = self._watches.get(scope, {})
        remaining.pop(watch, None)
        if not remaining:
            self._watches.pop(scope, None)

    def _bookmark(self) -> WatchEvent:
        return bookmark(self.kind, self.api_version, self.revision)

    def send_bookmarks(self) -> None:
        """One bookmark, shared by all who want any."""
        if self.ready and (wanting := [watch for watch in self.watches() if watch.wants_bookmarks]):
            event = self._bookmark()
            for watch in wanting:
                watch.put(event)

    # --- writing: returns when the cache shows the write

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        return await self._shown(await self._storage.create(key, value, ttl=ttl))

    async def update(self, key: str, value: bytes, *, expected: int, ttl: float | None = None) -> int:
        return await self._shown(await self._storage.update(key, value, expected=expected, ttl=ttl))

    async def delete(self, key: str, *, expected: int) -> int:
        return await self._shown(await self._storage.delete(key, expected=expected))

    async def _shown(self, revision: int) -> int:
        if revision > self._caches.revision and self.ready:
            await self._caches.catch_up(revision)
        return revision


def _page(items: Iterator[Cached], revision: int, selects: Predicate | None, limit: int) -> Page:
    chosen: list[Cached] = []
    for item in items:
        if limit and len(chosen) == limit:
            last = chosen[-1].key
            return Page(chosen, revision, last + "\0", None if selects else 1 + sum(1 for _ in items))
        if selects is None or selects(item):
            chosen.append(item)
    return Page(chosen, revision, "", None)
