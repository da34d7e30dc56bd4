"""The ConfigMaps and Secrets this node's pods refer to: read when needed, watched while used.

My job: `get` one object, and tell who uses it when it changed. I own one watch per object (the Node authorizer allows
no wider one) for as long as at least one pod holds it. Neighbours: `containers` (environment), `volumes` through the
worker. Rule: a read before the watch has caught up goes to the API server itself, so nobody sees an object older than
the pod.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minikubelet.pods.environment import CONFIG_MAP, SECRET
from wire.apiclient import Client, NotFound, resource_path
from wire.informer import Informer

JSON = dict[str, Any]

_PLURAL = {CONFIG_MAP: "configmaps", SECRET: "secrets"}


@dataclass(frozen=True, slots=True)
class ObjectKey:
    kind: str
    namespace: str
    name: str


@dataclass(slots=True)
class _Watched:
    """One watched object. Lives while a pod holds it."""

    informer: Informer
    task: "asyncio.Task[None]"
    holders: dict[str, Callable[[], None]] = field(default_factory=dict)


class References:
    """All referenced objects. `run` is the parent of the watches. Lives as long as the kubelet."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._watched: dict[ObjectKey, _Watched] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await asyncio.Event().wait()
        finally:
            self._tasks = None

    async def get(self, kind: str, namespace: str, name: str) -> JSON | None:
        """The object, or None if there is none. Raises APIError or WireError."""
        watched = self._watched.get(ObjectKey(kind, namespace, name))
        if watched is not None and watched.informer.synced.is_set():
            known = watched.informer.get(namespace, name)
            if known is not None:
                return known
        try:
            return await self._client.get(resource_path("", "v1", _PLURAL[kind], namespace, name))
        except NotFound:
            return None

    def hold(self, holder: str, keys: set[ObjectKey], changed: Callable[[], None]) -> None:
        """`holder` (a pod's uid) uses exactly `keys` from now on; `changed` is called when one of them changes."""
        for key in [key for key, watched in self._watched.items() if holder in watched.holders and key not in keys]:
            self._let_go(key, holder)
        for key in keys:
            watched = self._watched.get(key) or self._watch(key)
            if watched is not None:
                watched.holders[holder] = changed

    def release(self, holder: str) -> None:
        self.hold(holder, set(), lambda: None)

    def _watch(self, key: ObjectKey) -> _Watched | None:
        if self._tasks is None:
            return None
        path = resource_path("", "v1", _PLURAL[key.kind], key.namespace)
        informer = Informer(self._client, path, fieldSelector=f"metadata.name={key.name}")
        task = self._tasks.create_task(informer.run(), name=f"{key.kind} {key.namespace}/{key.name}")
        watched = self._watched[key] = _Watched(informer, task)
        informer.subscribe(lambda kind, new, old: _tell(watched))
        return watched

    def _let_go(self, key: ObjectKey, holder: str) -> None:
        watched = self._watched[key]
        watched.holders.pop(holder, None)
        if not watched.holders:
            watched.task.cancel()
            del self._watched[key]


def _tell(watched: _Watched) -> None:
    for changed in list(watched.holders.values()):
        changed()
