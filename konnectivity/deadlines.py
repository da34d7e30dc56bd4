"""Many deadlines of one length, for the price of one timer.

Job: call `expire(owner)` for whoever has been here for `timeout` seconds. A timer of the event loop per dial and per
request head would cost more than the rest of their bookkeeping. Rule: whoever came first expires first, so only the
first is ever looked at.
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)


class Deadlines(Generic[Owner]):
    """Owners in the order they came. With `timeout` 0 nobody ever expires."""

    def __init__(self, timeout: float, expire: Callable[[Owner], None]) -> None:
        self.timeout = timeout
        self._expire = expire
        self._due: dict[Owner, float] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def add(self, owner: Owner) -> None:
        if self.timeout <= 0:
            return
        self._due[owner] = due = self._loop.time() + self.timeout
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def discard(self, owner: Owner) -> None:
        self._due.pop(owner, None)

    def stop(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._due:
            owner, due = next(iter(self._due.items()))
            # The loop's clock is coarse: a deadline half a tick away is over.
            if due > now + 0.001:
                self._timer = self._loop.call_at(due, self._look)
                return
            del self._due[owner]
            self._expire(owner)
