"""What every storage engine promises. The same tests run on SQLite and on a real etcd."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from uuid import uuid4

import pytest

from miniapiserver.storage.interface import (
    Compacted,
    Conflict,
    Event,
    EventType,
    FutureRevision,
    KeyExists,
    KeyValue,
    Storage,
)


@pytest.fixture
def prefix() -> str:
    return f"/registry/{uuid4()}/"


async def collect(storage: Storage, prefix: str, after: int, count: int) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(10), aclosing(storage.watch(prefix, after=after)) as watch:
        async for batch in watch:
            events += batch
            if len(events) >= count:
                break
    return events


async def test_a_created_key_is_read_back(storage: Storage, prefix: str) -> None:
    revision = await storage.create(prefix + "a", b"one")
    assert await storage.get(prefix + "a") == KeyValue(prefix + "a", b"one", revision, revision)
    assert await storage.get(prefix + "b") is None
    assert await storage.current_revision() >= revision


async def test_values_may_be_any_bytes_and_large(storage: Storage, prefix: str) -> None:
    value = bytes(range(256)) * 4000
    await storage.create(prefix + "ä-☃", value)
    found = await storage.get(prefix + "ä-☃")
    assert found
    assert found.value == value
    await storage.create(prefix + "empty", b"")
    found = await storage.get(prefix + "empty")
    assert found
    assert found.value == b""


async def test_create_of_an_existing_key_is_refused(storage: Storage, prefix: str) -> None:
    await storage.create(prefix + "a", b"one")
    with pytest.raises(KeyExists):
        await storage.create(prefix + "a", b"two")


async def test_update_needs_the_current_revision(storage: Storage, prefix: str) -> None:
    created = await storage.create(prefix + "a", b"one")
    updated = await storage.update(prefix + "a", b"two", expected=created)
    assert updated > created
    with pytest.raises(Conflict) as error:
        await storage.update(prefix + "a", b"three", expected=created)
    assert error.value.current == KeyValue(prefix + "a", b"two", created, updated)
    with pytest.raises(Conflict) as error:
        await storage.update(prefix + "missing", b"three", expected=created)
    assert error.value.current is None


async def test_delete_needs_the_current_revision(storage: Storage, prefix: str) -> None:
    created = await storage.create(prefix + "a", b"one")
    updated = await storage.update(prefix + "a", b"two", expected=created)
    with pytest.raises(Conflict):
        await storage.delete(prefix + "a", expected=created)
    assert await storage.delete(prefix + "a", expected=updated) > updated
    assert await storage.get(prefix + "a") is None
    again = await storage.create(prefix + "a", b"three")
    assert await storage.get(prefix + "a") == KeyValue(prefix + "a", b"three", again, again)


async def test_of_many_writers_of_one_revision_exactly_one_wins(storage: Storage, prefix: str) -> None:
    created = await storage.create(prefix + "a", b"")
    results = await asyncio.gather(*(storage.update(prefix + "a", b"%d" % number, expected=created)
                                     for number in range(20)), return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 19


async def test_revisions_of_concurrent_writes_are_distinct(storage: Storage, prefix: str) -> None:
    revisions = await asyncio.gather(*(storage.create(f"{prefix}{number}", b"x") for number in range(50)))
    assert len(set(revisions)) == 50


async def test_a_range_is_in_key_order_and_ends_at_the_prefix(storage: Storage, prefix: str) -> None:
    for key in ("b", "a", "c/d", "c"):
        await storage.create(prefix + key, key.encode())
    await storage.create(prefix[:-1] + "0", b"behind")
    page = await storage.range(prefix)
    assert [item.value for item in page.items] == [b"a", b"b", b"c", b"c/d"]
    assert (page.more, page.count) == (False, 4)
    assert page.revision == await storage.current_revision()


async def test_a_range_comes_in_pages(storage: Storage, prefix: str) -> None:
    for number in range(5):
        await storage.create(f"{prefix}{number}", b"x")
    first = await storage.range(prefix, limit=2)
    assert ([item.key[-1] for item in first.items], first.more, first.count) == (["0", "1"], True, 5)
    second = await storage.range(prefix, limit=3, start=first.items[-1].key + "\0", revision=first.revision)
    assert ([item.key[-1] for item in second.items], second.more, second.count) == (["2", "3", "4"], False, 3)


async def test_the_past_can_be_read(storage: Storage, prefix: str) -> None:
    one = await storage.create(prefix + "a", b"one")
    two = await storage.update(prefix + "a", b"two", expected=one)
    three = await storage.create(prefix + "b", b"b")
    four = await storage.delete(prefix + "a", expected=two)
    seen = {revision: [item.value for item in (await storage.range(prefix, revision=revision)).items]
            for revision in (one, two, three, four)}
    assert seen == {one: [b"one"], two: [b"two"], three: [b"two", b"b"], four: [b"b"]}
    assert (await storage.range(prefix, revision=one)).revision == one


async def test_the_future_cannot_be_read(storage: Storage, prefix: str) -> None:
    current = await storage.current_revision()
    with pytest.raises(FutureRevision) as error:
        await storage.range(prefix, revision=current + 10)
    assert (error.value.asked, error.value.current) == (current + 10, current)
    with pytest.raises(FutureRevision):
        await storage.compact(current + 10)


async def test_a_watch_says_what_was_and_what_is(storage: Storage, prefix: str) -> None:
    start = await storage.current_revision()
    one = await storage.create(prefix + "a", b"one")
    two = await storage.update(prefix + "a", b"two", expected=one)
    three = await storage.delete(prefix + "a", expected=two)
    key = prefix + "a"
    first, second = KeyValue(key, b"one", one, one), KeyValue(key, b"two", one, two)
    assert await collect(storage, prefix, start, 3) == [
        Event(EventType.PUT, key, one, first, None),
        Event(EventType.PUT, key, two, second, first),
        Event(EventType.DELETE, key, three, None, second)]
    assert [event.revision for event in await collect(storage, prefix, one, 2)] == [two, three]


async def test_a_live_watch_sees_every_write_once_and_in_order(storage: Storage, prefix: str) -> None:
    start = await storage.current_revision()
    await storage.create(prefix + "before", b"x")
    watching = asyncio.create_task(collect(storage, prefix, start, 101))
    await asyncio.gather(*(storage.create(f"{prefix}{number}", b"x") for number in range(100)))
    await storage.create(prefix[:-1] + "-other", b"not mine")
    revisions = [event.revision for event in await watching]
    assert len(revisions) == 101
    assert revisions == sorted(set(revisions))


async def test_a_watch_of_everything_sees_every_revision(storage: Storage, prefix: str) -> None:
    start = await storage.current_revision()
    revisions: Sequence[int] = [await storage.create(prefix + name, b"x") for name in "abc"]
    assert [event.revision for event in await collect(storage, "", start, 3)] == revisions
    assert revisions == [start + 1, start + 2, start + 3]


async def test_compaction_forgets_the_past_and_keeps_the_present(storage: Storage, prefix: str) -> None:
    one = await storage.create(prefix + "a", b"one")
    two = await storage.update(prefix + "a", b"two", expected=one)
    gone = await storage.create(prefix + "gone", b"x")
    deleted = await storage.delete(prefix + "gone", expected=gone)
    last = await storage.update(prefix + "a", b"three", expected=two)
    await storage.compact(deleted)
    assert [item.value for item in (await storage.range(prefix, revision=deleted)).items] == [b"two"]
    assert [event.revision for event in await collect(storage, prefix, deleted, 1)] == [last]
    with pytest.raises(Compacted) as error:
        await storage.range(prefix, revision=one)
    assert error.value.oldest == deleted
    with pytest.raises(Compacted) as error:
        await collect(storage, prefix, gone, 1)
    assert error.value.oldest == deleted
    await storage.compact(deleted)
    await storage.compact(one)
    assert [item.value for item in (await storage.range(prefix)).items] == [b"three"]


async def test_a_key_with_a_lifetime_is_deleted_with_an_event(storage: Storage, prefix: str) -> None:
    start = await storage.current_revision()
    created = await storage.create(prefix + "event", b"x", ttl=1)
    kept = await storage.create(prefix + "kept", b"x", ttl=1)
    updated = await storage.update(prefix + "kept", b"y", expected=kept)
    events = await collect(storage, prefix, start, 4)
    assert [(event.type, event.key.removeprefix(prefix)) for event in events] == [
        (EventType.PUT, "event"), (EventType.PUT, "kept"), (EventType.PUT, "kept"), (EventType.DELETE, "event")]
    assert events[-1].previous == KeyValue(prefix + "event", b"x", created, created)
    assert await storage.get(prefix + "event") is None
    found = await storage.get(prefix + "kept")
    assert found
    assert found.mod_revision == updated


async def test_a_closed_watch_leaves_nothing_behind(storage: Storage, prefix: str) -> None:
    before = asyncio.all_tasks()
    for _ in range(5):
        async with aclosing(storage.watch(prefix, after=await storage.current_revision())) as watch:
            assert await anext(watch) in ((), [])
    assert asyncio.all_tasks() == before
