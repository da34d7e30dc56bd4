"""StatefulSets go one by one; CronJobs start each time's Job once."""

import datetime
from typing import Any

import pytest
from objects import StillInformers, meta, pod

from minicontroller.actions import Create, Delete
from minicontroller.cronjobs import CronJobs
from minicontroller.cronschedule import InvalidSchedule, Schedule
from minicontroller.statefulsets import REVISION, StatefulSets, template_hash

JSON = dict[str, Any]


def stateful_set(replicas: int = 3, image: str = "i", **spec: Any) -> JSON:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    return {
        "kind": "StatefulSet",
        "apiVersion": "apps/v1",
        "metadata": meta("db"),
        "spec": {"replicas": replicas, "serviceName": "db", "template": template, **spec},
    }


def member(owner: JSON, ordinal: int, **more: Any) -> JSON:
    found = pod(f"db-{ordinal}", owner, **more)
    found["metadata"]["labels"][REVISION] = template_hash(owner)
    return found


async def planned(owner: JSON, *pods: JSON) -> tuple[list[str], list[str]]:
    """(names created, names deleted)"""
    informers = StillInformers()
    controller = StatefulSets(informers)
    informers.put("statefulsets.apps", owner)
    informers.put("pods", *pods)
    actions = list(controller.plan(("ns", "db")))
    created = [action.body["metadata"]["name"] for action in actions if isinstance(action, Create)]
    deleted = [action.path.rsplit("/", 1)[1] for action in actions if isinstance(action, Delete)]
    return created, deleted


async def test_the_next_pod_waits_until_the_one_before_is_ready() -> None:
    owner = stateful_set()
    assert await planned(owner) == (["db-0"], [])
    assert await planned(owner, member(owner, 0, ready=False)) == ([], [])
    assert await planned(owner, member(owner, 0)) == (["db-1"], [])


async def test_parallel_management_starts_all_at_once() -> None:
    owner = stateful_set(podManagementPolicy="Parallel")
    assert await planned(owner) == (["db-0", "db-1", "db-2"], [])


async def test_scaling_down_takes_the_highest_first() -> None:
    owner = stateful_set(1)
    assert await planned(owner, member(owner, 0), member(owner, 1), member(owner, 2)) == ([], ["db-2"])


async def test_an_update_replaces_from_the_highest_down_to_the_partition() -> None:
    old, new = stateful_set(), stateful_set(image="j", updateStrategy={"rollingUpdate": {"partition": 1}})
    pods = [member(old, ordinal) for ordinal in range(3)]
    assert await planned(new, *pods) == ([], ["db-2"])
    assert await planned(new, pods[0], member(new, 1), member(new, 2)) == ([], [])


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("*/15 * * * *", "2026-01-01T00:07:30", "2026-01-01T00:15"),
        ("0 9 * * mon-fri", "2026-01-02T09:00", "2026-01-05T09:00"),
        ("30 2 29 2 *", "2026-01-01T00:00", "2028-02-29T02:30"),
        ("0 0 13 * 5", "2026-01-01T00:00", "2026-01-02T00:00"),
        ("0 0 * * 7", "2026-01-01T00:00", "2026-01-04T00:00"),
        ("@hourly", "2026-01-01T00:00", "2026-01-01T01:00"),
    ],
)
def test_the_next_time_of_a_schedule(schedule: str, after: str, expected: str) -> None:
    assert Schedule.parse(schedule).after(at(after)) == at(expected)


def test_a_day_that_never_comes_is_never() -> None:
    assert Schedule.parse("0 0 30 2 *").after(at("2026-01-01T00:00")) is None


@pytest.mark.parametrize("text", ["", "* * * *", "60 * * * *", "5-1 * * * *", "x * * * *", "*/0 * * * *"])
def test_nonsense_is_no_schedule(text: str) -> None:
    with pytest.raises(InvalidSchedule):
        Schedule.parse(text)


def cron_job(**spec: Any) -> JSON:
    created = meta("tick", creationTimestamp="2026-01-01T00:00:00Z")
    template = {"spec": {"template": {"spec": {"containers": []}}}}
    return {"kind": "CronJob", "apiVersion": "batch/v1", "metadata": created,
            "spec": {"schedule": "* * * * *", "jobTemplate": template, **spec}}  # fmt: skip


async def started(cron: JSON, *jobs: JSON) -> list[str]:
    informers = StillInformers()
    controller = CronJobs(informers, lambda: at("2026-01-01T00:05:30").timestamp())
    informers.put("cronjobs.batch", cron)
    informers.put("jobs.batch", *jobs)
    found = [action for action in controller.plan(("ns", "tick")) if isinstance(action, Create)]
    return [action.body["metadata"]["name"] for action in found]


async def test_only_the_latest_missed_time_is_made_up_for() -> None:
    assert await started(cron_job()) == [f"tick-{int(at('2026-01-01T00:05').timestamp()) // 60}"]


async def test_a_suspended_cronjob_starts_nothing() -> None:
    assert await started(cron_job(suspend=True)) == []


async def test_forbid_waits_for_the_running_job() -> None:
    owner = {"kind": "CronJob", "apiVersion": "batch/v1", "name": "tick", "uid": "uid-tick", "controller": True}
    running = {"kind": "Job", "apiVersion": "batch/v1", "metadata": meta("tick-1", ownerReferences=[owner])}
    assert await started(cron_job(concurrencyPolicy="Forbid"), running) == []
    assert len(await started(cron_job(), running)) == 1
