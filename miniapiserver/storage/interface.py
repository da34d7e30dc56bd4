"""Storage as etcd models it: one global revision, compare-and-swap writes, watch from a revision, compaction.

My job: the words both implementations speak and the errors they raise. I own nothing; `sqlite` and `etcd` implement
me, `watchcache` and `registry` use me. A write that returned is on disk; a write that raised anything but
`StorageUnavailable` did not happen.
"""

import enum
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self


class StorageError(Exception):
    """Root of everything storage raises."""


class KeyExists(StorageError):
    """create: the key is already there."""


class Conflict(StorageError):
    """update/delete: the key is not at the expected revision. `current` is what is there now, None if absent."""

    def __init__(self, key: str, current: "KeyValue | None") -> None:
        super().__init__(f"{key} is not at the expected revision")
        self.key, self.current = key, current


class Compacted(StorageError):
    """The asked revision is older than what is kept. `oldest` is the first revision that can still be read."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revisions before {oldest} are compacted")
        self.oldest = oldest


class FutureRevision(StorageError):
    """The asked revision does not exist yet."""

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(f"revision {asked} is not written yet, the current one is {current}")
        self.asked, self.current = asked, current


class StorageUnavailable(StorageError):
    """The engine cannot answer now (disk full, etcd gone). The outcome of a write is unknown."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    key: str
    value: bytes
    create_revision: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class RangeResult:
    """One page, in key order. `revision` is the store's revision the page shows; `more`: keys remain after the last
    one; `count`: how many keys the range holds from `start` on, whatever the limit."""

    items: Sequence[KeyValue]
    revision: int
    more: bool
    count: int


class EventType(enum.Enum):
    PUT = "put"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Event:
    """`value` is the state after a PUT (None for DELETE), `previous` the state before (None for a key's first PUT)."""

    type: EventType
    key: str
    revision: int
    value: KeyValue | None
    previous: KeyValue | None


class Storage(Protocol):
    """A key space ordered by key. All revisions are positive and grow by one per committed write."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None: ...

    async def current_revision(self) -> int: ...

    async def get(self, key: str) -> KeyValue | None: ...

    async def range(self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0) -> RangeResult:
        """Keys beginning with `prefix` that are >= `start`; `limit` 0 = all; `revision` 0 = now.

        Raises Compacted, FutureRevision.
        """
        ...

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        """Raises KeyExists. `ttl` in seconds: the key is deleted (with a DELETE event) once it has passed."""
        ...

    async def update(self, key: str, value: bytes, *, expected: int, ttl: float | None = None) -> int:
        """Replace the value if mod_revision is `expected`. Raises Conflict."""
        ...

    async def delete(self, key: str, *, expected: int) -> int:
        """Remove the key if mod_revision is `expected`. Raises Conflict."""
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Sequence[Event], None]:
        """Batches of events with revision > `after`, in revision order, without gaps, until the iterator is closed.

        An empty batch is a progress notice; the first batch may be one, saying that the watch stands. Raises Compacted
        when `after` is below what was compacted to, StorageUnavailable when the engine is lost.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`: ranges at it and watches after it still work. The current state stays.

        Raises FutureRevision; what is compacted already stays so.
        """
        ...
