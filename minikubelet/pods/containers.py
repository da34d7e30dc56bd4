"""One container of a pod, from its first start to its last end.

My job: start it, run its hooks and probes beside it, see it end, decide whether and when it starts again. I own the
runtime's container while `run` is active; after `run` was cancelled it lives on until the worker calls `stop`.
Neighbours: `starting` gets it running, `probes` and `hooks` act on it, `worker` orders the containers among each
other.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minikubelet.clock import rfc3339
from minikubelet.events import NORMAL, WARNING
from minikubelet.pods import handlers
from minikubelet.pods.backoff import Backoff, as_go_duration
from minikubelet.pods.context import PodContext
from minikubelet.pods.handlers import Outcome, Target
from minikubelet.pods.hooks import run_hook
from minikubelet.pods.launch import is_restarted
from minikubelet.pods.podref import long_name, restart_policy, termination_grace
from minikubelet.pods.probes import ContainerProbes, ProbeKind, ProbeReports
from minikubelet.pods.records import ContainerRecord, Terminated, Waiting
from minikubelet.pods.starting import ContainerStarter
from minikubelet.pods.status import stopped_reason
from minikubelet.pods.terminationmessage import termination_message
from minikubelet.runtime.interface import Container, ContainerGone, ExitStatus, LogFeed, RuntimeFailure

JSON = dict[str, Any]

MINIMUM_GRACE = 2.0
"""Every container gets this long between TERM and KILL, as upstream."""


@dataclass(frozen=True, slots=True)
class _Kill:
    """A wish to end this run of the container."""

    message: str
    grace: float


class ContainerSupervisor:
    """One container through all its restarts. Lives as long as its pod's worker."""

    def __init__(self, context: PodContext, record: ContainerRecord) -> None:
        self.record = record
        self.container: Container | None = None
        self.started = asyncio.Event()
        """Set once a run has passed its startup probe: the next init container may follow a sidecar."""
        self._context = context
        self._starter = ContainerStarter(context, record)
        self._restarts = Backoff(ceiling=context.around.config.kubelet.max_container_restart_period)
        self._kills: asyncio.Queue[_Kill] = asyncio.Queue()
        self._has_kill_pending = False
        self._has_new_spec = False
        self._ended_at = 0.0
        record.attempts = record.restart_count + 1 if record.container_id else 0

    @property
    def log_feed(self) -> LogFeed | None:
        return self.container.log_feed if self.container is not None else None

    def log_path(self, attempt: int) -> Path:
        return (self._context.place.log_dir / f"{self._context.ref.namespace}_{self._context.ref.name}_"
                f"{self._context.ref.uid}" / self.record.name / f"{attempt}.log")

    def nudge(self) -> None:
        self._starter.nudge()

    def respec(self, spec: JSON) -> None:
        """The pod was updated. Another image means another run."""
        changed = spec.get("image") != self.record.spec.get("image")
        self.record.spec = spec
        if changed:
            self._has_new_spec = True
            self._ask_kill(f"Container {self.record.name} definition changed, will be restarted", self._grace())
            self._starter.nudge()

    # Life

    async def run(self, target_id: str | None = None) -> None:
        """Keep the container as its restart policy wants it. Ends when it is over for good."""
        if not self._is_to_be_started():
            return
        is_restart = False
        while True:
            await self._wait_out_backoff()
            self._has_new_spec = False
            previous = self.container
            self.container = await self._starter.start(target_id)
            if is_restart:
                self._restarts.attempt(self._ended_at, self._context.around.clock.monotonic())
            is_restart = True
            if previous is not None:
                await previous.remove()
            if self.container is not None:
                await self._accompany(self.container)
            self._ended_at = self._context.around.clock.monotonic()
            if not self._restarts_after_end():
                return

    def _is_to_be_started(self) -> bool:
        """An earlier kubelet process may have left an end that stands."""
        return not isinstance(self.record.state, Terminated) or self._restarts_after_end()

    def _restarts_after_end(self) -> bool:
        record = self.record
        if not isinstance(record.state, Terminated) or self._has_new_spec:
            return True
        return is_restarted(record.kind, record.spec, restart_policy(self._context.pod), record.state.exit_code)

    async def _wait_out_backoff(self) -> None:
        """The first restart is at once, later ones wait; meanwhile the status says CrashLoopBackOff."""
        record = self.record
        if not isinstance(record.state, Terminated):
            return
        clock = self._context.around.clock
        delay = self._restarts.wait_after(self._ended_at)
        rest = self._ended_at + delay - clock.monotonic()
        if rest <= 0:
            return
        record.last = record.state
        record.state = Waiting("CrashLoopBackOff", f"back-off {as_go_duration(delay)} restarting failed "
                                                   f"container={record.name} pod={long_name(self._context.ref)}")
        self._context.changed()
        self._context.event(WARNING, "BackOff", f"Back-off restarting failed container {record.name} in pod "
                                                f"{long_name(self._context.ref)}", record)
        await self._starter.pause(rest)

    async def _accompany(self, container: Container) -> None:
        """Until this run is over: hooks and probes run beside it, and a wish to kill it is granted."""
        self._has_kill_pending = False
        async with asyncio.TaskGroup() as tasks:
            over = tasks.create_task(container.wait(), name=f"wait {self.record.name}")
            asked = tasks.create_task(self._kills.get(), name=f"kill {self.record.name}")
            care = tasks.create_task(self._care(container), name=f"probes {self.record.name}")
            await asyncio.wait((over, asked), return_when=asyncio.FIRST_COMPLETED)
            care.cancel()
            if not over.done():
                await self._grant(asked.result(), container)
            asked.cancel()
            status = await over
        while not self._kills.empty():
            self._kills.get_nowait()
        await self._on_end(container, status)

    async def _grant(self, kill: _Kill, container: Container) -> None:
        self._context.event(NORMAL, "Killing", kill.message, self.record)
        await self._stop_container(container, kill.grace)

    # Hooks and probes

    async def _care(self, container: Container) -> None:
        target = Target(container, self.record.spec, self._context.place.pod_ip)
        hook = (self.record.spec.get("lifecycle") or {}).get("postStart")
        if hook and (failure := await run_hook(hook, target, self._context.around.clock)):
            self._context.event(WARNING, "FailedPostStartHook", f"PostStartHook failed: {failure}"[:1000], self.record)
            self._ask_kill("FailedPostStartHook", self._grace())
            return

        async def call(probe: JSON, timeout: float) -> Outcome:
            return await handlers.run(probe, target, timeout)

        reports = ProbeReports(self._on_started, self._on_ready, self._on_result, self._on_failed)
        await ContainerProbes(self.record.spec, call, reports, self._context.around.clock).run()

    def _on_started(self) -> None:
        self.record.started = True
        self.started.set()
        self._context.changed()

    def _on_ready(self, ready: bool) -> None:
        self.record.ready = ready
        self._context.changed()

    def _on_result(self, kind: ProbeKind, outcome: Outcome) -> None:
        word = "successful" if outcome.ok else "failed"
        self._context.probe_counts[self.record.name, kind.value, word] += 1
        if not outcome.ok:
            self._context.event(WARNING, "Unhealthy", f"{kind.value} probe failed: {outcome.output}", self.record)

    def _on_failed(self, kind: ProbeKind, probe: JSON) -> None:
        own = probe.get("terminationGracePeriodSeconds")
        self._ask_kill(f"Container {self.record.name} failed {kind.value.lower()} probe, will be restarted",
                       self._grace() if own is None else float(own))

    def _ask_kill(self, message: str, grace: float) -> None:
        if self.record.is_running and not self._has_kill_pending:
            self._has_kill_pending = True
            self._kills.put_nowait(_Kill(message, grace))

    def _grace(self) -> float:
        return termination_grace(self._context.pod)

    # The end

    async def stop(self, grace: float) -> None:
        """End what runs, after `run` was cancelled. Harmless when nothing does."""
        container = self.container
        if container is None or not self.record.is_running:
            return
        if container.exit_status is None:
            self._context.event(NORMAL, "Killing", f"Stopping container {self.record.name}", self.record)
            await self._stop_container(container, grace)
        await self._on_end(container, await container.wait())

    async def hasten(self, grace: float) -> None:
        """The pod's grace was shortened while `stop` is under way."""
        if self.container is not None and self.container.exit_status is None:
            await self.container.stop(max(grace, 0.0))

    async def _stop_container(self, container: Container, grace: float) -> None:
        clock = self._context.around.clock
        began = clock.monotonic()
        hook = (self.record.spec.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            await self._pre_stop(hook, container, grace)
        await container.stop(max(grace - (clock.monotonic() - began), MINIMUM_GRACE))

    async def _pre_stop(self, hook: JSON, container: Container, grace: float) -> None:
        """The hook may take all of the grace; that the container ends meanwhile ends the hook."""
        target = Target(container, self.record.spec, self._context.place.pod_ip)
        clock = self._context.around.clock
        hooking = asyncio.ensure_future(run_hook(hook, target, clock, grace))
        late = asyncio.ensure_future(clock.sleep(grace))
        over = asyncio.ensure_future(container.wait())
        try:
            await asyncio.wait((hooking, late, over), return_when=asyncio.FIRST_COMPLETED)
            if hooking.done() and (failure := hooking.result()):
                self._context.event(WARNING, "FailedPreStopHook", f"PreStopHook failed: {failure}"[:1000], self.record)
        except ContainerGone:
            pass
        finally:
            for task in (hooking, late, over):
                task.cancel()

    async def _on_end(self, container: Container, status: ExitStatus) -> None:
        record = self.record
        reason = "OOMKilled" if status.oom else stopped_reason(status.code)
        message = termination_message(record.spec, container.spec, status.code)
        record.state = Terminated(status.code, reason, message, rfc3339(container.started_at),
                                  rfc3339(status.finished_at), container.id, status.signal if status.signal else 0)
        record.ready = record.started = False
        self._context.changed()

    async def discard(self) -> None:
        """Let the runtime forget the last run."""
        container, self.container = self.container, None
        if container is not None:
            try:
                await container.remove()
            except RuntimeFailure:
                # The sandbox's removal that follows takes what is left.
                return
