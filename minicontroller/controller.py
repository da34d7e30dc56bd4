"""A controller: keys in, decisions out, again until nothing is left to do.

My job: the queue of keys that need a look (each at most once, with back-off after failures), and the loop that asks a
controller for its decision and carries it out. Controllers are pure between `watch` and `plan`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from minicontroller.actions import Action, After, carry_out
from minicontroller.informers import Informers
from wire.apiclient import AlreadyExists, APIError, Conflict, NamespaceTerminating, NotFound
from wire.errors import WireError
from wire.informer import Informer

JSON = dict[str, Any]
Key = tuple[str, str]

log = logging.getLogger("controller")

FIRST_RETRY, LONGEST_RETRY = 0.05, 30.0


class Queue:
    """Keys waiting for a look. A key that is added while it is being looked at is looked at once more afterwards."""

    def __init__(self) -> None:
        self._ready: dict[Key, None] = {}
        self._added = asyncio.Event()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def add(self, key: Key) -> None:
        self._ready[key] = None
        self._added.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """The soonest asked-for moment counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and not timer.cancelled() and loop.time() < timer.when() <= loop.time() + seconds:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def retry(self, key: Key) -> float:
        """Look again later, later still after each failure; the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay: float = min(FIRST_RETRY * 2.0**failures, LONGEST_RETRY)
        self.add_after(key, delay)
        return delay

    def done(self, key: Key) -> None:
        self._failures.pop(key, None)

    async def next(self) -> Key:
        while not self._ready:
            self._added.clear()
            await self._added.wait()
        key = next(iter(self._ready))
        del self._ready[key]
        return key


def key_of(obj: JSON) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


class Controller:
    """Subclasses set `name`, connect informers to keys in `watch`, and decide in `plan`."""

    name = ""

    def __init__(self, informers: Informers, clock: Callable[[], float] = time.time) -> None:
        self.informers, self.clock = informers, clock
        self.queue = Queue()
        self.watch()

    def watch(self) -> None:
        """Which informers matter and which keys their events touch."""
        raise NotImplementedError

    def plan(self, key: Key) -> Iterable[Action]:
        """What is to be done about `key`, from the informers' copies. Pure."""
        raise NotImplementedError

    def on(self, informer: Informer, keys: Callable[[JSON], Iterable[Key]] = lambda obj: (key_of(obj),)) -> Informer:
        """Each event's object, and what it was before, touch these keys."""

        def changed(kind: str, new: JSON | None, old: JSON | None) -> None:
            for obj in (new, old):
                if obj is not None:
                    for key in keys(obj):
                        self.queue.add(key)

        informer.subscribe(changed)
        return informer

    async def run(self) -> None:
        """Until cancelled. A failure is one key's, never the controller's."""
        await self.informers.synced()
        while True:
            key = await self.queue.next()
            try:
                await self.sync(key)
            except (Conflict, AlreadyExists, NotFound):
                self.queue.retry(key)  # the world moved: decide again on what is there now
            except NamespaceTerminating:
                self.queue.done(key)  # its deletion is the next event
            except (APIError, WireError) as error:
                delay = self.queue.retry(key)
                log.warning('%s.failed key=%s retry=%.1fs error="%s"', self.name, "/".join(key), delay, error)
            except Exception:
                self.queue.retry(key)
                log.exception("%s.bug key=%s", self.name, "/".join(key))
            else:
                self.queue.done(key)

    async def sync(self, key: Key) -> None:
        for action in list(self.plan(key)):
            if isinstance(action, After):
                self.queue.add_after(key, action.seconds)
                continue
            written = await carry_out(self.informers.client, action)
            if written is not None:
                await self.informers.seen(written)
