"""The watch cache over the embedded engine."""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from miniapiserver.errors import BadRequest
from miniapiserver.selectors import parse_field_selector, parse_label_selector, predicate
from miniapiserver.storage.interface import Compacted, FutureRevision
from miniapiserver.storage.sqlite import SQLiteStorage
from miniapiserver.watchcache import (
    Watch,
    WatchCache,
    WatchCaches,
    WatchEventType,
    decode_continue,
    encode_continue,
    items_json,
    splice,
)
from miniapiserver.watchcache import watch as watch_module

ADDED, MODIFIED, DELETED = WatchEventType.ADDED, WatchEventType.MODIFIED, WatchEventType.DELETED


def pod(name: str, namespace: str = "default", node: str = "", **labels: str) -> bytes:
    return orjson.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": {
        "name": name, "namespace": namespace, "labels": labels}, "spec": {"nodeName": node}})


def fields(obj: dict[str, Any]) -> Mapping[str, str]:
    return {"metadata.name": obj["metadata"]["name"], "spec.nodeName": obj["spec"]["nodeName"]}


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SQLiteStorage]:
    async with SQLiteStorage(tmp_path / "state.db") as opened:
        yield opened


@pytest.fixture
async def caches(storage: SQLiteStorage) -> AsyncIterator[WatchCaches]:
    async with WatchCaches(storage) as opened:
        yield opened


@pytest.fixture
async def pods(caches: WatchCaches) -> WatchCache:
    cache = caches.cache("pods", fields, kind="Pod", api_version="v1")
    await cache.start()
    return cache


async def create(cache: WatchCache, name: str, namespace: str = "default", node: str = "", **labels: str) -> int:
    return await cache.create(cache.key(namespace, name), pod(name, namespace, node, **labels))


async def told(watch: Watch, count: int) -> list[tuple[str, str, int]]:
    """The next `count` events as (type, name, revision)."""
    seen = []
    async with asyncio.timeout(5):
        while len(seen) < count:
            event = await anext(watch)
            line = orjson.loads(event.data)
            metadata = line["object"]["metadata"]
            assert metadata["resourceVersion"] == str(event.revision)
            seen.append((line["type"], metadata.get("name", ""), event.revision))
    return seen


def test_the_resource_version_is_the_first_field_of_metadata() -> None:
    assert splice(b'{"kind":"A","apiVersion":"v1","metadata":{"name":"x"}}', 7) == (
        b'{"kind":"A","apiVersion":"v1","metadata":{"resourceVersion":"7","name":"x"}}')
    assert splice(b'{"kind":"A","apiVersion":"v1","metadata":{}}', 7) == (
        b'{"kind":"A","apiVersion":"v1","metadata":{"resourceVersion":"7"}}')


async def test_a_write_that_returned_is_shown(pods: WatchCache) -> None:
    for number in range(50):
        revision = await create(pods, f"p{number}")
        held = pods.get(pods.key("default", f"p{number}"))
        assert held is not None
        assert held.revision == revision == pods.revision


async def test_a_list_shows_items_without_kind_in_key_order(pods: WatchCache) -> None:
    for name in ("b", "a", "c"):
        await create(pods, name)
    await create(pods, "z", "aaa")
    await create(pods, "y", "default0")
    whole = orjson.loads(b"[" + items_json(pods.list().items) + b"]")
    assert [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in whole] == [
        ("aaa", "z"), ("default", "a"), ("default", "b"), ("default", "c"), ("default0", "y")]
    assert all(set(item) == {"metadata", "spec"} for item in whole)
    assert [item.name for item in pods.list("default").items] == ["a", "b", "c"]
    assert items_json([]) == b""
    assert orjson.loads(pods.list("aaa").items[0].item) == whole[0]


async def test_pages_show_the_state_of_the_first_page(pods: WatchCache) -> None:
    for number in range(10):
        await create(pods, f"p{number}")
    first = pods.list("default", limit=4)
    assert (first.remaining, [item.name for item in first.items]) == (6, ["p0", "p1", "p2", "p3"])
    await pods.delete(pods.key("default", "p5"), expected=pods.list().items[5].revision)
    await create(pods, "p55")
    p6 = pods.get(pods.key("default", "p6"))
    assert p6
    await pods.update(p6.key, pod("p6", node="changed"), expected=p6.revision)
    second = await pods.list_at(first.revision, "default", limit=4, start=first.next_key)
    third = await pods.list_at(first.revision, "default", limit=4, start=second.next_key)
    assert [item.name for item in second.items] == ["p4", "p5", "p6", "p7"]
    assert b"changed" not in second.items[2].data
    assert (second.revision, second.remaining) == (first.revision, 2)
    assert [item.name for item in third.items] == ["p8", "p9"]
    assert third.next_key == ""


async def test_a_page_older_than_memory_comes_from_storage(pods: WatchCache, storage: SQLiteStorage) -> None:
    for number in range(5):
        await create(pods, f"p{number}")
    first = pods.list(limit=2)
    await create(pods, "later")
    pods._history.floor = pods.revision
    pods._history._changes.clear()
    rest = await pods.list_at(first.revision, limit=10, start=first.next_key)
    assert [item.name for item in rest.items] == ["p2", "p3", "p4"]
    assert [item.name for item in (await pods.list_at(first.revision, limit=1, start=first.next_key)).items] == ["p2"]
    await storage.compact(pods.revision)
    with pytest.raises(Compacted):
        await pods.list_at(first.revision, limit=10, start=first.next_key)


async def test_a_selector_filters_lists(pods: WatchCache) -> None:
    await create(pods, "a", node="n1", app="web")
    await create(pods, "b", node="n2", app="web")
    await create(pods, "c", node="n2", app="db")
    known = ("metadata.name", "spec.nodeName")

    def chosen(labels: str, where: str) -> list[str]:
        selects = predicate(parse_label_selector(labels), parse_field_selector(where, known))
        return [item.name for item in pods.list(None, selects).items]

    assert chosen("app=web", "") == ["a", "b"]
    assert chosen("app notin (web)", "") == ["c"]
    assert chosen("", "spec.nodeName=n2") == ["b", "c"]
    assert chosen("app=web", "spec.nodeName=n2") == ["b"]
    assert chosen("", "spec.nodeName!=n2,metadata.name!=x") == ["a"]
    assert chosen("", "") == ["a", "b", "c"]


async def test_a_watch_of_everything_sees_the_state_then_what_happens(pods: WatchCache) -> None:
    one = await create(pods, "one")
    async with await pods.watch() as watch:
        two = await pods.update(pods.key("default", "one"), pod("one", node="n"), expected=one)
        three = await pods.delete(pods.key("default", "one"), expected=two)
        assert await told(watch, 3) == [("ADDED", "one", one), ("MODIFIED", "one", two), ("DELETED", "one", three)]


async def test_a_watch_from_a_revision_replays_what_it_missed(pods: WatchCache) -> None:
    one, two = await create(pods, "one"), await create(pods, "two")
    async with await pods.watch(after_revision=one) as watch:
        three = await create(pods, "three")
        assert await told(watch, 2) == [("ADDED", "two", two), ("ADDED", "three", three)]


async def test_a_watch_from_the_future_waits(pods: WatchCache) -> None:
    now = await create(pods, "one")
    async with await pods.watch(after_revision=now + 2) as watch:
        for name in ("two", "three", "four"):
            last = await create(pods, name)
        assert await told(watch, 1) == [("ADDED", "four", last)]


async def test_scope_limits_what_a_watch_sees(pods: WatchCache) -> None:
    start = pods.revision
    watches = {scope: await pods.watch(*scope, after_revision=start) for scope in (
        (None, None), ("a", None), (None, "x"), ("a", "x"))}
    for namespace, name in (("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")):
        await create(pods, name, namespace)
    counts = {scope: len(await watch.batch()) for scope, watch in watches.items()}
    assert counts == {(None, None): 4, ("a", None): 2, (None, "x"): 2, ("a", "x"): 1}
    for watch in watches.values():
        watch.close()
    assert not pods.watches()
    assert [len(await (await pods.watch(*scope)).batch()) for scope in counts] == [4, 2, 2, 1]


async def test_an_object_that_stops_matching_is_deleted_with_the_new_revision_and_the_old_content(
        pods: WatchCache) -> None:
    key = pods.key("default", "p")
    created = await create(pods, "p", app="web")
    selects = predicate(parse_label_selector("app=web"), parse_field_selector(""))
    async with await pods.watch(selects=selects) as watch:
        left = await pods.update(key, pod("p", app="db"), expected=created)
        unseen = await pods.update(key, pod("p", app="db2"), expected=left)
        back = await pods.update(key, pod("p", app="web"), expected=unseen)
        changed = await pods.update(key, pod("p", app="web", more="x"), expected=back)
        gone = await pods.delete(key, expected=changed)
        events = [await anext(watch) for _ in range(5)]
    assert [(event.type, event.revision) for event in events] == [
        (ADDED, created), (DELETED, left), (ADDED, back), (MODIFIED, changed), (DELETED, gone)]
    assert orjson.loads(events[1].data)["object"]["metadata"] == {
        "resourceVersion": str(left), "name": "p", "namespace": "default", "labels": {"app": "web"}}


async def test_initial_events_end_with_the_annotated_bookmark(pods: WatchCache) -> None:
    await create(pods, "one")
    async with await pods.watch(send_initial=True, bookmarks=True) as watch:
        assert [kind for kind, _, _ in await told(watch, 2)] == ["ADDED", "BOOKMARK"]
    async with await pods.watch(send_initial=True, bookmarks=True) as watch:
        await anext(watch)
        assert orjson.loads((await anext(watch)).data)["object"] == {
            "kind": "Pod", "apiVersion": "v1", "metadata": {
                "resourceVersion": str(pods.revision), "annotations": {"k8s.io/initial-events-end": "true"}}}
    async with await pods.watch(send_initial=True) as watch:
        later = await create(pods, "two")
        assert await told(watch, 2) == [("ADDED", "one", later - 1), ("ADDED", "two", later)]


async def test_bookmarks_come_to_those_who_want_them(pods: WatchCache) -> None:
    async with await pods.watch(bookmarks=True) as wants, await pods.watch() as does_not:
        revision = await create(pods, "one")
        pods.send_bookmarks()
        assert await told(wants, 2) == [("ADDED", "one", revision), ("BOOKMARK", "", revision)]
        assert len(await does_not.batch()) == 1


async def test_a_watch_ends_at_its_timeout_with_what_was_queued(pods: WatchCache) -> None:
    async with await pods.watch(timeout=0.01) as watch:
        await create(pods, "one")
        assert [event.type async for event in watch] == [ADDED]
    assert not pods.watches()


async def test_a_watcher_that_does_not_read_is_dropped_and_the_others_go_on(
        pods: WatchCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "MAX_QUEUED", 10)
    slow, quick = await pods.watch(), await pods.watch()
    for number in range(11):
        await create(pods, f"p{number}")
        assert len(await quick.batch()) == 1
    assert slow.dropped
    assert [event async for event in slow] == []
    assert not quick.dropped
    quick.close()


async def test_all_watchers_share_one_framed_line(pods: WatchCache) -> None:
    watches = [await pods.watch() for _ in range(100)]
    await create(pods, "one")
    lines = {id((await anext(watch)).data) for watch in watches}
    assert len(lines) == 1
    for watch in watches:
        watch.close()


async def test_a_restarted_server_goes_on_from_storage_history(storage: SQLiteStorage) -> None:
    async with WatchCaches(storage) as before:
        cache = before.cache("pods", fields)
        one = await create(cache, "one")
        two = await cache.update(cache.key("default", "one"), pod("one", node="n"), expected=one)
        other = before.cache("secrets", fields)
        await create(other, "noise")
        three = await cache.delete(cache.key("default", "one"), expected=two)
    async with WatchCaches(storage) as after:
        cache = after.cache("pods", fields)
        async with await cache.watch(after_revision=one) as watch:
            four = await create(cache, "four")
            assert await told(watch, 3) == [
                ("MODIFIED", "one", two), ("DELETED", "one", three), ("ADDED", "four", four)]
    await storage.compact(three)
    async with WatchCaches(storage) as after:
        with pytest.raises(Compacted):
            await after.cache("pods", fields).watch(after_revision=two)


async def test_a_cache_loaded_while_writes_go_on_misses_nothing(caches: WatchCaches, storage: SQLiteStorage) -> None:
    cache = caches.cache("pods", fields)

    async def write(worker: int) -> None:
        for number in range(100):
            await storage.create(cache.key("default", f"{worker}-{number}"), pod(f"{worker}-{number}"))

    async with asyncio.TaskGroup() as group:
        for worker in range(4):
            group.create_task(write(worker))
        await asyncio.sleep(0)
        await cache.start()
        watch = await cache.watch()
    await cache.fresh()
    assert cache.count() == 400
    seen: list[str] = []
    while len(seen) < 400:
        seen += [event.cached.name for event in await watch.batch() if event.cached]
    assert len(set(seen)) == 400
    watch.close()


async def test_a_value_that_is_no_object_is_left_out_and_ends_nothing(
        caches: WatchCaches, storage: SQLiteStorage) -> None:
    cache = caches.cache("pods", fields)
    foreign = await storage.create(cache.key("default", "before"), b"k8s\0protobuf")
    await cache.start()
    await storage.create(cache.key("default", "after"), b"not an object")
    async with await cache.watch() as watch:
        await storage.delete(cache.key("default", "before"), expected=foreign)
        good = await create(cache, "good")
        assert await told(watch, 1) == [("ADDED", "good", good)]
    assert [item.name for item in cache.list().items] == ["good"]


async def test_waiting_for_a_revision_that_does_not_come_says_so(pods: WatchCache) -> None:
    with pytest.raises(FutureRevision) as error:
        await pods.wait_until(pods.revision + 5, timeout=0.01)
    assert (error.value.asked, error.value.current) == (pods.revision + 5, pods.revision)
    waiting = asyncio.ensure_future(pods.wait_until(pods.revision + 2, timeout=5))
    await create(pods, "one")
    await create(pods, "two")
    await waiting


async def test_history_is_bounded_in_number_and_bytes(pods: WatchCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miniapiserver.watchcache.history.MAX_CHANGES", 10)
    first = await create(pods, "first")
    for number in range(20):
        last = await create(pods, f"p{number}")
    assert (len(pods._history._changes), pods._history.floor) == (10, last - 10)
    async with await pods.watch(after_revision=first) as watch:  # older ones come from storage
        assert len(await watch.batch()) == 20
    monkeypatch.setattr("miniapiserver.watchcache.history.MAX_BYTES", 300)
    await create(pods, "heavy")
    assert len(pods._history._changes) < 4


async def test_closed_caches_leave_no_task_behind(storage: SQLiteStorage) -> None:
    before = asyncio.all_tasks()
    async with WatchCaches(storage) as caches:
        watch = await caches.cache("pods", fields).watch()
    assert await watch.batch() == []
    assert asyncio.all_tasks() == before
    gc.collect()


async def test_an_error_of_the_body_passes_unwrapped(storage: SQLiteStorage) -> None:
    with pytest.raises(ZeroDivisionError):
        async with WatchCaches(storage):
            raise ZeroDivisionError


def test_a_continue_token_survives_the_round_trip() -> None:
    token = encode_continue(42, "/registry/pods/default/a\0", "/registry/pods/")
    assert decode_continue(token, "/registry/pods/") == (42, "/registry/pods/default/a\0")


@pytest.mark.parametrize(("token", "why"), [
    ("garbage", "invalid character '\\u0081' looking for beginning of value"),
    ("a*b", "illegal base64 data at input byte 1"),
])
def test_a_malformed_continue_token_is_refused_in_upstreams_words(token: str, why: str) -> None:
    with pytest.raises(BadRequest) as error:
        decode_continue(token, "/registry/pods/")
    assert error.value.message == f"invalid continue token: continue key is not valid: {why}"


@pytest.mark.parametrize("start", ["../secrets/default/a", "/../secrets/", "a/../../b", ""])
def test_a_continue_token_cannot_leave_its_prefix(start: str) -> None:
    token = encode_continue(42, start, "/registry/pods/")
    with pytest.raises(BadRequest):
        decode_continue(token, "/registry/pods/")
