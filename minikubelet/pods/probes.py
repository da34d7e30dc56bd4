"""Startup, liveness and readiness of one running container.

My job: call the handlers on their schedule, count successes and failures, tell when a verdict changes (upstream
prober/). I own the loops of one container run. Neighbours: `containers` starts me after each start and acts on
verdicts. Rule: liveness and readiness begin only when startup has succeeded; a container without a probe has always
passed it.
"""

import asyncio
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from minikubelet.clock import Clock
from minikubelet.pods.handlers import Outcome

JSON = dict[str, Any]


class ProbeKind(enum.Enum):
    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


_FIELD = {ProbeKind.STARTUP: "startupProbe", ProbeKind.LIVENESS: "livenessProbe", ProbeKind.READINESS: "readinessProbe"}


@dataclass(frozen=True, slots=True)
class Schedule:
    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int

    @classmethod
    def of(cls, probe: JSON) -> "Schedule":
        return cls(float(probe.get("initialDelaySeconds") or 0), float(probe.get("periodSeconds") or 10),
                   float(probe.get("timeoutSeconds") or 1), int(probe.get("successThreshold") or 1),
                   int(probe.get("failureThreshold") or 3))


@dataclass(slots=True)
class Tally:
    """Results in a row. `verdict` is None until a threshold is reached for the first time."""

    schedule: Schedule
    verdict: bool | None = None
    _last: bool | None = None
    _run: int = 0

    def add(self, ok: bool) -> bool | None:
        """Count one result; the verdict afterwards."""
        self._run = self._run + 1 if ok == self._last else 1
        self._last = ok
        if self._run >= (self.schedule.success_threshold if ok else self.schedule.failure_threshold):
            self.verdict = ok
        return self.verdict


Call = Callable[[JSON, float], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class ProbeReports:
    """Whom the verdicts go to."""

    on_started: Callable[[], None]
    on_ready: Callable[[bool], None]
    on_result: Callable[[ProbeKind, Outcome], None]
    """One call, whatever it means."""
    on_failed: Callable[[ProbeKind, JSON], None]
    """Startup or liveness is lost: the container must be killed."""


class ContainerProbes:
    """The probes of one container run. `run` ends when the run ends (cancelled) or nothing is left to probe."""

    def __init__(self, container: JSON, call: Call, reports: ProbeReports, clock: Clock) -> None:
        self._container, self._call, self._reports, self._clock = container, call, reports, clock

    def probe(self, kind: ProbeKind) -> JSON | None:
        found: JSON | None = self._container.get(_FIELD[kind])
        return found

    async def run(self) -> None:
        started_at = self._clock.monotonic()
        if (startup := self.probe(ProbeKind.STARTUP)) is not None and not await self._start_up(startup):
            return
        self._reports.on_started()
        async with asyncio.TaskGroup() as tasks:
            if (liveness := self.probe(ProbeKind.LIVENESS)) is not None:
                tasks.create_task(self._live(liveness, started_at), name="liveness probe")
            if (readiness := self.probe(ProbeKind.READINESS)) is not None:
                tasks.create_task(self._ready(readiness, started_at), name="readiness probe")
            else:
                self._reports.on_ready(True)

    async def _start_up(self, probe: JSON) -> bool:
        tally = Tally(schedule := Schedule.of(probe))
        await self._clock.sleep(schedule.initial_delay)
        while (verdict := tally.add(await self._once(ProbeKind.STARTUP, probe, schedule))) is None:
            await self._clock.sleep(schedule.period)
        if not verdict:
            self._reports.on_failed(ProbeKind.STARTUP, probe)
        return verdict

    async def _live(self, probe: JSON, started_at: float) -> None:
        tally = Tally(schedule := Schedule.of(probe))
        await self._first(schedule, started_at)
        while tally.add(await self._once(ProbeKind.LIVENESS, probe, schedule)) is not False:
            await self._clock.sleep(schedule.period)
        self._reports.on_failed(ProbeKind.LIVENESS, probe)

    async def _ready(self, probe: JSON, started_at: float) -> None:
        tally = Tally(schedule := Schedule.of(probe), verdict=False)
        await self._first(schedule, started_at)
        while True:
            before = tally.verdict
            after = tally.add(await self._once(ProbeKind.READINESS, probe, schedule))
            if after is not before:
                self._reports.on_ready(bool(after))
            await self._clock.sleep(schedule.period)

    async def _first(self, schedule: Schedule, started_at: float) -> None:
        """Wait until the initial delay since the container's start is over."""
        rest = schedule.initial_delay - (self._clock.monotonic() - started_at)
        if rest > 0:
            await self._clock.sleep(rest)

    async def _once(self, kind: ProbeKind, probe: JSON, schedule: Schedule) -> bool:
        outcome = await self._call(probe, schedule.timeout)
        self._reports.on_result(kind, outcome)
        return outcome.ok
