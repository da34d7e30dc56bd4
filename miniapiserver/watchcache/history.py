"""The recent changes of one prefix.

My job: keep the newest changes within a bound of number and bytes; answer "what happened after revision N" and "what
did the state at N look like". I own no I/O: what is older, `cache` reads from storage.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from miniapiserver.watchcache.cached import Cached
from miniapiserver.watchcache.events import Change

MAX_CHANGES = 1024
MAX_BYTES = 2 << 20


class History:
    """Every change after `floor`, in order."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._changes: deque[Change] = deque()
        self._bytes = 0

    def append(self, change: Change) -> None:
        self._changes.append(change)
        self._bytes += change.size
        while len(self._changes) > MAX_CHANGES or (self._bytes > MAX_BYTES and len(self._changes) > 1):
            oldest = self._changes.popleft()
            self._bytes -= oldest.size
            self.floor = oldest.revision

    def extend_back(self, floor: int, older: Sequence[Change]) -> None:
        """Put what storage still knew in front. The bound is applied again at the next append."""
        self._changes.extendleft(reversed(older))
        self._bytes += sum(change.size for change in older)
        self.floor = floor

    def after(self, revision: int) -> list[Change]:
        newest_first = []
        for change in reversed(self._changes):
            if change.revision <= revision:
                break
            newest_first.append(change)
        newest_first.reverse()
        return newest_first

    def undo(self, revision: int) -> dict[str, Cached | None]:
        """For each key changed after `revision`: what was there at `revision`."""
        return before(reversed(self.after(revision)))


def before(newest_first: Iterable[Change]) -> dict[str, Cached | None]:
    return {change.key: change.previous for change in newest_first}
