"""What only the embedded engine promises: survival, locks, full disks, one flush for many."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from miniapiserver.storage.compactor import Compactor
from miniapiserver.storage.interface import Compacted, KeyExists, StorageUnavailable
from miniapiserver.storage.sqlite import SQLiteStorage

WRITER = """
import asyncio, sys
from miniapiserver.storage.sqlite import SQLiteStorage

async def write(storage, worker):
    number = 0
    while True:
        key = f"/registry/{worker}/{number}"
        revision = await storage.create(key, key.encode() * 20)
        print(key, revision, flush=True)
        if number % 3 == 0:
            revision = await storage.update(key, b"updated", expected=revision)
            print(key, revision, flush=True)
        number += 1

async def main():
    async with SQLiteStorage(sys.argv[1]) as storage:
        async with asyncio.TaskGroup() as group:
            for worker in range(8):
                group.create_task(write(storage, worker))

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 50, 1500])
async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "state.db"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)  # noqa: ASYNC220
    assert process.stdout
    acknowledged = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    acknowledged += process.stdout.read().splitlines(keepends=True)
    process.stdout.close()
    process.wait()
    newest = dict(line.decode().split() for line in acknowledged if line.endswith(b"\n"))
    async with SQLiteStorage(path) as storage:
        for key, revision in newest.items():
            held = await storage.get(key)
            assert held is not None
            assert held.mod_revision >= int(revision)
        assert await storage.current_revision() >= max(int(revision) for revision in newest.values())
        await storage.create("/registry/after", b"x")


async def test_a_second_process_is_told_that_the_file_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with SQLiteStorage(path):
        other = subprocess.run([sys.executable, "-c", WRITER, str(path)], capture_output=True,  # noqa: ASYNC221
                               timeout=20)
        assert f"StorageUnavailable: {path} is in use by another process" in other.stderr.decode()
        with pytest.raises(StorageUnavailable, match="in use"):
            async with SQLiteStorage(path):
                pass
    async with SQLiteStorage(path) as storage:  # and when the first is gone it may
        await storage.create("/registry/a", b"x")


async def test_a_full_disk_fails_the_writes_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    async with SQLiteStorage(tmp_path / "state.db") as storage:
        kept = await storage.create("/registry/kept", b"x")
        pages = storage._writer.execute("PRAGMA page_count").fetchone()[0]
        storage._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
        results = await asyncio.gather(*(storage.create(f"/registry/{number}", bytes(100_000))
                                         for number in range(5)), return_exceptions=True)
        assert {type(result) for result in results} == {StorageUnavailable}
        assert "full" in str(results[0])
        assert await storage.current_revision() == kept
        assert (await storage.range("/registry/")).count == 1
        storage._writer.execute(f"PRAGMA max_page_count = {pages + 1000}")
        assert await storage.create("/registry/0", bytes(100_000)) == kept + 1


async def test_a_file_that_turned_read_only_fails_writes_and_still_reads(tmp_path: Path) -> None:
    async with SQLiteStorage(tmp_path / "state.db") as storage:
        created = await storage.create("/registry/a", b"x")
        storage._writer.execute("PRAGMA query_only = ON")
        for _ in range(3):
            with pytest.raises(StorageUnavailable, match="readonly"):
                await storage.update("/registry/a", b"y", expected=created)
        found = await storage.get("/registry/a")
        assert found
        assert found.value == b"x"


async def test_a_path_that_cannot_be_opened_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="missing"):
        async with SQLiteStorage(tmp_path / "missing" / "state.db"):
            pass
    (tmp_path / "garbage.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(StorageUnavailable, match=r"garbage\.db: file is not a database"):
        async with SQLiteStorage(tmp_path / "garbage.db"):
            pass
    descriptor = os.open(tmp_path / "garbage.db.lock", os.O_RDWR)  # the failed open released its lock
    os.close(descriptor)


async def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with SQLiteStorage(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
    connection.close()
    with pytest.raises(StorageUnavailable, match="format 99"):
        async with SQLiteStorage(path):
            pass


async def test_many_writers_share_one_flush(tmp_path: Path) -> None:
    async with SQLiteStorage(tmp_path / "state.db") as storage:
        commits = []
        put = storage._commits.put
        storage._commits = type("Counted", (), {  # type: ignore[assignment]
            "get": storage._commits.get, "put": lambda self, batch: (commits.append(batch), put(batch))})()
        await asyncio.gather(*(storage.create(f"/registry/{number}", b"x") for number in range(300)))
        assert len(commits) <= 3


async def test_a_failed_item_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    async with SQLiteStorage(tmp_path / "state.db") as storage:
        results = await asyncio.gather(
            storage.create("/registry/a", b"x"), storage.create("/registry/a", b"y"),
            storage.create("/registry/b", b"z"), return_exceptions=True)
        assert [type(result) for result in results] == [int, KeyExists, int]


async def test_every_acknowledged_write_is_synced(tmp_path: Path) -> None:
    async with SQLiteStorage(tmp_path / "state.db") as storage:
        assert storage._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert storage._writer.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_closing_finishes_what_was_queued(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with SQLiteStorage(path) as storage:
        writes = [asyncio.ensure_future(storage.create(f"/registry/{number}", b"x")) for number in range(50)]
        await asyncio.sleep(0)
    assert len({write.result() for write in writes}) == 50
    async with SQLiteStorage(path) as storage:
        assert (await storage.range("/registry/")).count == 50


async def test_a_cancelled_writer_does_not_disturb_the_others(tmp_path: Path) -> None:
    async with SQLiteStorage(tmp_path / "state.db") as storage:
        one = asyncio.ensure_future(storage.create("/registry/a", b"x"))
        two = asyncio.ensure_future(storage.create("/registry/b", b"x"))
        await asyncio.sleep(0)
        one.cancel()
        assert await two > 1


async def test_lifetimes_survive_a_restart(tmp_path: Path) -> None:
    now = 1000.0
    async with SQLiteStorage(tmp_path / "state.db", clock=lambda: now) as storage:
        await storage.create("/registry/old", b"x", ttl=50)
        await storage.create("/registry/young", b"x", ttl=5000)
    now = 1100.0
    async with SQLiteStorage(tmp_path / "state.db", clock=lambda: now) as storage:
        async with asyncio.timeout(5), aclosing(storage.watch("/registry/", after=3)) as watch:
            assert await anext(watch) == ()
            assert [event.key for event in await anext(watch)] == ["/registry/old"]
        assert await storage.get("/registry/young")


async def test_compaction_shrinks_the_log_to_the_present(tmp_path: Path) -> None:
    async with SQLiteStorage(tmp_path / "state.db") as storage:
        revision = await storage.create("/registry/a", b"x")
        for _ in range(50):
            revision = await storage.update("/registry/a", b"x", expected=revision)
        deleted = await storage.delete("/registry/a", expected=revision)
        await asyncio.gather(storage.compact(deleted), storage.compact(revision), storage.compact(deleted))
        assert storage._read("SELECT count(*) FROM log", ()) == [(0,)]
    async with SQLiteStorage(tmp_path / "state.db") as storage:
        assert await storage.current_revision() == deleted


async def test_a_watch_that_compaction_overtakes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miniapiserver.storage.sqlite.REPLAY_PAGE", 2)
    async with SQLiteStorage(tmp_path / "state.db") as storage:
        start = await storage.current_revision()
        for number in range(10):
            last = await storage.create(f"/registry/{number}", b"x")
        watch = storage.watch("/registry/", after=start)
        assert await anext(watch) == ()
        assert len(await anext(watch)) == 2
        await storage.compact(last)
        with pytest.raises(Compacted):
            await anext(watch)


async def test_the_compactor_keeps_the_last_minutes(tmp_path: Path) -> None:
    async with SQLiteStorage(tmp_path / "state.db") as storage:
        compactor = Compactor(storage, keep=180, interval=60)
        revisions = []
        for number in range(6):
            revisions.append(await storage.create(f"/registry/{number}", b"x"))
            await compactor.step()
        await storage.range("/registry/", revision=revisions[2])
        with pytest.raises(Compacted):
            await storage.range("/registry/", revision=revisions[1])


async def test_an_empty_database_opens_at_once(tmp_path: Path) -> None:
    start = time.perf_counter()
    async with SQLiteStorage(tmp_path / "state.db"):
        took = time.perf_counter() - start
    assert took < 0.3  # 4 ms on an idle machine; the bound leaves room for a busy one
