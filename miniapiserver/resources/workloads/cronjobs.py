"""CronJobs."""

from typing import Any
from zoneinfo import available_timezones

from miniapiserver.errors import FieldError, invalid, required
from miniapiserver.resources.columns import (
    AGE,
    CONTAINERS,
    IMAGES,
    NONE,
    age,
    column,
    container_cells,
    selector_text,
    since,
    table,
)
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.pods.defaults import default_template
from miniapiserver.resources.pods.values import choice_errors
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy
from miniapiserver.resources.workloads.jobs import template_job_errors
from miniapiserver.resources.workloads.values import count_errors, default_template_of

JSON = dict[str, Any]

_DEFAULTS = (
    ("concurrencyPolicy", "Allow"),
    ("suspend", False),
    ("successfulJobsHistoryLimit", 3),
    ("failedJobsHistoryLimit", 1),
)
_COUNTS = ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
_NAMED = frozenset(("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"))
_RANGES = ((0, 59, ()), (0, 23, ()), (1, 31, ()),
           (1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
           (0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")))


class CronJobStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        for key, value in _DEFAULTS:
            if spec.get(key) is None:
                spec[key] = value
        template = spec["jobTemplate"] = spec.get("jobTemplate") or {}
        template["metadata"] = template.get("metadata") or {}
        job = template["spec"] = template.get("spec") or {}
        default_template(default_template_of(job))

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = self._name_errors(obj)
        if not (schedule := spec.get("schedule") or ""):
            errors.append(required("spec.schedule"))
        else:
            errors += schedule_errors(schedule, spec.get("timeZone"), "spec.schedule")
        errors += _zone_errors(spec.get("timeZone")) + count_errors(spec, _COUNTS)
        errors += choice_errors("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), ("Allow", "Forbid", "Replace"))
        return errors + template_job_errors((spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec")

    @staticmethod
    def _name_errors(obj: JSON) -> list[FieldError]:
        """Jobs get eleven more characters."""
        name = metadata_of(obj).get("name") or ""
        return [invalid("metadata.name", name, "must be no more than 52 characters")] if len(name) > 52 else []


def schedule_errors(schedule: str, zone: str | None, path: str) -> list[FieldError]:
    if "TZ" in schedule:
        if zone is not None:
            return [invalid(path, schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule")]
        return [invalid(path, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")]
    words = schedule_words(schedule)
    return [invalid(path, schedule, words)] if words else []


def schedule_words(schedule: str) -> str:
    """What is wrong with a cron line, as robfig/cron words it; empty if nothing is."""
    if schedule.startswith("@"):
        if schedule in _NAMED or schedule.startswith("@every "):
            return ""
        return f"unrecognized descriptor: {schedule}"
    fields = schedule.split()
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for field, (low, high, names) in zip(fields, _RANGES, strict=True):
        for part in field.split(","):
            if words := _part_words(part, low, high, names):
                return words
    return ""


def _part_words(part: str, low: int, high: int, names: tuple[str, ...]) -> str:
    span, slash, step = part.partition("/")
    if slash and not step.isdecimal():
        return f'failed to parse int from {step}: strconv.Atoi: parsing "{step}": invalid syntax'
    if slash and int(step) == 0:
        return f"step of range should be a positive number: {part}"
    if span in ("*", "?"):
        return ""
    bounds: list[int] = []
    for text in span.split("-"):
        if text.lower() in names:
            bounds.append(names.index(text.lower()) + low)
        elif text.isascii() and text.isdecimal():
            bounds.append(int(text))
        else:
            return f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax'
    if len(bounds) > 2:
        return f"too many hyphens: {part}"
    if bounds[0] < low:
        return f"beginning of range ({bounds[0]}) below minimum ({low}): {part}"
    if bounds[-1] > high:
        return f"end of range ({bounds[-1]}) above maximum ({high}): {part}"
    return (
        f"beginning of range ({bounds[0]}) beyond end of range ({bounds[-1]}): {part}" if bounds[0] > bounds[-1] else ""
    )


def _zone_errors(zone: str | None) -> list[FieldError]:
    if zone is None:
        return []
    if not zone:
        return [invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")]
    if zone.lower() == "local":
        return [invalid("spec.timeZone", zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")]
    return [] if zone in available_timezones() else [invalid("spec.timeZone", zone, f"unknown time zone {zone}")]


def _cells(obj: JSON, now: float) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    last = status.get("lastScheduleTime")
    suspend = spec.get("suspend")
    return [spec.get("schedule") or "", spec.get("timeZone") or NONE,
            "<unset>" if suspend is None else str(bool(suspend)), len(status.get("active") or ()),
            since(last, now) if last else NONE, age(obj, now), *container_cells(job.get("template")),
            selector_text(job.get("selector"))]


_TABLE = table(
    column("Schedule", "CronJobSpec.schedule"), column("Timezone", "CronJobSpec.timeZone"),
    column("Suspend", "CronJobSpec.suspend", type="boolean"), column("Active", "CronJobStatus.active", type="integer"),
    column("Last Schedule", "CronJobStatus.lastScheduleTime"), AGE, CONTAINERS, IMAGES,
    column("Selector", "JobSpec.selector", wide=True), cells=_cells)


def cron_job_row(group: Group) -> Resource:
    return group.row("CronJob", "cronjobs", CronJobStrategy(status=True, generation=True), table=_TABLE, short=("cj",),
                     categories=("all",), subresources=(status_of("CronJob"),))
