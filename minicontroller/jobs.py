"""Jobs: pods that end, until enough of them ended well.

My job: create pods up to the parallelism, count successes and failures (once per pod, whatever becomes of it), back
off after failures, finish, suspend, clean up after ttlSecondsAfterFinished (`pkg/controller/job`).
"""

from collections.abc import Iterable
from typing import Any

from minicontroller.actions import Action, After, Create, Delete, Patch
from minicontroller.controller import Controller, Key
from minicontroller.informers import each
from minicontroller.ownership import is_controlled_by, owner_keys, owner_reference
from minicontroller.podstate import (
    from_template,
    is_active,
    is_finished,
    is_ready,
    is_terminating,
    is_true,
    phase,
    seconds,
    timestamp,
    with_condition,
)
from wire.apiclient import resource_path

JSON = dict[str, Any]

#: Keeps a finished pod until it has been counted.
TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
FIRST_BACK_OFF, LONGEST_BACK_OFF = 10.0, 600.0


class Jobs(Controller):
    name = "jobs"

    def watch(self) -> None:
        self.jobs = self.on(self.informers.of("batch", "v1", "jobs"))
        self.pods = self.on(self.informers.of("", "v1", "pods"), lambda pod: owner_keys(pod, "Job"))

    def plan(self, key: Key) -> Iterable[Action]:
        job = self.jobs.objects.get(key)
        if job is None:
            return
        pods = [pod for pod in each(self.pods, key[0]) if is_controlled_by(pod, job)]
        if is_done(job):
            yield from self._after_the_end(job, pods)
            return
        status = self._counted(job, pods)
        verdict = self._verdict(job, pods, status)
        active = [pod for pod in pods if is_active(pod)]
        if verdict is None and not job["metadata"].get("deletionTimestamp"):
            yield from self._balance(job, active, pods, status)
        elif verdict is not None:
            yield from (_delete(pod) for pod in active)
        yield from self._report(job, status, verdict, active)
        yield from (_uncounted(pod) for pod in pods if is_finished(pod) and _is_tracked(pod))

    def _after_the_end(self, job: JSON, pods: list[JSON]) -> Iterable[Action]:
        yield from (_uncounted(pod) for pod in pods if _is_tracked(pod))
        yield from (_delete(pod) for pod in pods if is_active(pod))
        lifetime = job["spec"].get("ttlSecondsAfterFinished")
        if lifetime is None or job["metadata"].get("deletionTimestamp"):
            return
        ended = max(
            (
                seconds(item.get("lastTransitionTime", ""))
                for item in job["status"].get("conditions") or []
                if item["type"] in ("Complete", "Failed")
            ),
            default=0.0,
        )
        left = ended + lifetime - self.clock()
        if left > 0:
            yield After(left)
        else:
            metadata = job["metadata"]
            yield Delete(
                resource_path("batch", "v1", "jobs", metadata["namespace"], metadata["name"]),
                metadata["uid"],
                propagation="Foreground",
            )

    def _counted(self, job: JSON, pods: list[JSON]) -> JSON:
        """succeeded and failed so far: what was counted before plus finished pods that still carry the finalizer."""
        old = job.get("status") or {}
        fresh = [pod for pod in pods if _is_tracked(pod) and (is_finished(pod) or is_terminating(pod))]
        succeeded = sum(phase(pod) == "Succeeded" for pod in fresh)
        failed = sum(phase(pod) == "Failed" for pod in fresh)
        status = {"succeeded": old.get("succeeded", 0) + succeeded, "failed": old.get("failed", 0) + failed}
        if job["spec"].get("completionMode") == "Indexed":
            done = _indexes(old.get("completedIndexes", "")) | {
                _index_of(pod) for pod in pods if phase(pod) == "Succeeded" and _index_of(pod) >= 0
            }
            status["completedIndexes"] = _ranges(done)
            status["succeeded"] = len(done)
        return status

    def _verdict(self, job: JSON, pods: list[JSON], status: JSON) -> JSON | None:
        """The condition that ends the job, None while it goes on."""
        spec = job["spec"]
        started = seconds((job.get("status") or {}).get("startTime", ""))
        deadline = spec.get("activeDeadlineSeconds")
        if deadline is not None and started and self.clock() - started >= deadline:
            return _failed("DeadlineExceeded", "Job was active longer than specified deadline")
        restarts = sum(
            item.get("restartCount", 0)
            for pod in pods
            if spec["template"]["spec"].get("restartPolicy") == "OnFailure"
            for item in (pod.get("status") or {}).get("containerStatuses") or []
        )
        if status["failed"] > spec.get("backoffLimit", 6) or restarts > spec.get("backoffLimit", 6):
            return _failed("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        wanted = spec.get("completions")
        enough = (
            status["succeeded"] >= wanted
            if wanted is not None
            else (status["succeeded"] > 0 and not any(is_active(pod) for pod in pods))
        )
        if enough:
            return {
                "type": "Complete",
                "status": "True",
                "reason": "CompletionsReached",
                "message": "Reached expected number of succeeded pods",
            }
        return None

    def _balance(self, job: JSON, active: list[JSON], pods: list[JSON], status: JSON) -> Iterable[Action]:
        spec = job["spec"]
        if spec.get("suspend"):
            yield from (_delete(pod) for pod in active)
            return
        wanted, parallel = spec.get("completions"), spec.get("parallelism", 1)
        room = parallel if wanted is None else min(parallel, wanted - status["succeeded"])
        if wanted is None and status["succeeded"]:
            room = len(active)  # a work queue: once one ended well, no new ones are started
        missing = max(room - len(active), 0)
        if missing and (wait := self._back_off(pods, status["failed"])) > 0:
            yield After(wait)
            return
        free = self._free_indexes(job, active, status) if spec.get("completionMode") == "Indexed" else []
        for number in range(missing):
            index = free[number] if number < len(free) else None
            yield Create(resource_path("", "v1", "pods", job["metadata"]["namespace"]), job_pod(job, index))
        for pod in active[room:]:
            yield _delete(pod)

    def _back_off(self, pods: list[JSON], failed: int) -> float:
        """Seconds to wait after the latest failure."""
        ends = [seconds(_finished_at(pod)) for pod in pods if phase(pod) == "Failed"]
        if not failed or not ends:
            return 0.0
        return float(max(ends) + min(FIRST_BACK_OFF * 2 ** (failed - 1), LONGEST_BACK_OFF) - self.clock())

    def _free_indexes(self, job: JSON, active: list[JSON], status: JSON) -> list[int]:
        used = _indexes(status["completedIndexes"]) | {_index_of(pod) for pod in active}
        return [index for index in range(job["spec"].get("completions", 1)) if index not in used]

    def _report(self, job: JSON, status: JSON, verdict: JSON | None, active: list[JSON]) -> Iterable[Action]:
        now, old, metadata = self.clock(), job.get("status") or {}, job["metadata"]
        status |= {
            "active": 0 if verdict else len(active),
            "ready": 0 if verdict else sum(map(is_ready, active)),
            "terminating": 0,
        }
        suspended = bool(job["spec"].get("suspend"))
        status["startTime"] = None if suspended else old.get("startTime") or timestamp(now)
        conditions = list(old.get("conditions") or [])
        if suspended or is_true(job, "Suspended"):
            conditions = with_condition(
                conditions,
                {
                    "type": "Suspended",
                    "status": "True" if suspended else "False",
                    "reason": "JobSuspended" if suspended else "JobResumed",
                    "message": "Job suspended" if suspended else "Job resumed",
                },
                now,
            )
        if verdict is not None:
            target = "SuccessCriteriaMet" if verdict["type"] == "Complete" else "FailureTarget"
            conditions = with_condition(conditions, verdict | {"type": target}, now)
            conditions = with_condition(conditions, verdict, now)
            if verdict["type"] == "Complete":
                status["completionTime"] = timestamp(now)
        status["conditions"] = [
            item | {"lastProbeTime": item.get("lastProbeTime") or timestamp(now)} for item in conditions
        ]
        if not conditions and not old.get("conditions"):
            del status["conditions"]
        if any(_plain(old.get(name)) != _plain(value) for name, value in status.items()):
            yield Patch(
                resource_path("batch", "v1", "jobs", metadata["namespace"], metadata["name"], "status"),
                {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status},
            )
        deadline = job["spec"].get("activeDeadlineSeconds")
        if deadline is not None and verdict is None and status["startTime"]:
            yield After(max(seconds(status["startTime"]) + deadline - now, 0.05))


def _plain(value: Any) -> Any:
    return value or None


def _failed(reason: str, message: str) -> JSON:
    return {"type": "Failed", "status": "True", "reason": reason, "message": message}


def is_done(job: JSON) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")


def job_pod(job: JSON, index: int | None) -> JSON:
    name = job["metadata"]["name"]
    pod = from_template(
        job["spec"]["template"],
        name if index is None else f"{name}-{index}",
        job["metadata"]["namespace"],
        owner_reference(job),
    )
    pod["metadata"]["finalizers"] = [*(pod["metadata"].get("finalizers") or []), TRACKING]
    if index is not None:
        pod["metadata"]["labels"] = (pod["metadata"].get("labels") or {}) | {INDEX: str(index)}
        pod["metadata"]["annotations"] = (pod["metadata"].get("annotations") or {}) | {INDEX: str(index)}
        variable = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
        spec = pod["spec"]
        pod["spec"] = spec | {
            "hostname": f"{name}-{index}",
            "containers": [
                item | {"env": [*(item.get("env") or []), variable]} for item in spec.get("containers") or []
            ],
        }
    return pod


def _is_tracked(pod: JSON) -> bool:
    return TRACKING in (pod["metadata"].get("finalizers") or [])


def _uncounted(pod: JSON) -> Action:
    """Let go of a pod that has been counted."""
    metadata = pod["metadata"]
    kept = [name for name in metadata.get("finalizers") or [] if name != TRACKING]
    return Patch(
        resource_path("", "v1", "pods", metadata["namespace"], metadata["name"]),
        {"metadata": {"uid": metadata["uid"], "finalizers": kept or None}},
    )


def _delete(pod: JSON) -> Action:
    metadata = pod["metadata"]
    return Delete(resource_path("", "v1", "pods", metadata["namespace"], metadata["name"]), metadata["uid"])


def _finished_at(pod: JSON) -> str:
    ends = [
        ((item.get("state") or {}).get("terminated") or {}).get("finishedAt", "")
        for item in (pod.get("status") or {}).get("containerStatuses") or []
    ]
    return max(ends, default="") or str(pod["metadata"].get("creationTimestamp", ""))


def _index_of(pod: JSON) -> int:
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isdigit() else -1


def _indexes(text: str) -> set[int]:
    """`1,3-5` as numbers."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


def _ranges(numbers: set[int]) -> str:
    """Numbers as `1,3-5`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in parts)
