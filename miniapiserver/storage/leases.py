"""Which keys of an embedded engine expire when.

My job: one timer for all of them; when a key's time has come I ask the engine to delete it at the revision that had the
lifetime, so that a rewritten key lives on. I own the timer, not the writes. etcd has leases of its own.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable
from functools import partial

from miniapiserver.storage.interface import StorageUnavailable

RETRY = 1.0  # seconds until a delete that the disk refused is tried again

Lease = tuple[float, str, int]  # wall-clock time of expiry, key, the revision that has it


class Leases:
    """Lives as long as its engine. `delete(key, revision)` queues a delete at exactly that revision."""

    def __init__(self, leases: Iterable[Lease], clock: Callable[[], float],
                 delete: Callable[[str, int], "asyncio.Future[int]"]) -> None:
        self._heap = list(leases)
        heapq.heapify(self._heap)
        self._clock, self._delete = clock, delete
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._schedule()

    def add(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            heapq.heappush(self._heap, lease)
        self._schedule()

    def close(self) -> None:
        self._closed = True
        if self._timer:
            self._timer.cancel()

    def _schedule(self, at_least: float = 0.0) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._heap and not self._closed:
            delay = max(self._heap[0][0] - self._clock(), at_least)
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            lease = heapq.heappop(self._heap)
            try:
                answer = self._delete(lease[1], lease[2])
            except StorageUnavailable:
                self._retry(lease)
                return
            answer.add_done_callback(partial(self._deleted, lease))
        self._schedule()

    def _deleted(self, lease: Lease, answer: "asyncio.Future[int]") -> None:
        # Conflict means that the key was rewritten or deleted before its time was up: this lease is void.
        if not answer.cancelled() and isinstance(answer.exception(), StorageUnavailable):
            self._retry(lease)

    def _retry(self, lease: Lease) -> None:
        heapq.heappush(self._heap, lease)
        self._schedule(RETRY)
