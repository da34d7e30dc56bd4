"""What the map's pages are told: every ledger of the cluster, followed, as one stream of changes.

My job: one watcher per process that serves a ledger, what they have told so far, and a bounded queue per page. A new
page gets everything once and from then on only what changes; a page that cannot keep up is told everything again
instead. Idle connections cost nothing here: what did not change is not in a change.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import orjson

from miniplane.state import StateDir
from wire.ledgerfeed import watch_ledger

JSON = dict[str, Any]

LOOK_FOR_NEW: Final = 1.0
QUEUED: Final = 64
#: Ended connections that a page is still shown; a ledger keeps more.
SHOWN_ENDED: Final = 100


class Page:
    """One open page. Lives as long as its connection."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED)

    def tell(self, message: bytes) -> None:
        if self.queue.full():
            while not self.queue.empty():
                self.queue.get_nowait()
            self.queue.put_nowait(None)  # it missed something: everything again
        else:
            self.queue.put_nowait(message)


class Feed:
    """Lives as long as the map's server. `run` is its task."""

    def __init__(self, state: StateDir) -> None:
        self._folder = state.path / "connections"
        self._known: dict[str, dict[int, JSON]] = {}
        self._ended: dict[str, deque[JSON]] = {}
        self._pages: set[Page] = set()

    async def run(self) -> None:
        """Follow whoever is there, and whoever comes."""
        followed: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                for path in sorted(self._folder.glob("*.sock")):
                    task = followed.get(path.stem)
                    if task is None or task.done():
                        followed[path.stem] = group.create_task(self._follow(path), name=f"ledger {path.stem}")
                await asyncio.sleep(LOOK_FOR_NEW)

    async def _follow(self, path: Path) -> None:
        process = path.stem
        with contextlib.suppress(OSError, orjson.JSONDecodeError):
            is_first = True
            async for entries in watch_ledger(path):
                if is_first:
                    self._known[process], self._ended[process] = {}, deque(maxlen=SHOWN_ENDED)
                    self._tell({"gone": process})
                    entries = _without_old(entries)
                is_first = False
                self._learn(process, entries)
                self._tell({"process": process, "entries": entries})
        self._known.pop(process, None)
        self._tell({"gone": process})

    def _learn(self, process: str, entries: list[JSON]) -> None:
        known = self._known[process]
        for entry in entries:
            if entry.get("ended"):
                known.pop(entry["id"], None)
                self._ended[process].append(entry)
            elif entry["id"] in known:
                known[entry["id"]].update(entry)
            else:
                known[entry["id"]] = entry

    def _tell(self, change: JSON) -> None:
        if self._pages:
            message = b"data: " + orjson.dumps(change) + b"\n\n"
            for page in self._pages:
                page.tell(message)

    def everything(self) -> bytes:
        """All that stands now, as one event."""
        known = [
            {"process": process, "entries": [*self._ended[process], *entries.values()]}
            for process, entries in self._known.items()
        ]
        return b"event: all\ndata: " + orjson.dumps(known) + b"\n\n"

    @contextlib.contextmanager
    def _open(self) -> Any:
        page = Page()
        self._pages.add(page)
        try:
            yield page
        finally:
            self._pages.discard(page)

    async def events(self, heartbeat: float) -> AsyncIterator[bytes]:
        """Server-sent events for one page, without end."""
        with self._open() as page:
            yield self.everything()
            while True:
                try:
                    async with asyncio.timeout(heartbeat):
                        message = await page.queue.get()
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                yield self.everything() if message is None else message


def _without_old(entries: list[JSON]) -> list[JSON]:
    ended = [entry for entry in entries if entry.get("ended")]
    # A ledger tells the newest first; pages put the latest they hear of on top.
    return [entry for entry in entries if not entry.get("ended")] + ended[:SHOWN_ENDED][::-1]
