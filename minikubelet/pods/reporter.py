"""One pod's status on its way to the API server.

My job: send the newest status, and only what changed; at the end delete the pod for good. I own nothing but what was
sent last. Neighbours: `worker` sets statuses, `statuspatch` makes the patch. Rule: while a patch is under way newer
statuses replace each other; a patch carries the pod's uid, so that a namesake is never written to.
"""

import asyncio
import logging
from typing import Any

from minikubelet.clock import Clock
from minikubelet.logline import kv
from minikubelet.pods.statuspatch import status_patch
from minikubelet.runtime.interface import PodRef
from wire.apiclient import STRATEGIC, APIError, Client, Conflict, Invalid, NotFound, resource_path
from wire.errors import WireError

JSON = dict[str, Any]

FIRST_RETRY, LAST_RETRY = 0.2, 10.0

log = logging.getLogger(__name__)


class StatusReporter:
    """What is told about one pod. Lives as long as its worker.

    `target` is the pod at the API server: the pod itself, or for a static pod its mirror (None until there is one).
    """

    def __init__(self, client: Client, clock: Clock, target: PodRef | None, known: JSON) -> None:
        self._client, self._clock = client, clock
        self.target = target
        self._known = known
        self._known_version = 0
        self._wanted: JSON | None = None
        self._dirty = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()

    @property
    def known(self) -> JSON:
        """The status as the API server has it, as far as we heard."""
        return self._known

    def set(self, status: JSON) -> None:
        self._wanted = status
        self._sent.clear()
        self._dirty.set()

    def observe(self, pod: JSON) -> None:
        """The API server's copy, from the watch. Older than the last answer: ignored."""
        version = _version(pod)
        if version >= self._known_version:
            self._known, self._known_version = pod.get("status") or {}, version

    def retarget(self, target: PodRef | None, status: JSON) -> None:
        """The mirror came, went, or was made anew."""
        self.target, self._known, self._known_version = target, status, 0
        if self._wanted is not None:
            self.set(self._wanted)

    async def flushed(self) -> None:
        """Returns when the newest status was sent, or cannot be sent any more."""
        await self._sent.wait()

    async def run(self) -> None:
        delay = FIRST_RETRY
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._send_newest()
                delay = FIRST_RETRY
            except (WireError, APIError) as error:
                log.debug("status.retry %s", kv(pod=self.target, error=error))
                self._dirty.set()
                await self._clock.sleep(delay)
                delay = min(delay * 2, LAST_RETRY)

    async def _send_newest(self) -> None:
        target, status = self.target, self._wanted
        if target is None or status is None:
            self._sent.set()
            return
        patch = status_patch(self._known, status)
        if patch is not None:
            await self._patch(target, patch)
        if not self._dirty.is_set():
            self._sent.set()

    async def _patch(self, target: PodRef, patch: JSON) -> None:
        body = {"metadata": {"uid": target.uid}, "status": patch}
        try:
            self.observe(await self._client.patch(_path(target, "status"), body, content_type=STRATEGIC))
        except (NotFound, Conflict):
            log.debug("status.gone %s", kv(pod=target))
        except Invalid as error:
            # Saying the same again will not help; the next change is tried anew.
            log.warning("status.refused %s", kv(pod=target, error=error))

    async def delete(self) -> None:
        """Let the API server forget the pod: its containers are gone. Tried until it is."""
        target = self.target
        if target is None:
            return
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0,
                "preconditions": {"uid": target.uid}}
        delay = FIRST_RETRY
        while True:
            try:
                await self._client.delete(_path(target), body)
                return
            except (NotFound, Conflict):
                return
            except (WireError, APIError) as error:
                log.warning("pod.delete.retry %s", kv(pod=target, error=error))
            await self._clock.sleep(delay)
            delay = min(delay * 2, LAST_RETRY)


def _path(target: PodRef, subresource: str | None = None) -> str:
    return resource_path("", "v1", "pods", target.namespace, target.name, subresource)


def _version(pod: JSON) -> int:
    text = pod["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdigit() else 0
