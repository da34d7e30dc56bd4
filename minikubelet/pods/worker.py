"""One pod on this node, from admission to oblivion.

My job: the order of things: admit, address, volumes, sandbox, init containers, containers, and all of it backwards. I
own the pod's sandbox, address, volumes and supervisors, and the tasks that run them. Neighbours: `workers` starts me
and tells me what changed; `containers` knows each container; `reporter` tells the API server. Rule: whatever the API
server says, containers end before the pod is forgotten, and nothing of the pod stays on the node after that.
"""

import asyncio
import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from minikubelet.clock import parse_rfc3339, rfc3339, wait_until
from minikubelet.events import NORMAL, WARNING
from minikubelet.logline import kv
from minikubelet.pods import admission
from minikubelet.pods.addresses import OutOfAddresses
from minikubelet.pods.containers import ContainerSupervisor
from minikubelet.pods.context import PodContext, referenced_objects
from minikubelet.pods.dns import host_name
from minikubelet.pods.launch import PodPlace, log_directory
from minikubelet.pods.podref import (
    ContainerKind,
    containers,
    is_finished,
    is_host_network,
    is_static,
    pod_ref,
    termination_grace,
)
from minikubelet.pods.podstate import PodEvent, PodState, next_state
from minikubelet.pods.records import ContainerRecord, Waiting, initial_records
from minikubelet.pods.reporter import StatusReporter
from minikubelet.pods.status import PodFacts, build
from minikubelet.pods.surroundings import Surroundings
from minikubelet.pods.volumekeeper import VolumeKeeper
from minikubelet.runtime.interface import RuntimeFailure, SandboxSpec
from minikubelet.volumes.errors import VolumeError

JSON = dict[str, Any]

RETRY_FIRST, RETRY_LAST = 0.5, 120.0
DEADLINE = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A wish to end the pod. `failure`: (reason, message) if the node itself gives it up."""

    grace: float
    failure: tuple[str, str] | None = None


class PodWorker:
    """One pod. `run` ends when the pod is gone from the node; the task it runs in belongs to `workers`."""

    def __init__(self, around: Surroundings, pod: JSON, others: Callable[[], Iterable[JSON]]) -> None:
        ref = pod_ref(pod)
        kubelet = around.config.kubelet
        place = PodPlace("", around.config.node_name, kubelet.cluster_domain, kubelet.cluster_dns,
                         around.config.root_dir / "pods" / ref.uid, around.config.log_dir)
        self.ref = ref
        self.state = PodState.ADMITTING
        self._around = around
        self._others = others
        self._context = PodContext(around, pod, ref, place, around.volumes_of(pod, place.pod_dir), self._report)
        self._context.records = initial_records(pod, rfc3339(around.clock.now()))
        self.supervisors = {name: ContainerSupervisor(self._context, record)
                            for name, record in self._context.records.items()}
        status = pod.get("status") or {}
        target = None if is_static(pod) else ref
        self.reporter = StatusReporter(around.client, around.clock, target, status)
        self._facts = PodFacts(host_ip=around.config.node_ip, pod_ip=status.get("podIP", ""),
                               start_time=status.get("startTime", ""))
        self._is_silent = True
        self._stop_request: StopRequest | None = None
        self._stop_asked = asyncio.Event()
        self._hastened = asyncio.Event()
        self._forget_asked = asyncio.Event()
        self.is_removed = False
        self._volumes = VolumeKeeper(self._context)
        self._ephemerals_wanted = asyncio.Event()
        if pod["metadata"].get("deletionTimestamp"):
            self._on_deletion()

    # What others see

    @property
    def pod(self) -> JSON:
        return self._context.pod

    @property
    def context(self) -> PodContext:
        return self._context

    @property
    def records(self) -> dict[str, ContainerRecord]:
        return self._context.records

    @property
    def pod_ip(self) -> str:
        return self._facts.pod_ip

    @property
    def uses_resources(self) -> bool:
        return self.state not in (PodState.TERMINATED, PodState.GONE)

    def status(self) -> JSON:
        if self._is_silent:
            return self.reporter.known
        return build(self.pod, self.records, self._facts, self.reporter.known, rfc3339(self._around.clock.now()))

    # What others tell

    def update(self, pod: JSON) -> None:
        """The newest pod from the API server or the manifest."""
        before, self._context.pod = self._context.pod, pod
        if not is_static(pod):
            self.reporter.observe(pod)
        if before["metadata"].get("labels") != pod["metadata"].get("labels") or \
                before["metadata"].get("annotations") != pod["metadata"].get("annotations"):
            self._volumes.dirty.set()
        if before["spec"] != pod["spec"]:
            self._respec(pod)
        if pod["metadata"].get("deletionTimestamp"):
            self._on_deletion()
        elif not self._is_silent:
            # Readiness gates and the generation are others' to set and ours to show.
            self._report()

    def removed(self) -> None:
        """The API server (or the manifest folder) no longer has the pod."""
        self.is_removed = True
        self.reporter.target = None
        self._on_deletion()

    def _on_deletion(self) -> None:
        self.stop(StopRequest(termination_grace(self.pod)))
        self._forget_asked.set()

    def stop(self, request: StopRequest) -> None:
        """End the pod. A later wish counts only if it leaves less time."""
        if self._stop_request is None:
            self._stop_request = request
            self._stop_asked.set()
        elif request.grace < self._stop_request.grace:
            self._stop_request = replace(self._stop_request, grace=request.grace)
            self._hastened.set()

    def _respec(self, pod: JSON) -> None:
        for kind, spec in containers(pod):
            if (supervisor := self.supervisors.get(spec["name"])) is not None:
                supervisor.respec(spec)
            elif kind is ContainerKind.EPHEMERAL:
                record = self._context.records[spec["name"]] = ContainerRecord(kind, spec, Waiting("ContainerCreating"))
                self.supervisors[spec["name"]] = ContainerSupervisor(self._context, record)
                self._ephemerals_wanted.set()
        self._hold_references()

    def _objects_changed(self) -> None:
        self._volumes.dirty.set()
        for supervisor in self.supervisors.values():
            supervisor.nudge()

    # The life

    async def run(self) -> None:
        log.info("pod.known %s", kv(pod=self.ref, uid=self.ref.uid))
        try:
            async with asyncio.TaskGroup() as tasks:
                reporting = tasks.create_task(self.reporter.run(), name=f"status {self.ref}")
                await self._live()
                reporting.cancel()
        finally:
            self._around.references.release(self.ref.uid)
            self._around.addresses.release(self.ref.uid)
        log.info("pod.gone %s", kv(pod=self.ref))

    async def _live(self) -> None:
        if is_finished(self.pod):
            # It ended under an earlier kubelet process: nothing to run, nothing new to say.
            self.state = PodState.TERMINATED
        elif self._admit():
            await self._run_until_stopped()
        await self._forget_asked.wait()
        await self._forget()

    def _move(self, event: PodEvent) -> None:
        self.state = next_state(self.state, event)
        log.debug("pod.state %s", kv(pod=self.ref, state=self.state.value))

    def _report(self) -> None:
        if not self._is_silent:
            self.reporter.set(self.status())

    def _admit(self) -> bool:
        self._is_silent = False
        if not self._facts.start_time:
            self._facts = replace(self._facts, start_time=rfc3339(self._around.clock.now()))
        if self._stop_request is None and not is_static(self.pod):
            rejection = admission.admit(self.pod, self._around.node.current, self._others())
            if rejection is not None:
                self._move(PodEvent.REJECTED)
                self._facts = replace(self._facts, failure=(rejection.reason, rejection.message), is_ended=True)
                self._context.event(WARNING, rejection.reason, rejection.message)
                self._report()
                return False
        self._move(PodEvent.ADMITTED)
        self._report()
        return True

    async def _run_until_stopped(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            bring_up = tasks.create_task(self._bring_up(), name=f"containers {self.ref}")
            asked = tasks.create_task(self._stop_asked.wait(), name=f"stop {self.ref}")
            deadline = tasks.create_task(self._watch_deadline(), name=f"deadline {self.ref}")
            await asyncio.wait((bring_up, asked), return_when=asyncio.FIRST_COMPLETED)
            for task in (bring_up, asked, deadline):
                task.cancel()
        stopped = self._stop_request is not None
        self._move(PodEvent.STOP if stopped or self.state is PodState.SETTING_UP else PodEvent.COMPLETED)
        await self._terminate()

    async def _watch_deadline(self) -> None:
        started = parse_rfc3339(self._facts.start_time)
        while True:
            seconds = self.pod["spec"].get("activeDeadlineSeconds")
            if seconds is None:
                await self._around.clock.sleep(10.0)
                continue
            left = float(seconds) - (self._around.clock.now() - started).total_seconds()
            if left <= 0:
                self._context.event(NORMAL, *DEADLINE)
                self.stop(StopRequest(termination_grace(self.pod), DEADLINE))
                return
            await self._around.clock.sleep(min(left, 10.0))

    # Up

    async def _bring_up(self) -> None:
        """Returns when every container is over for good."""
        self._hold_references()
        await self._set_up()
        self._move(PodEvent.SET_UP)
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(self._volumes.run(), name=f"volumes {self.ref}"),
                      tasks.create_task(self._run_ephemerals(), name=f"ephemeral {self.ref}")]
            if await self._initialize(tasks, beside):
                async with asyncio.TaskGroup() as mains:
                    for supervisor in self._of(ContainerKind.MAIN):
                        mains.create_task(supervisor.run(), name=f"container {self.ref} {supervisor.record.name}")
            for task in beside:
                task.cancel()

    def _of(self, *kinds: ContainerKind) -> list[ContainerSupervisor]:
        return [supervisor for supervisor in self.supervisors.values() if supervisor.record.kind in kinds]

    def _hold_references(self) -> None:
        self._around.references.hold(self.ref.uid, referenced_objects(self.pod), self._objects_changed)

    async def _set_up(self) -> None:
        """Address, volumes, sandbox: tried until they stand."""
        delay = RETRY_FIRST
        while True:
            try:
                await self._set_up_once()
                return
            except VolumeError as error:
                self._context.event(WARNING, error.event, str(error))
            except (OutOfAddresses, RuntimeFailure, OSError) as error:
                self._context.event(WARNING, "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            self._volumes.dirty.clear()
            await wait_until(self._volumes.dirty, self._around.clock, delay)
            delay = min(delay * 2, RETRY_LAST)

    async def _set_up_once(self) -> None:
        config = self._around.config
        if is_host_network(self.pod):
            address = config.node_ip
        else:
            address = self._around.addresses.allocate(self.ref.uid, self._facts.pod_ip)
        context = self._context
        context.place = replace(context.place, pod_ip=address)
        context.place.pod_dir.mkdir(parents=True, exist_ok=True)
        self._facts = replace(self._facts, pod_ip=address)
        await context.volumes.set_up(context.with_addresses())
        spec = self.pod["spec"]
        if context.sandbox is None:
            context.sandbox = await self._around.runtime.create_sandbox(SandboxSpec(
                self.ref, host_name(self.pod, config.node_name), address, is_host_network(self.pod),
                bool(spec.get("hostPID")), bool(spec.get("hostIPC")), bool(spec.get("shareProcessNamespace"))))
        self._facts = replace(self._facts, has_sandbox=True)
        self._report()

    async def _initialize(self, tasks: asyncio.TaskGroup, beside: list["asyncio.Task[None]"]) -> bool:
        """Init containers in order; False if one failed for good. Sidecars go on in `beside`."""
        for supervisor in self._of(ContainerKind.INIT, ContainerKind.SIDECAR):
            name = f"container {self.ref} {supervisor.record.name}"
            if supervisor.record.kind is ContainerKind.SIDECAR:
                beside.append(tasks.create_task(supervisor.run(), name=name))
                await supervisor.started.wait()
                continue
            if not supervisor.record.has_succeeded:
                await supervisor.run()
            if not supervisor.record.has_succeeded:
                return False
        for supervisor in self._of(ContainerKind.MAIN):
            if isinstance(supervisor.record.state, Waiting) and supervisor.record.state.reason == "PodInitializing":
                supervisor.record.state = Waiting("ContainerCreating")
        return True

    async def _run_ephemerals(self) -> None:
        """Ephemeral containers come at any time and run once."""
        running: set[str] = set()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._ephemerals_wanted.clear()
                for supervisor in self._of(ContainerKind.EPHEMERAL):
                    name = supervisor.record.name
                    if name not in running:
                        running.add(name)
                        tasks.create_task(supervisor.run(self._target_of(supervisor)),
                                          name=f"container {self.ref} {name}")
                await self._ephemerals_wanted.wait()

    def _target_of(self, ephemeral: ContainerSupervisor) -> str | None:
        target = self.supervisors.get(ephemeral.record.spec.get("targetContainerName") or "")
        return target.container.id if target is not None and target.container is not None else None

    # Down

    async def _terminate(self) -> None:
        """Containers first, then sidecars in reverse order, within one grace; then everything the pod held."""
        request = self._stop_request or StopRequest(termination_grace(self.pod))
        if request.failure is not None:
            self._facts = replace(self._facts, failure=request.failure)
        async with asyncio.TaskGroup() as tasks:
            hasten = tasks.create_task(self._hasten(), name=f"hasten {self.ref}")
            await self._stop_containers(request.grace)
            hasten.cancel()
        for supervisor in self.supervisors.values():
            await supervisor.discard()
        if self._context.sandbox is not None:
            await self._around.runtime.remove_sandbox(self._context.sandbox)
            self._context.sandbox = None
        await self._context.volumes.tear_down()
        self._around.references.release(self.ref.uid)
        self._around.addresses.release(self.ref.uid)
        self._around.tokens.forget(self.ref)
        self._move(PodEvent.STOPPED)
        self._facts = replace(self._facts, has_sandbox=False, is_ended=True)
        self._report()

    async def _stop_containers(self, grace: float) -> None:
        clock = self._around.clock
        began = clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for supervisor in self._of(ContainerKind.INIT, ContainerKind.MAIN, ContainerKind.EPHEMERAL):
                tasks.create_task(supervisor.stop(grace), name=f"stop {self.ref} {supervisor.record.name}")
        for supervisor in reversed(self._of(ContainerKind.SIDECAR)):
            await supervisor.stop(max(grace - (clock.monotonic() - began), 0.0))

    async def _hasten(self) -> None:
        while True:
            await self._hastened.wait()
            self._hastened.clear()
            if self._stop_request is not None:
                grace = self._stop_request.grace
                await asyncio.gather(*(supervisor.hasten(grace) for supervisor in self.supervisors.values()))

    async def _forget(self) -> None:
        """The last word to the API server, then nothing of the pod is left here."""
        if not self.is_removed:
            await self.reporter.flushed()
            await self.reporter.delete()
        self._move(PodEvent.FORGOTTEN)
        await asyncio.to_thread(self._remove_files)

    def _remove_files(self) -> None:
        shutil.rmtree(self._context.place.pod_dir, ignore_errors=True)
        shutil.rmtree(log_directory(self._context.place.log_dir, self.ref), ignore_errors=True)
