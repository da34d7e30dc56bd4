"""Live events of a storage engine, from its one writer to its watchers.

My job: hand each committed batch to every open watch whose prefix it touches. I own the queues, one per watch, bounded:
a watch that is not read is failed at the bound, never waited for. Used by `sqlite`, whose writer lives in this process.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from miniapiserver.storage.interface import Event, StorageError, StorageUnavailable

MAX_QUEUED = 65536  # events a watch may lag behind


class Feed:
    """One watch's queue. Lives as a context: leaving it unsubscribes."""

    def __init__(self, feeds: "Feeds", prefix: str) -> None:
        self._feeds = feeds
        self.prefix = prefix
        self._queued: list[Event] = []
        self._error: StorageError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        self._feeds.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._feeds.remove(self)

    async def next(self) -> list[Event]:
        """Everything queued, at least one event."""
        while not self._queued:
            if self._error:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        events, self._queued = self._queued, []
        return events

    def put(self, events: Sequence[Event]) -> None:
        if self._error:
            return
        if len(self._queued) + len(events) > MAX_QUEUED:
            self.fail(StorageUnavailable(f"a watch of {self.prefix} fell {MAX_QUEUED} events behind"))
            return
        self._queued.extend(events)
        self._wake()

    def fail(self, error: StorageError) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)


class Feeds:
    """All open watches of one engine."""

    def __init__(self) -> None:
        self._feeds: dict[Feed, None] = {}

    def open(self, prefix: str) -> Feed:
        return Feed(self, prefix)

    def add(self, feed: Feed) -> None:
        self._feeds[feed] = None

    def remove(self, feed: Feed) -> None:
        self._feeds.pop(feed, None)

    def publish(self, events: Sequence[Event]) -> None:
        for feed in self._feeds:
            wanted = events if not feed.prefix else [event for event in events if event.key.startswith(feed.prefix)]
            if wanted:
                feed.put(wanted)

    def fail(self, error: StorageError) -> None:
        for feed in self._feeds:
            feed.fail(error)
