"""All stores of one API server.

My job: the store of each row, its allocator, and plain reads for those who only look (`objects.Objects`). I own the
stores; the caches belong to `watchcache`, the rows to the TypeTable.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

from miniapiserver.registry.allocation import Allocator, NoAllocation
from miniapiserver.registry.store import Store
from miniapiserver.resources.resource import Resource, TypeTable
from miniapiserver.storage.interface import Storage
from miniapiserver.watchcache import WatchCache, WatchCaches

JSON = dict[str, Any]

NOTHING = NoAllocation()


class Registry:
    """Lives as long as the server. `start` loads the caches that others read without waiting."""

    def __init__(self, table: TypeTable, caches: WatchCaches) -> None:
        self._table, self._caches = table, caches
        self._stores: dict[tuple[str, str, str], Store] = {}
        self._allocators: dict[str, Allocator] = {}

    @property
    def storage(self) -> Storage:
        return self._caches.storage

    @property
    def follows_storage(self) -> bool:
        """Whether what is read here is kept up to date."""
        return self._caches.is_following

    async def start(self, storages: Iterable[str]) -> None:
        """Load these caches now: `get` and `list` answer from them without waiting."""
        for storage in storages:
            await self._cache(storage).start()

    def store(self, row: Resource) -> Store:
        key = (row.group, row.version, row.plural)
        found = self._stores.get(key)
        if found is None or found.row is not row:
            found = self._stores[key] = Store(row, self._cache(row.storage))
        return found

    def store_of(self, storage: str) -> Store:
        """The store of the version that is stored."""
        return self.store(self._stored_row(storage))

    async def ready(self, row: Resource) -> None:
        """Load this row's cache if it is not loaded yet."""
        cache = self.store(row).cache
        if not cache.ready:
            await cache.start()

    async def ready_storage(self, storage: str) -> None:
        await self.ready(self._stored_row(storage))

    def allocator(self, row: Resource) -> Allocator:
        return self._allocators.get(row.storage, NOTHING)

    def allocate(self, storage: str, allocator: Allocator) -> None:
        self._allocators[storage] = allocator

    def _stored_row(self, storage: str) -> Resource:
        return next(row for row in self._table.rows() if row.storage == storage and row.conversion is None)

    def _cache(self, storage: str) -> WatchCache:
        row = self._stored_row(storage)
        return self._caches.cache(storage, row.selectable_fields, kind=row.kind, api_version=row.api_version)

    # --- Objects

    def get(self, storage: str, namespace: str, name: str) -> JSON | None:
        cache = self._cache(storage)
        found = cache.get(cache.key(namespace, name))
        return found.decode() if found is not None else None

    def list(self, storage: str, namespace: str = "") -> Iterable[JSON]:
        return [item.decode() for item in self._cache(storage).list(namespace or None).items]

    async def appears(self, storage: str, namespace: str, name: str, seconds: float) -> JSON | None:
        cache = self._cache(storage)
        if not cache.ready:
            await cache.start()
        found = self.get(storage, namespace, name)
        if found is not None or seconds <= 0:
            return found
        async with await cache.watch(namespace or None, name, after_revision=cache.revision, timeout=seconds) as watch:
            with contextlib.suppress(StopAsyncIteration):
                while self.get(storage, namespace, name) is None:
                    await anext(watch)
        return self.get(storage, namespace, name)
