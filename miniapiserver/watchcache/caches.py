"""All watch caches over one storage, fed by one upstream watch.

My job: follow storage's events of every key, hand each to the cache of its prefix, and know up to which revision the
caches show everything. One watch of everything, not one per prefix: a revision that touched some other prefix then
still tells every cache that it is up to date, which makes consistent reads from memory possible on etcd too. I own the
following task; it lives as long as my `async with`.
"""

import asyncio
import heapq
import logging
from collections.abc import Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

from miniapiserver.storage.interface import Compacted, Event, FutureRevision, Storage, StorageUnavailable
from miniapiserver.watchcache.cache import WatchCache
from miniapiserver.watchcache.cached import Extract

BOOKMARK_INTERVAL = 60.0
RETRY_FIRST, RETRY_MOST = 0.1, 5.0

log = logging.getLogger(__name__)


class WatchCaches:
    """Lives as an async context inside the storage's own."""

    def __init__(self, storage: Storage, root: str = "/registry/") -> None:
        self.storage = storage
        self.revision = 0
        self._root = root
        self._caches: dict[str, WatchCache] = {}
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._sequence = 0
        self._following = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.revision = await self.storage.current_revision()
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._tasks = [self._group.create_task(self._follow(), name="watch cache upstream"),
                       self._group.create_task(self._bookmark_forever(), name="watch cache bookmarks")]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
        for cache in self._caches.values():
            cache.reset()
        # The group hears of a cancellation only: errors of the body are not its own and pass unwrapped.
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        await self._group.__aexit__(*((kind, error, trace) if cancelled else (None, None, None)))

    def cache(self, storage_name: str, extract: Extract, *, kind: str = "", api_version: str = "") -> WatchCache:
        """The cache of `/registry/<storage_name>/`, made at the first call."""
        prefix = f"{self._root}{storage_name}/"
        found = self._caches.get(prefix)
        if found is None:
            found = self._caches[prefix] = WatchCache(self, prefix, extract, kind=kind, api_version=api_version)
        return found

    def forget(self, storage_name: str) -> None:
        """A resource is gone (its CRD was deleted): end its watches."""
        cache = self._caches.pop(f"{self._root}{storage_name}/", None)
        if cache:
            cache.reset()

    # --- following

    async def _follow(self) -> None:
        delay = RETRY_FIRST
        while True:
            try:
                async with aclosing(self.storage.watch("", after=self.revision)) as upstream:
                    async for events in upstream:
                        self._following.set()
                        delay = RETRY_FIRST
                        self._dispatch(events)
            except Compacted as error:
                log.warning("watchcache.reset revision=%d oldest=%d", self.revision, error.oldest)
                self._reset(error.oldest)
            except StorageUnavailable as error:
                self._following.clear()
                log.warning('watchcache.lost reason="%s" retry=%.1fs', error, delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MOST)

    def _reset(self, oldest: int) -> None:
        self.revision = oldest
        for cache in self._caches.values():
            cache.reset()

    def _dispatch(self, events: Sequence[Event]) -> None:
        root = len(self._root)
        for event in events:
            end = event.key.find("/", root)
            cache = self._caches.get(event.key[:end + 1])
            if cache is not None:
                cache.apply(event)
        if events:
            self.revision = events[-1].revision
            self._release()

    async def _bookmark_forever(self) -> None:
        while True:
            await asyncio.sleep(BOOKMARK_INTERVAL)
            for cache in self._caches.values():
                cache.send_bookmarks()

    # --- waiting

    @property
    def is_following(self) -> bool:
        return self._following.is_set()

    async def wait_following(self) -> None:
        """Until the upstream watch stands, so that no event falls between a load and it."""
        await self._following.wait()

    async def wait_until(self, revision: int, timeout: float) -> None:
        """Raises FutureRevision if the store is not there in time."""
        if not await self._reached(revision, timeout):
            raise FutureRevision(revision, self.revision)

    async def catch_up(self, revision: int, timeout: float = 3.0) -> None:
        """After a write: wait for its event, but not for ever. The write is done whatever the watch does."""
        await self._reached(revision, timeout)

    async def _reached(self, revision: int, timeout: float) -> bool:
        if revision <= self.revision:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sequence += 1
        heapq.heappush(self._waiters, (revision, self._sequence, waiter))
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            return False
        return True

    def _release(self) -> None:
        while self._waiters and (self._waiters[0][0] <= self.revision or self._waiters[0][2].done()):
            waiter = heapq.heappop(self._waiters)[2]
            if not waiter.done():
                waiter.set_result(None)
