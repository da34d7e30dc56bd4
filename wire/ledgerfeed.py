"""A ledger over a UNIX socket: the whole of it once, or what changes from now on.

The client says what it wants in one line. `snapshot` (or nothing, and the end) → one JSON array and the end.
`watch` → one JSON array a line: first every entry, then, at most every INTERVAL, only the entries that are new or
ended, whole, and for those whose counters moved `{"id", "bytesIn", "bytesOut"}`. Idle connections are looked at (two
integers each), never encoded or sent.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import orjson

from wire.connections import JSON, Connection, Ledger

SOCKET_MODE = 0o600
INTERVAL = 0.25
PATIENCE = 5.0  # for the client's one line
LONGEST_PATH = 108  # sun_path with its closing zero (unix(7))
MAX_LINE = 64 * 1024 * 1024


@asynccontextmanager
async def serve_ledger(ledger: Ledger, path: str | os.PathLike[str]) -> AsyncIterator[None]:
    """Answer every connection to a UNIX socket that only its owner may open."""
    where = os.fspath(path)
    answering: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        answering.add(task)
        try:
            with suppress(ConnectionError, TimeoutError, asyncio.CancelledError):
                await _answer(ledger, reader, writer)
        finally:
            answering.discard(task)
            writer.close()

    with suppress(FileNotFoundError):
        os.unlink(where)
    with short_name(where) as name:
        server = await asyncio.start_unix_server(answer, name)
    os.chmod(where, SOCKET_MODE)
    try:
        yield
    finally:
        server.close()
        for task in answering:
            task.cancel()
        with suppress(FileNotFoundError):
            os.unlink(where)


@contextmanager
def short_name(path: str) -> Iterator[str]:
    """A name for a socket's path that is short enough for the kernel: by its folder's descriptor if need be."""
    if len(os.fsencode(path)) < LONGEST_PATH:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


async def _answer(ledger: Ledger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(PATIENCE):
        asked = await reader.readline()
    if asked.strip() != b"watch":
        writer.write(orjson.dumps(ledger.snapshot()) + b"\n")
        await writer.drain()
        return
    left = asyncio.ensure_future(reader.read())
    try:
        with ledger.watched() as ended:
            follower = Follower(ended)
            writer.write(orjson.dumps(follower.begin(ledger)) + b"\n")
            while not left.done():
                await writer.drain()
                await asyncio.wait((left,), timeout=INTERVAL)
                if changes := follower.changes(ledger):
                    writer.write(orjson.dumps(changes) + b"\n")
    finally:
        left.cancel()


class Follower:
    """What one watcher has been told. Lives as long as its connection."""

    def __init__(self, ended: set[Connection]) -> None:
        self._ended = ended
        self._told: dict[int, tuple[int, int, str]] = {}

    def begin(self, ledger: Ledger) -> list[JSON]:
        for connection in ledger.standing():
            self._told[connection.id] = (*connection.bytes, connection.state)
        return ledger.snapshot()

    def changes(self, ledger: Ledger) -> list[JSON]:
        found: list[JSON] = []
        for connection in self._ended:
            self._told.pop(connection.id, None)
            found.append(connection.facts())
        self._ended.clear()
        for connection in ledger.standing():
            received, sent = connection.bytes
            told = self._told.get(connection.id)
            now = (received, sent, connection.state)
            if told == now:
                continue
            self._told[connection.id] = now
            is_news = told is None or told[2] != now[2]
            moved = {"id": connection.id, "bytesIn": received, "bytesOut": sent}
            found.append(connection.facts() if is_news else moved)
        return found


async def read_ledger(path: str | os.PathLike[str]) -> list[JSON]:
    """The snapshot of a running process. Raises OSError if nobody serves it."""
    with short_name(os.fspath(path)) as name:
        reader, writer = await asyncio.open_unix_connection(name)
    try:
        writer.write(b"snapshot\n")
        found: list[JSON] = orjson.loads(await reader.read())
        return found
    finally:
        writer.close()


async def watch_ledger(path: str | os.PathLike[str]) -> AsyncIterator[list[JSON]]:
    """Every entry, then changes as they come. Ends with the process that serves. Raises OSError."""
    with short_name(os.fspath(path)) as name:
        reader, writer = await asyncio.open_unix_connection(name, limit=MAX_LINE)
    try:
        writer.write(b"watch\n")
        while line := await reader.readline():
            yield orjson.loads(line)
    finally:
        writer.close()
