"""The embedded storage engine: one SQLite file, one writer, group commit.

My job: storage as `interface` words it, on disk. A table `log` holds one row per change and its row id is the revision
(kine's idea); a table `current` points from each key to its newest row. The state at an older revision is the current
one with the changes since then undone, so history needs no index of its own. I own the file, its lock, and one thread.

Writes that arrive while a commit is being flushed are applied together and share the next flush. They are applied on
the event loop, because each SQL step gives up the interpreter lock and a second thread would have to win it back every
time; only what waits for the disk (COMMIT) and what is long (compaction) runs in the thread. Reads use a second
connection: WAL lets it see the last commit whatever the writer does. `synchronous=FULL`: a commit returns when the WAL
is on disk, so acknowledged means on disk.
"""

import asyncio
import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from miniapiserver.storage import statements as sql
from miniapiserver.storage.feed import Feeds
from miniapiserver.storage.interface import (
    Compacted,
    Conflict,
    Event,
    EventType,
    FutureRevision,
    KeyExists,
    KeyValue,
    RangeResult,
    StorageError,
    StorageUnavailable,
)
from miniapiserver.storage.leases import Lease, Leases

FORMAT = 1
MAX_WAITING = 8192  # writes queued behind a commit; the next one is refused
MAX_BATCH = 128  # writes applied before the loop gets its turn
COMPACTION_STEP = 2000  # revisions swept per commit, so that writers wait milliseconds
REPLAY_PAGE = 500
BUSY_TIMEOUT = 0.1
WAL_KEPT = 16 << 20  # bytes the log file keeps after a burst

@dataclass(slots=True)
class _Write:
    """One queued change: value None deletes, expected None creates. `answer` gets the revision or the error."""

    key: str
    value: bytes | None
    expected: int | None
    expires: float | None
    answer: "asyncio.Future[int]"


@dataclass(slots=True)
class _Sweep:
    """One step of compaction, done by the committing thread."""

    to: int
    answer: "asyncio.Future[int]"


@dataclass(slots=True)
class _Batch:
    """What one commit makes durable, and what is said once it is."""

    last: int
    writes: list[_Write] = field(default_factory=list)
    done: "list[tuple[asyncio.Future[int], int]]" = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    sweep: _Sweep | None = None


class SQLiteStorage:
    """One database file. Lives as an async context; a second process that opens the same file is refused."""

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = Path(path)
        self._clock = clock
        self._feeds = Feeds()
        self._waiting: deque[_Write | _Sweep] = deque()
        self._commits: SimpleQueue[_Batch | None] = SimpleQueue()
        self._flushing = False
        self._closing = False
        self._revision = 1  # a new store starts at 1, as etcd does: revision 0 means "now" everywhere
        self._compacted = 0

    # --- opening and closing

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._lock = _lock(self._path)
        try:
            self._open()
        except sqlite3.Error as error:
            os.close(self._lock)
            raise StorageUnavailable(f"{self._path}: {error}") from error
        except StorageError:
            os.close(self._lock)
            raise
        self._thread = threading.Thread(target=self._commit_forever, name=f"commit {self._path.name}", daemon=True)
        self._thread.start()
        self._idle = asyncio.Event()
        self._idle.set()
        self._leases = Leases(self._read(sql.SELECT_LEASES, ()), self._clock, self._expire)
        return self

    def _open(self) -> None:
        # Nobody else writes. Whoever opens the file by hand and holds a lock must not hold up the event loop for long.
        self._writer = sqlite3.connect(self._path, BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = FULL")
        self._writer.execute(f"PRAGMA journal_size_limit = {WAL_KEPT}")
        self._writer.executescript(sql.SCHEMA)
        meta = dict(self._writer.execute("SELECT name, value FROM meta"))
        if not meta:
            self._writer.execute("INSERT INTO meta(name, value) VALUES ('format', ?), ('compacted', 0)", (FORMAT,))
        elif meta["format"] != FORMAT:
            raise StorageUnavailable(f"{self._path}: format {meta['format']}, this version reads {FORMAT}")
        self._compacted = meta.get("compacted", 0)
        newest = self._writer.execute("SELECT max(revision) FROM log").fetchone()[0] or 1
        self._revision = max(newest, self._compacted)
        self._next = self._revision
        self._reader = sqlite3.connect(self._path, isolation_level=None)
        self._reader.execute("PRAGMA query_only = ON")

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self._closing = True
        self._leases.close()
        await self._idle.wait()
        self._commits.put(None)
        await asyncio.to_thread(self._thread.join)
        self._feeds.fail(StorageUnavailable(f"{self._path}: closed"))
        self._reader.close()
        self._writer.close()
        os.close(self._lock)

    # --- reading

    async def current_revision(self) -> int:
        return self._revision

    async def get(self, key: str) -> KeyValue | None:
        rows = self._read(sql.SELECT_KEY, (key,))
        return KeyValue(key, *rows[0]) if rows else None

    async def range(self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0) -> RangeResult:
        at = revision or self._revision
        self._check_readable(at)
        one_more = limit + 1 if limit else -1
        bounds = {"at": at, "low": max(prefix, start), "high": after_prefix(prefix), "limit": one_more}
        items = [KeyValue(*row) for row in self._read(sql.SELECT_RANGE, bounds)]
        if not limit or len(items) <= limit:
            return RangeResult(items, at, False, len(items))
        return RangeResult(items[:limit], at, True, self._read(sql.COUNT_RANGE, bounds)[0][0])

    def _check_readable(self, revision: int) -> None:
        if revision > self._revision:
            raise FutureRevision(revision, self._revision)
        if revision < self._compacted:
            raise Compacted(self._compacted)

    def _read(self, query: str, parameters: Any) -> list[Any]:
        try:
            return self._reader.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise StorageUnavailable(f"{self._path}: {error}") from error

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Sequence[Event], None]:
        with self._feeds.open(prefix) as feed:
            announced = self._revision
            if after < self._compacted:
                raise Compacted(self._compacted)
            yield ()
            while after < announced:
                # Compaction may pass by while the consumer was thinking: rows would be missing, so ask again.
                if after < self._compacted:
                    raise Compacted(self._compacted)
                rows = self._read(sql.SELECT_CHANGES, (after, announced, REPLAY_PAGE))
                after = rows[-1][0] if rows else announced
                if events := [event for event in map(_event, rows) if event.key.startswith(prefix)]:
                    yield events
            while True:
                events = [event for event in await feed.next() if event.revision > after]
                if events:
                    yield events

    # --- writing

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        return await self._submit(key, value, None, ttl)

    async def update(self, key: str, value: bytes, *, expected: int, ttl: float | None = None) -> int:
        return await self._submit(key, value, expected, ttl)

    async def delete(self, key: str, *, expected: int) -> int:
        return await self._submit(key, None, expected, None)

    async def compact(self, revision: int) -> None:
        if revision > self._revision:
            raise FutureRevision(revision, self._revision)
        while self._compacted < revision:
            answer: asyncio.Future[int] = self._loop.create_future()
            self._enqueue(_Sweep(min(revision, self._compacted + COMPACTION_STEP), answer))
            await answer

    def _submit(self, key: str, value: bytes | None, expected: int | None, ttl: float | None) -> "asyncio.Future[int]":
        answer: asyncio.Future[int] = self._loop.create_future()
        expires = None if ttl is None else self._clock() + ttl
        self._enqueue(_Write(key, value, expected, expires, answer))
        return answer

    def _expire(self, key: str, revision: int) -> "asyncio.Future[int]":
        return self._submit(key, None, revision, None)

    def _enqueue(self, item: _Write | _Sweep) -> None:
        if self._closing:
            raise StorageUnavailable(f"{self._path}: closing")
        if len(self._waiting) >= MAX_WAITING:
            raise StorageUnavailable(f"{self._path}: {MAX_WAITING} writes are waiting for the disk")
        self._waiting.append(item)
        if not self._flushing:
            self._flushing = True
            self._idle.clear()
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Apply what is waiting and hand it to the thread. Runs only while no commit is under way."""
        batch = _Batch(self._revision)
        self._take(batch)
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for write in batch.writes:
                self._apply(write, batch)
        except sqlite3.Error as error:
            self._finish(batch, error)
            return
        self._commits.put(batch)

    def _take(self, batch: _Batch) -> None:
        """Move what the next commit holds from the queue to `batch`. A compaction step ends it."""
        while self._waiting and len(batch.writes) < MAX_BATCH and batch.sweep is None:
            item = self._waiting.popleft()
            if isinstance(item, _Sweep):
                batch.sweep = item
            else:
                batch.writes.append(item)

    def _apply(self, write: _Write, batch: _Batch) -> None:
        try:
            event = self._change(write, batch.last + 1)
        except StorageError as error:
            _fail(write.answer, error)
            return
        batch.last += 1
        batch.done.append((write.answer, batch.last))
        batch.events.append(event)
        if write.expires is not None:
            batch.leases.append((write.expires, write.key, batch.last))

    def _change(self, write: _Write, revision: int) -> Event:
        if write.expected is None:
            assert write.value is not None
            return self._insert(write, write.value, revision)
        return self._replace(write, write.expected, revision)

    def _insert(self, write: _Write, value: bytes, revision: int) -> Event:
        if self._writer.execute(sql.INSERT_CURRENT, (write.key, revision, write.expires)).rowcount == 0:
            raise KeyExists(write.key)
        self._writer.execute(sql.INSERT_LOG, (revision, write.key, value, revision, 0))
        return Event(EventType.PUT, write.key, revision, KeyValue(write.key, value, revision, revision), None)

    def _replace(self, write: _Write, expected: int, revision: int) -> Event:
        key, value = write.key, write.value
        if value is None:
            cursor = self._writer.execute(sql.DELETE_CURRENT, (key, expected))
        else:
            cursor = self._writer.execute(sql.UPDATE_CURRENT, (revision, write.expires, key, expected))
        if cursor.rowcount == 0:
            row = self._writer.execute(sql.SELECT_KEY, (key,)).fetchone()
            raise Conflict(key, KeyValue(key, *row) if row else None)
        old_value, created = self._writer.execute(sql.SELECT_LOG, (expected,)).fetchone()
        self._writer.execute(sql.INSERT_LOG, (revision, key, value, created, expected))
        previous = KeyValue(key, old_value, created, expected)
        if value is None:
            return Event(EventType.DELETE, key, revision, None, previous)
        return Event(EventType.PUT, key, revision, KeyValue(key, value, created, revision), previous)

    # --- the commit thread, and what happens after it

    def _commit_forever(self) -> None:
        while (batch := self._commits.get()) is not None:
            error: sqlite3.Error | None = None
            try:
                if batch.sweep:
                    self._sweep(batch.sweep.to)
                self._writer.execute("COMMIT")
            except sqlite3.Error as failure:
                error = failure
            try:
                self._loop.call_soon_threadsafe(self._finish, batch, error)
            except RuntimeError:  # the loop is closed: nobody is left to tell
                return

    def _sweep(self, to: int) -> None:
        if to <= self._compacted:
            return  # two callers compacted at once
        bounds = {"last": self._compacted, "to": to}
        self._writer.execute(sql.SWEEP_REPLACED, bounds)
        self._writer.execute(sql.SWEEP_TOMBSTONES, bounds)
        self._writer.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (to,))

    def _finish(self, batch: _Batch, error: sqlite3.Error | None) -> None:
        """The batch is on disk, or nothing of it is. Watchers hear first, so that who wrote finds caches up to date."""
        if error:
            self._roll_back(batch, StorageUnavailable(f"{self._path}: {error}"))
        else:
            self._revision = batch.last
            self._feeds.publish(batch.events)
            for answer, revision in batch.done:
                if not answer.done():
                    answer.set_result(revision)
            if batch.sweep:
                self._compacted = max(self._compacted, batch.sweep.to)
                if not batch.sweep.answer.done():
                    batch.sweep.answer.set_result(batch.sweep.to)
            self._leases.add(batch.leases)
        if self._waiting:
            self._loop.call_soon(self._flush)
        else:
            self._flushing = False
            self._idle.set()

    def _roll_back(self, batch: _Batch, error: StorageUnavailable) -> None:
        # SQLite may have rolled back by itself (disk full does).
        if self._writer.in_transaction:
            try:
                self._writer.execute("ROLLBACK")
            except sqlite3.Error as second:
                error = StorageUnavailable(f"{error}; rollback: {second}")
        for write in batch.writes:
            _fail(write.answer, error)
        if batch.sweep:
            _fail(batch.sweep.answer, error)


def after_prefix(prefix: str) -> str:
    """The first key behind every key that begins with `prefix`."""
    while prefix and prefix[-1] == "\U0010ffff":
        prefix = prefix[:-1]
    if not prefix:
        return "\U0010ffff"
    following = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if following == 0xD800 else following)


def _event(row: tuple[int, str, bytes | None, int, int, bytes | None, int | None]) -> Event:
    revision, key, value, created, previous_revision, old_value, old_created = row
    previous = None
    if old_value is not None and old_created is not None:
        previous = KeyValue(key, old_value, old_created, previous_revision)
    if value is None:
        return Event(EventType.DELETE, key, revision, None, previous)
    return Event(EventType.PUT, key, revision, KeyValue(key, value, created, revision), previous)


def _fail(answer: "asyncio.Future[int]", error: StorageError) -> None:
    if not answer.done():
        answer.set_exception(error)


def _lock(path: Path) -> int:
    """A lock beside the database. Not on it: closing any descriptor of a file drops the locks SQLite holds on it."""
    lock = Path(f"{path}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageUnavailable(f"{lock}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StorageUnavailable(f"{path} is in use by another process") from error
    return descriptor
