"""core/v1 Events: what happened to a pod or the node, for `kubectl describe`.

My job: take an event now, send it later; the same event again raises the count of the one that is there. I own a
bounded queue and the counts. Neighbours: `pods` and `node` record. Rule: events are best effort: what cannot be sent
after a few tries, or comes too fast, is dropped (upstream's EventAggregator and spam filter: 25 at once per object,
then one in 5 min).
"""

import asyncio
import logging
import random
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from minikubelet.clock import Clock, rfc3339
from minikubelet.logline import kv
from minikubelet.pods.podref import ContainerKind, field_path
from wire.apiclient import STRATEGIC, APIError, Client, NotFound, resource_path
from wire.errors import WireError

JSON = dict[str, Any]

QUEUE = 1000
REMEMBERED = 1024
BURST, REFILL_SECONDS = 25, 300.0
TRIES, FIRST_RETRY, LAST_RETRY = 12, 0.5, 10.0

NORMAL, WARNING = "Normal", "Warning"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Involved:
    """The object an event is about."""

    kind: str
    namespace: str
    name: str
    uid: str
    api_version: str = "v1"
    resource_version: str = ""
    field_path: str = ""

    @classmethod
    def pod(cls, pod: JSON, container: tuple[ContainerKind, str] | None = None) -> "Involved":
        meta = pod["metadata"]
        return cls("Pod", meta.get("namespace", "default"), meta["name"], meta.get("uid", ""), "v1",
                   meta.get("resourceVersion", ""), field_path(*container) if container else "")

    def as_json(self) -> JSON:
        body = {"kind": self.kind, "namespace": self.namespace, "name": self.name, "uid": self.uid,
                "apiVersion": self.api_version, "resourceVersion": self.resource_version, "fieldPath": self.field_path}
        return {key: value for key, value in body.items() if value}


@dataclass(frozen=True, slots=True)
class _Event:
    involved: Involved
    type: str
    reason: str
    message: str
    at: str

    @property
    def key(self) -> tuple[object, ...]:
        return (replace(self.involved, resource_version=""), self.type, self.reason, self.message)


@dataclass(slots=True)
class _Known:
    name: str
    count: int
    first: str


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class EventRecorder:
    """Takes events from anywhere; `run` sends them in order. Lives as long as the kubelet."""

    def __init__(self, client: Client, node_name: str, clock: Clock) -> None:
        self._client, self._node_name, self._clock = client, node_name, clock
        self._queue: asyncio.Queue[_Event] = asyncio.Queue(QUEUE)
        self._known: OrderedDict[tuple[object, ...], _Known] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def record(self, involved: Involved, type: str, reason: str, message: str) -> None:
        event = _Event(involved, type, reason, message[:1024], rfc3339(self._clock.now()))
        log.debug("event %s", kv(kind=involved.kind, name=involved.name, reason=reason, message=message))
        if not self._allowed(involved):
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("event.dropped %s", kv(reason=reason, name=involved.name, why="queue full"))

    def _allowed(self, involved: Involved) -> bool:
        now = self._clock.monotonic()
        key = f"{involved.kind}/{involved.namespace}/{involved.name}/{involved.uid}"
        bucket = self._buckets.setdefault(key, _Bucket(BURST, now))
        self._buckets.move_to_end(key)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.filled_at) / REFILL_SECONDS)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def run(self) -> None:
        while True:
            event = await self._queue.get()
            await self._deliver(event)

    async def _deliver(self, event: _Event) -> None:
        for attempt in range(TRIES):
            try:
                await self._send(event)
                return
            except APIError as error:
                # A refused event is dropped, as upstream does: asking again changes nothing.
                log.debug("event.refused %s", kv(reason=event.reason, error=error))
                return
            except WireError:
                await self._clock.sleep(min(FIRST_RETRY * 2**attempt, LAST_RETRY))
        log.warning("event.dropped %s", kv(reason=event.reason, name=event.involved.name, why="unreachable"))

    async def _send(self, event: _Event) -> None:
        known = self._known.get(event.key)
        if known is not None:
            known.count += 1
            patch = {"count": known.count, "lastTimestamp": event.at}
            try:
                await self._client.patch(self._path(event, known.name), patch, content_type=STRATEGIC)
                return
            except NotFound:
                known.first, known.count = event.at, 1
        await self._create(event)

    async def _create(self, event: _Event) -> None:
        name = f"{event.involved.name}.{random.getrandbits(64):016x}"
        namespace = event.involved.namespace or "default"
        await self._client.create(self._path(event), {
            "kind": "Event", "apiVersion": "v1", "metadata": {"name": name, "namespace": namespace},
            "involvedObject": event.involved.as_json(), "reason": event.reason, "message": event.message,
            "source": {"component": "kubelet", "host": self._node_name}, "type": event.type, "count": 1,
            "firstTimestamp": event.at, "lastTimestamp": event.at, "eventTime": None,
            "reportingComponent": "kubelet", "reportingInstance": self._node_name})
        self._known[event.key] = _Known(name, 1, event.at)
        self._known.move_to_end(event.key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _path(self, event: _Event, name: str | None = None) -> str:
        return resource_path("", "v1", "events", event.involved.namespace or "default", name)
