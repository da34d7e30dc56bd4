"""What happened to an object, and what a given watcher is told about it.

My job: one `Change` per storage event, shared by the history and all watchers; from it the `WatchEvent` that fits a
watcher's selector, framed once whoever asks first. No I/O. Rules: apiserver `cacher.go` (an object that stops matching
is DELETED with the new revision and the old content; one that starts is ADDED).
"""

import enum
from collections.abc import Callable, Hashable

import orjson

from miniapiserver.watchcache.cached import Cached

Predicate = Callable[[Cached], bool]
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class WatchEventType(enum.Enum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


_HEADS = {kind: b'{"type":"%b","object":' % kind.value.encode() for kind in WatchEventType}


def frame(kind: WatchEventType, obj: bytes) -> bytes:
    """One line of a JSON watch."""
    return b"%b%b}\n" % (_HEADS[kind], obj)


class WatchEvent:
    """One line of a watch. `cached` is the object (None for a bookmark). Shared between watchers: do not change it."""

    __slots__ = ("_data", "_forms", "cached", "revision", "type")

    def __init__(self, kind: WatchEventType, revision: int, cached: Cached | None, data: bytes | None = None) -> None:
        self.type, self.revision, self.cached = kind, revision, cached
        self._data = data
        self._forms: dict[Hashable, bytes] | None = None

    @property
    def data(self) -> bytes:
        """The JSON line with the newline, made once for all watchers."""
        if self._data is None:
            assert self.cached is not None
            self._data = frame(self.type, self.cached.data)
        return self._data

    def form(self, name: Hashable, make: Callable[["WatchEvent"], bytes]) -> bytes:
        """Another rendering (a Table row, a converted version), made once for all watchers that ask by that name."""
        if self._forms is None:
            self._forms = {}
        made = self._forms.get(name)
        if made is None:
            made = self._forms[name] = make(self)
        return made


def bookmark(kind: str, api_version: str, revision: int, *, initial_events_end: bool = False) -> WatchEvent:
    metadata: dict[str, object] = {"resourceVersion": str(revision)}
    if initial_events_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    obj = orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": metadata})
    return WatchEvent(WatchEventType.BOOKMARK, revision, None, frame(WatchEventType.BOOKMARK, obj))


class Change:
    """One storage event: `current` None is a deletion, `previous` None a creation."""

    __slots__ = ("_added", "_deleted", "_modified", "current", "key", "previous", "revision")

    def __init__(self, key: str, revision: int, current: Cached | None, previous: Cached | None) -> None:
        self.key, self.revision, self.current, self.previous = key, revision, current, previous
        self._added: WatchEvent | None = None
        self._modified: WatchEvent | None = None
        self._deleted: WatchEvent | None = None

    @property
    def size(self) -> int:
        held = self.current or self.previous
        return len(held.data) if held else 0

    def forget_events(self) -> None:
        """Once every watcher has been told: those who have not read yet hold their event themselves."""
        self._added = self._modified = self._deleted = None

    def event(self) -> WatchEvent | None:
        """For a watcher that selects everything."""
        return self._choose(self.current is not None, self.previous is not None)

    def event_for(self, selects: Predicate) -> WatchEvent | None:
        return self._choose(self.current is not None and selects(self.current),
                            self.previous is not None and selects(self.previous))

    def _choose(self, now: bool, before: bool) -> WatchEvent | None:
        if now:
            return self._as_modified() if before else self._as_added()
        return self._as_deleted() if before else None

    def _as_added(self) -> WatchEvent:
        if self._added is None:
            self._added = WatchEvent(WatchEventType.ADDED, self.revision, self.current)
        return self._added

    def _as_modified(self) -> WatchEvent:
        if self._modified is None:
            self._modified = WatchEvent(WatchEventType.MODIFIED, self.revision, self.current)
        return self._modified

    def _as_deleted(self) -> WatchEvent:
        if self._deleted is None:
            assert self.previous is not None
            self._deleted = WatchEvent(WatchEventType.DELETED, self.revision, self.previous.at(self.revision))
        return self._deleted
