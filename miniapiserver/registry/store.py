"""One resource's objects: read from the watch cache, written to storage.

My job: keys, revisions and storage errors of one row, as API errors. Content is decided by `creation`, `update` and
`deletion`, on top of me. I own no connection: storage and the caches belong to the server.
"""

import contextlib
from typing import Any

from miniapiserver.errors import AlreadyExists, Conflict, NotFound, ServiceUnavailable
from miniapiserver.registry.encoding import decode, encode, with_revision
from miniapiserver.resources.resource import Resource
from miniapiserver.storage import interface as storage_errors
from miniapiserver.watchcache import Cached, WatchCache

JSON = dict[str, Any]

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


class Store:
    """Lives as long as its row is served."""

    def __init__(self, row: Resource, cache: WatchCache) -> None:
        self.row, self.cache = row, cache
        self._prefix = f"/registry/{row.storage}/"

    def key(self, namespace: str, name: str) -> str:
        return f"{self._prefix}{namespace}/{name}" if self.row.namespaced else self._prefix + name

    def not_found(self, name: str) -> NotFound:
        return NotFound.resource(self.row.plural, self.row.group, name)

    def conflict(self, name: str, why: str = MODIFIED) -> Conflict:
        return Conflict.resource(self.row.plural, self.row.group, name, why)

    def find(self, namespace: str, name: str) -> Cached | None:
        return self.cache.get(self.key(namespace, name))

    def get(self, namespace: str, name: str) -> Cached:
        """Raises NotFound."""
        found = self.find(namespace, name)
        if found is None:
            raise self.not_found(name)
        return found

    def read(self, namespace: str, name: str) -> JSON:
        """The object, parsed, with its resourceVersion, in this row's version. Raises NotFound."""
        return self.parse(self.get(namespace, name).data)

    def parse(self, data: bytes) -> JSON:
        obj = decode(data)
        return self.row.conversion.from_storage(obj) if self.row.conversion else obj

    def shown(self, data: bytes) -> bytes:
        """Stored-version bytes in this row's version."""
        if self.row.conversion is None:
            return data
        obj = self.row.conversion.from_storage(decode(data))
        revision = obj["metadata"].get("resourceVersion", "0")
        return with_revision(encode(obj), int(revision))

    async def create(self, obj: JSON) -> bytes:
        """Write a new object and return it as clients see it. Raises AlreadyExists, ServiceUnavailable."""
        value, name = self._encoded(obj), obj["metadata"]["name"]
        key = self.key(obj["metadata"].get("namespace", ""), name)
        try:
            revision = await self.cache.create(key, value, ttl=self.row.ttl)
        except storage_errors.KeyExists:
            raise AlreadyExists.resource(self.row.plural, self.row.group, name) from None
        except storage_errors.StorageUnavailable as error:
            raise ServiceUnavailable(f"storage: {error}") from error
        return self.shown(with_revision(value, revision))

    async def replace(self, obj: JSON, current: Cached) -> bytes:
        """Write `obj` over `current`; without a change nothing is written. Raises StaleWrite, ServiceUnavailable."""
        value = self._encoded(obj)
        shown = with_revision(value, current.revision)
        if shown == current.data or _differ_in_order_only(shown, current.data):
            return self.shown(current.data)
        try:
            revision = await self.cache.update(current.key, value, expected=current.revision, ttl=self.row.ttl)
        except storage_errors.Conflict as error:
            raise StaleWrite(error.current.mod_revision if error.current else 0) from error
        except storage_errors.StorageUnavailable as error:
            raise ServiceUnavailable(f"storage: {error}") from error
        return self.shown(with_revision(value, revision))

    async def remove(self, current: Cached) -> int:
        """Delete at `current`'s revision and return the delete's revision. Raises StaleWrite, ServiceUnavailable."""
        try:
            revision = await self.cache.delete(current.key, expected=current.revision)
        except storage_errors.Conflict as error:
            raise StaleWrite(error.current.mod_revision if error.current else 0) from error
        except storage_errors.StorageUnavailable as error:
            raise ServiceUnavailable(f"storage: {error}") from error
        return revision

    async def catch_up(self, stale: "StaleWrite") -> None:
        """See what was faster, so that the next try does not start from the same old state. Storage answers a conflict
        before the winner is on disk, and only then do we hear of it."""
        with contextlib.suppress(storage_errors.FutureRevision):
            await self.cache.fresh()
            await self.cache.wait_until(stale.revision)

    def _encoded(self, obj: JSON) -> bytes:
        return encode(self.row.conversion.to_storage(obj) if self.row.conversion else obj)


def _differ_in_order_only(one: bytes, other: bytes) -> bool:
    """Clients write keys in any order; the same object is no change. (The same keys and values are equally long.)"""
    return len(one) == len(other) and bool(decode(one) == decode(other))


class StaleWrite(Exception):
    """Somebody else wrote first, at `revision` (0: deleted). Never leaves the registry: it is retried or becomes a
    Conflict."""

    def __init__(self, revision: int = 0) -> None:
        super().__init__(revision)
        self.revision = revision

