"""CronJobs: a Job at each time of a schedule.

My job: start the Job of the latest time that has passed (never more than one at once), by the concurrency policy, and
keep no more finished Jobs than the limits say (`pkg/controller/cronjob`). `cronschedule` knows the times.
"""

import datetime
from collections.abc import Iterable
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from minicontroller.actions import Action, After, Create, Delete, Patch
from minicontroller.controller import Controller, Key
from minicontroller.cronschedule import InvalidSchedule, Schedule
from minicontroller.informers import each
from minicontroller.jobs import is_done
from minicontroller.ownership import is_controlled_by, owner_keys, owner_reference
from minicontroller.podstate import is_true, seconds, timestamp
from wire.apiclient import resource_path

JSON = dict[str, Any]

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"


class CronJobs(Controller):
    name = "cronjobs"

    def watch(self) -> None:
        self.cronjobs = self.on(self.informers.of("batch", "v1", "cronjobs"))
        self.jobs = self.on(self.informers.of("batch", "v1", "jobs"), lambda job: owner_keys(job, "CronJob"))

    def plan(self, key: Key) -> Iterable[Action]:
        cron = self.cronjobs.objects.get(key)
        if cron is None or cron["metadata"].get("deletionTimestamp"):
            return
        jobs = [job for job in each(self.jobs, key[0]) if is_controlled_by(job, cron)]
        running = [job for job in jobs if not is_done(job)]
        yield from self._clean(cron, [job for job in jobs if is_done(job)])
        started = None
        if not cron["spec"].get("suspend"):
            due, following = self._times(cron)
            if due is not None:
                yield from self._start(cron, due, running)
                started = due if self._may_start(cron, due, running) else None
            if following is not None:
                yield After(max(following - self.clock(), 0.1))
        yield from self._report(cron, running, jobs, started)

    def _times(self, cron: JSON) -> tuple[float | None, float | None]:
        """(the latest time that has passed and was not served, the next one), in seconds since the epoch."""
        spec, now = cron["spec"], self.clock()
        try:
            schedule, zone = Schedule.parse(spec["schedule"]), ZoneInfo(spec.get("timeZone") or "UTC")
        except (InvalidSchedule, ZoneInfoNotFoundError, ValueError):
            return None, None  # what validation let through and we cannot read is not run
        earliest = seconds((cron.get("status") or {}).get("lastScheduleTime", "")) or seconds(
            cron["metadata"].get("creationTimestamp", "")
        )
        if (deadline := spec.get("startingDeadlineSeconds")) is not None:
            earliest = max(earliest, now - deadline)
        due, moment = None, schedule.after(datetime.datetime.fromtimestamp(earliest, zone))
        while moment is not None and moment.timestamp() <= now:
            due = moment.timestamp()
            moment = schedule.after(moment)
        return due, moment.timestamp() if moment is not None else None

    def _may_start(self, cron: JSON, due: float, running: list[JSON]) -> bool:
        key = (cron["metadata"]["namespace"], job_name(cron, due))
        return key not in self.jobs.objects and not (running and cron["spec"].get("concurrencyPolicy") == "Forbid")

    def _start(self, cron: JSON, due: float, running: list[JSON]) -> Iterable[Action]:
        if not self._may_start(cron, due, running):
            return
        if cron["spec"].get("concurrencyPolicy") == "Replace":
            yield from map(_delete, running)
        path = resource_path("batch", "v1", "jobs", cron["metadata"]["namespace"])
        yield Create(path, job_of(cron, due), exists_is_fine=True)

    def _clean(self, cron: JSON, done: list[JSON]) -> Iterable[Action]:
        limits = (("Complete", cron["spec"].get("successfulJobsHistoryLimit", 3)),
                  ("Failed", cron["spec"].get("failedJobsHistoryLimit", 1)))  # fmt: skip
        for condition, limit in limits:
            of_kind = [job for job in done if is_true(job, condition)]
            of_kind.sort(key=lambda job: seconds((job.get("status") or {}).get("startTime", "")))
            yield from map(_delete, of_kind[: max(len(of_kind) - limit, 0)])

    def _report(self, cron: JSON, running: list[JSON], jobs: list[JSON], started: float | None) -> Iterable[Action]:
        old, metadata = cron.get("status") or {}, cron["metadata"]
        active = [{"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"],
                   "namespace": metadata["namespace"], "uid": job["metadata"]["uid"]} for job in running]  # fmt: skip
        ends = [(job.get("status") or {}).get("completionTime") for job in jobs if is_true(job, "Complete")]
        status: JSON = {"active": active or None}
        if started is not None:
            status["lastScheduleTime"] = timestamp(started)
        if latest := max(filter(None, ends), default=None):
            status["lastSuccessfulTime"] = max(latest, old.get("lastSuccessfulTime") or "")
        if any((old.get(name) or None) != value for name, value in status.items()):
            path = resource_path("batch", "v1", "cronjobs", metadata["namespace"], metadata["name"], "status")
            yield Patch(path, {"status": status})


def job_name(cron: JSON, due: float) -> str:
    """One name per time, so that a Job is never started twice for it."""
    return f"{cron['metadata']['name']}-{int(due) // 60}"


def job_of(cron: JSON, due: float) -> JSON:
    template, metadata = cron["spec"]["jobTemplate"], cron["metadata"]
    given = template.get("metadata") or {}
    annotations = (given.get("annotations") or {}) | {SCHEDULED_AT: timestamp(due)}
    own = {"name": job_name(cron, due), "namespace": metadata["namespace"], "annotations": annotations}
    own |= {"labels": given.get("labels") or {}, "ownerReferences": [owner_reference(cron)]}
    return {"kind": "Job", "apiVersion": "batch/v1", "metadata": own, "spec": template.get("spec") or {}}


def _delete(job: JSON) -> Action:
    metadata = job["metadata"]
    return Delete(resource_path("batch", "v1", "jobs", metadata["namespace"], metadata["name"]), metadata["uid"])
