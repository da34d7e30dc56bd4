"""Storage in etcd v3, for those who outgrow one machine.

My job: storage as `interface` words it, by etcd's transactions, ranges, leases and watches. Keys are used as they are
(`/registry/...`), so the key space has upstream's shape. I own no data; `etcd_gateway` moves the bytes.
"""

import asyncio
import math
import ssl
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from miniapiserver.storage.etcd_gateway import JSON, OUT_OF_RANGE, EtcdError, Gateway
from miniapiserver.storage.interface import (
    Compacted,
    Conflict,
    Event,
    EventType,
    FutureRevision,
    KeyExists,
    KeyValue,
    RangeResult,
    StorageUnavailable,
)

WATCH_IDLE = 10.0  # seconds of silence after which a watch asks whether the store went on without it
COMPACTED_TIMEOUT = 3.0
LEASE_REUSE_SECONDS = 60.0  # as upstream: keys of about the same lifetime share a lease
LEASE_REUSE_SHARE = 0.05
LEASE_KEYS = 1000
EVERYTHING = b"\0"


@dataclass(slots=True)
class _Lease:
    id: str
    expires: float
    keys: int


class EtcdStorage:
    """Lives as an async context. `tls` None speaks plain HTTP, for loopback only."""

    def __init__(self, endpoints: Sequence[str], tls: ssl.SSLContext | None = None) -> None:
        self._gateway = Gateway(endpoints, tls)
        self._leases: dict[float, _Lease] = {}

    async def __aenter__(self) -> Self:
        await self._gateway.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self._gateway.__aexit__(kind, error, trace)

    # --- reading

    async def current_revision(self) -> int:
        """A linearizable read of nothing: its header has the revision, whoever wrote it."""
        answer = await self._gateway.post("/v3/kv/range", {"key": _text(EVERYTHING), "limit": 1, "keys_only": True})
        return _revision(answer)

    async def get(self, key: str) -> KeyValue | None:
        answer = await self._gateway.post("/v3/kv/range", {"key": _text(key.encode())})
        items = answer.get("kvs")
        return _key_value(items[0]) if items else None

    async def range(self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0) -> RangeResult:
        low = max(prefix, start).encode() or EVERYTHING
        request = {"key": _text(low), "range_end": _text(_end(prefix)), "limit": limit, "revision": revision}
        try:
            answer = await self._gateway.post("/v3/kv/range", request)
        except EtcdError as error:
            raise await self._out_of_range(error, revision) from error
        items = [_key_value(item) for item in answer.get("kvs", ())]
        return RangeResult(items, revision or _revision(answer), bool(answer.get("more")), int(answer.get("count", 0)))

    async def _out_of_range(self, error: EtcdError, asked: int) -> Exception:
        """etcd has one code for both sides and tells them apart by text only; the revisions tell it too."""
        if error.code != OUT_OF_RANGE:
            return StorageUnavailable(str(error))
        current = await self.current_revision()
        if asked > current:
            return FutureRevision(asked, current)
        try:
            async with asyncio.timeout(COMPACTED_TIMEOUT), aclosing(self.watch("", after=asked)) as watch:
                async for _ in watch:
                    pass  # a watch is told to what revision the store is compacted; a range is not
        except Compacted as compacted:
            return compacted
        except TimeoutError:
            pass
        return Compacted(asked + 1)

    # --- writing

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        put = await self._put(key, value, ttl)
        answer = await self._write(key, {"target": "CREATE", "create_revision": "0"}, put)
        if not answer.get("succeeded"):
            raise KeyExists(key)
        return _revision(answer)

    async def update(self, key: str, value: bytes, *, expected: int, ttl: float | None = None) -> int:
        put = await self._put(key, value, ttl)
        return self._swapped(key, await self._write(key, {"target": "MOD", "mod_revision": str(expected)}, put))

    async def delete(self, key: str, *, expected: int) -> int:
        remove = {"request_delete_range": {"key": _text(key.encode())}}
        return self._swapped(key, await self._write(key, {"target": "MOD", "mod_revision": str(expected)}, remove))

    async def _write(self, key: str, compare: JSON, change: JSON) -> JSON:
        encoded = _text(key.encode())
        request = {"compare": [{"key": encoded, "result": "EQUAL"} | compare], "success": [change],
                   "failure": [{"request_range": {"key": encoded}}]}
        try:
            return await self._gateway.post("/v3/kv/txn", request)
        except EtcdError as error:
            self._leases.clear()  # a lease may have run out between being chosen and being used
            raise StorageUnavailable(str(error)) from error

    def _swapped(self, key: str, answer: JSON) -> int:
        if answer.get("succeeded"):
            return _revision(answer)
        found = answer["responses"][0]["response_range"].get("kvs")
        raise Conflict(key, _key_value(found[0]) if found else None)

    async def _put(self, key: str, value: bytes, ttl: float | None) -> JSON:
        put = {"key": _text(key.encode()), "value": _text(value)}
        if ttl is not None:
            put["lease"] = await self._lease(ttl)
        return {"request_put": put}

    async def _lease(self, ttl: float) -> str:
        """A lease that runs out no earlier than `ttl` from now, and little later."""
        now = time.monotonic()
        lease = self._leases.get(ttl)
        if lease is None or lease.expires < now + ttl or lease.keys >= LEASE_KEYS:
            seconds = math.ceil(ttl + min(LEASE_REUSE_SECONDS, ttl * LEASE_REUSE_SHARE))
            try:
                answer = await self._gateway.post("/v3/lease/grant", {"TTL": seconds})
            except EtcdError as error:
                raise StorageUnavailable(str(error)) from error
            lease = self._leases[ttl] = _Lease(answer["ID"], now + int(answer["TTL"]), 0)
        lease.keys += 1
        return lease.id

    async def compact(self, revision: int) -> None:
        try:
            await self._gateway.post("/v3/kv/compaction", {"revision": revision})
        except EtcdError as error:
            problem = await self._out_of_range(error, revision)
            if not isinstance(problem, Compacted):
                raise problem from error

    # --- watching

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Sequence[Event], None]:
        # From `after` itself and not the one behind: etcd refuses what is below its compaction, and at the very
        # revision of it a deletion may be gone already. What was asked for is still exactly what comes out.
        request = {"create_request": {
            "key": _text(prefix.encode() or EVERYTHING), "range_end": _text(_end(prefix)),
            "start_revision": str(max(after, 1)), "prev_kv": True, "progress_notify": True, "fragment": True}}
        seen, silent = after, False
        fragments: list[JSON] = []
        try:
            async with aclosing(self._gateway.stream("/v3/watch", request, WATCH_IDLE)) as results:
                async for result in results:
                    if result is None:
                        silent = await self._check_silence(prefix, seen, silent)
                        continue
                    silent = False
                    _check_canceled(result)
                    fragments += [event for event in result.get("events", ())
                                  if int(event["kv"]["mod_revision"]) > after]
                    if not result.get("fragment"):
                        events = [_event(event) for event in fragments]
                        fragments.clear()
                        seen = events[-1].revision if events else seen
                        yield events
        except EtcdError as error:
            raise StorageUnavailable(str(error)) from error

    async def _check_silence(self, prefix: str, seen: int, silent_before: bool) -> bool:
        """A dead connection is silent too. Only a watch of everything can tell: it misses no revision."""
        if prefix or await self.current_revision() <= seen:
            return False
        if silent_before:
            raise StorageUnavailable(f"etcd: the watch is silent, but revisions after {seen} exist")
        return True


def _check_canceled(result: JSON) -> None:
    if oldest := int(result.get("compact_revision", 0)):
        raise Compacted(oldest)
    if result.get("canceled"):
        raise StorageUnavailable(f"etcd: watch canceled: {result.get('cancel_reason', '')}")


def _event(event: JSON) -> Event:
    current, old = event["kv"], event.get("prev_kv")
    key, revision = b64decode(current["key"]).decode(), int(current["mod_revision"])
    previous = _key_value(old) if old else None
    if event.get("type") == "DELETE":
        if previous is None:  # compacted while it was on its way: this watch has lost something
            raise Compacted(revision)
        return Event(EventType.DELETE, key, revision, None, previous)
    if previous is None and int(current["version"]) > 1:
        raise Compacted(revision)
    return Event(EventType.PUT, key, revision, _key_value(current), previous)


def _key_value(item: dict[str, Any]) -> KeyValue:
    return KeyValue(b64decode(item["key"]).decode(), b64decode(item.get("value", "")),
                    int(item["create_revision"]), int(item["mod_revision"]))


def _revision(answer: JSON) -> int:
    return int(answer["header"]["revision"])


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _end(prefix: str) -> bytes:
    """The first key behind every key that begins with `prefix`; etcd's "\\0" means no end."""
    data = prefix.encode().rstrip(b"\xff")
    return data[:-1] + bytes([data[-1] + 1]) if data else EVERYTHING
