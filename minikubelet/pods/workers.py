"""All pods of this node: who works on which.

My job: one worker task per pod, told of every change; an index of them for the server. I own the tasks. Neighbours:
the pod informer and `staticpods` feed me. Rule: a worker that fails takes no other with it; its pod is tried again.
"""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

from minikubelet.logline import kv
from minikubelet.pods.podref import is_mirror, pod_ref
from minikubelet.pods.podstate import PodState
from minikubelet.pods.surroundings import Surroundings
from minikubelet.pods.worker import PodWorker
from wire.informer import DELETED

JSON = dict[str, Any]

RETRY = 10.0

log = logging.getLogger(__name__)


class PodWorkers:
    """Every pod this node works on, by uid. Lives as long as the kubelet."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._workers: dict[str, PodWorker] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._early: list[JSON] = []

    async def run(self) -> None:
        """The parent of all workers; cancelling it leaves the containers to the runtime's end."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            early, self._early = self._early, []
            for pod in early:
                self.put(pod)
            await asyncio.Event().wait()

    # Fed by the sources

    def on_api_pod(self, event: str, new: JSON | None, old: JSON | None) -> None:
        """The informer's callback. Mirror pods are `staticpods`' business."""
        pod = new or old
        if pod is None or is_mirror(pod):
            return
        if old is not None and pod_ref(old).uid != pod_ref(pod).uid:
            self.remove(pod_ref(old).uid)
        if event == DELETED:
            self.remove(pod_ref(pod).uid)
        else:
            self.put(pod)

    def put(self, pod: JSON) -> None:
        if self._tasks is None:
            self._early.append(pod)
            return
        uid = pod_ref(pod).uid
        worker = self._workers.get(uid)
        if worker is not None:
            worker.update(pod)
            return
        worker = self._workers[uid] = PodWorker(self._around, pod, lambda: self._admitted_beside(uid))
        self._tasks.create_task(self._work(worker), name=f"pod {worker.ref}")

    def remove(self, uid: str) -> None:
        self._early = [pod for pod in self._early if pod_ref(pod).uid != uid]
        worker = self._workers.get(uid)
        if worker is not None:
            worker.removed()

    async def _work(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        except* Exception as group:
            # A defect of ours in one pod must not end the others: say it loudly, clear up, try the pod anew.
            log.error("pod.worker.failed %s", kv(pod=worker.ref, error=group.exceptions[0]), exc_info=group)
            await self._clear_up(worker)
        finally:
            if self._workers.get(worker.ref.uid) is worker:
                del self._workers[worker.ref.uid]
        if worker.state is not PodState.GONE:
            await self._around.clock.sleep(RETRY)
            if worker.ref.uid not in self._workers and not worker.is_removed:
                self.put(worker.pod)

    async def _clear_up(self, worker: PodWorker) -> None:
        sandbox, worker.context.sandbox = worker.context.sandbox, None
        try:
            if sandbox is not None:
                await self._around.runtime.remove_sandbox(sandbox)
            await worker.context.volumes.tear_down()
        except Exception:
            log.exception("pod.worker.uncleared %s", kv(pod=worker.ref))

    def _admitted_beside(self, uid: str) -> list[JSON]:
        return [worker.pod for key, worker in self._workers.items()
                if key != uid and worker.uses_resources and worker.state is not PodState.ADMITTING]

    # Asked by the server

    def __iter__(self) -> Iterator[PodWorker]:
        return iter(list(self._workers.values()))

    def find(self, namespace: str, name: str, uid: str | None = None) -> PodWorker | None:
        """The pod of that name; while a namesake is still ending, the newer one."""
        found = [worker for worker in self._workers.values()
                 if (worker.ref.namespace, worker.ref.name) == (namespace, name) and uid in (None, worker.ref.uid)]
        return found[-1] if found else None

    def get(self, uid: str) -> PodWorker | None:
        return self._workers.get(uid)
