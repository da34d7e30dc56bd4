"""One watcher of a cache.

My job: the events one client still has to get: first the initial state, then what happens. Bounded: a client that
does not keep up is dropped at the bound (its watch ends, it resumes from its last revision), never waited for. I own
the queue and the timers of one watch; `cache` feeds me.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from miniapiserver.watchcache.cached import Cached
from miniapiserver.watchcache.events import Change, Predicate, WatchEvent, WatchEventType

MAX_QUEUED = 4096  # live events one watcher may lag behind
INITIAL_BATCH = 500
LAST_BOOKMARK = 2.0  # seconds before the timeout


class Watch:
    """Lives from `WatchCache.watch` to `close` (or the end of `async with`). Iterate events, or take `batch()`es."""

    def __init__(self, *, namespace: str | None, name: str | None, selects: Predicate | None, after: int,
                 bookmarks: bool, initial: Sequence[Cached], unsubscribe: Callable[["Watch"], None],
                 make_bookmark: Callable[[], WatchEvent]) -> None:
        self.namespace, self.name = namespace, name
        self.wants_bookmarks = bookmarks
        self.dropped = False
        self._selects, self._after = selects, after
        self._initial, self._shown = initial, 0
        self._queue: deque[WatchEvent] = deque()
        self._unsubscribe, self._make_bookmark = unsubscribe, make_bookmark
        self._waiter: asyncio.Future[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._ended = False

    # --- the cache's side

    def offer(self, change: Change) -> None:
        if change.revision > self._after:
            event = change.event() if self._selects is None else change.event_for(self._selects)
            if event is not None:
                self.put(event)

    def put(self, event: WatchEvent) -> None:
        if self._ended:
            return
        if len(self._queue) >= MAX_QUEUED:
            self.dropped = True
            self._queue.clear()
            self.end()
            return
        self._queue.append(event)
        self._wake()

    def end_after(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        if self.wants_bookmarks and timeout > LAST_BOOKMARK:
            self._timers.append(loop.call_later(timeout - LAST_BOOKMARK, self.put_bookmark))
        self._timers.append(loop.call_later(timeout, self.end))

    def put_bookmark(self) -> None:
        if self.wants_bookmarks:
            self.put(self._make_bookmark())

    def end(self) -> None:
        """No further events; what is queued is still delivered."""
        self._ended = True
        self._unsubscribe(self)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- the client's side

    async def batch(self) -> list[WatchEvent]:
        """All events at hand, at least one; an empty list is the end of the watch."""
        if self._shown < len(self._initial) and not self.dropped:
            return self._next_initial()
        while not self._queue:
            if self._ended:
                return []
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        events = list(self._queue)
        self._queue.clear()
        return events

    def _next_initial(self) -> list[WatchEvent]:
        items = self._initial[self._shown:self._shown + INITIAL_BATCH]
        self._shown += len(items)
        if self._shown >= len(self._initial):
            self._initial, self._shown = (), 0
        return [WatchEvent(WatchEventType.ADDED, item.revision, item) for item in items]

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._initial = ()
        self._queue.clear()
        self.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        if self._shown < len(self._initial) and not self.dropped:
            item = self._initial[self._shown]
            self._shown += 1
            return WatchEvent(WatchEventType.ADDED, item.revision, item)
        if not self._queue:
            waiting = await self.batch()
            if not waiting:
                raise StopAsyncIteration
            self._queue.extendleft(reversed(waiting))
        return self._queue.popleft()
