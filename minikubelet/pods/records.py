"""What is known of each container of a pod.

My job: the states a container can be in and the record its worker keeps; a record turns into a `ContainerStatus` and
back (after a restart of the kubelet the API server's copy is where restart counts come from). Pure. Neighbours:
`containers` writes records, `status` reads them.
"""

from dataclasses import dataclass, field
from typing import Any

from minikubelet.pods.podref import STATUS_OF_KIND, ContainerKind, containers

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    reason: str
    message: str = ""

    def as_json(self) -> JSON:
        return {"waiting": {"reason": self.reason} | ({"message": self.message} if self.message else {})}


@dataclass(frozen=True, slots=True)
class Running:
    started_at: str

    def as_json(self) -> JSON:
        return {"running": {"startedAt": self.started_at}}


@dataclass(frozen=True, slots=True)
class Terminated:
    exit_code: int
    reason: str
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = ""
    signal: int = 0

    def as_json(self) -> JSON:
        body: JSON = {"exitCode": self.exit_code, "reason": self.reason,
                      "startedAt": self.started_at, "finishedAt": self.finished_at}
        if self.signal:
            body["signal"] = self.signal
        if self.message:
            body["message"] = self.message
        if self.container_id:
            body["containerID"] = self.container_id
        return {"terminated": body}

    @classmethod
    def from_json(cls, body: JSON) -> "Terminated":
        return cls(int(body.get("exitCode", 0)), body.get("reason", ""), body.get("message", ""),
                   body.get("startedAt"), body.get("finishedAt"), body.get("containerID", ""),
                   int(body.get("signal", 0)))


ContainerState = Waiting | Running | Terminated


@dataclass(slots=True)
class ContainerRecord:
    """One container's present and last state. Lives as long as its pod's worker."""

    kind: ContainerKind
    spec: JSON
    state: ContainerState = Waiting("ContainerCreating")
    last: Terminated | None = None
    restart_count: int = 0
    container_id: str = ""
    image_id: str = ""
    ready: bool = False
    started: bool = False
    attempts: int = field(default=0)

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def has_succeeded(self) -> bool:
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    @property
    def is_running(self) -> bool:
        return isinstance(self.state, Running)

    def as_status(self) -> JSON:
        status: JSON = {
            "name": self.name,
            "state": self.state.as_json(),
            "lastState": self.last.as_json() if self.last else {},
            "ready": self.ready,
            "restartCount": self.restart_count,
            "image": self.spec.get("image", ""),
            "imageID": self.image_id,
        }
        if self.container_id:
            status["containerID"] = self.container_id
        if self.kind is not ContainerKind.EPHEMERAL:
            status["started"] = self.started
        if (resources := self.spec.get("resources")) and self.is_running:
            status |= _resources(resources)
        if mounts := self.spec.get("volumeMounts"):
            status["volumeMounts"] = [_mount_status(mount) for mount in mounts]
        return status


def _resources(resources: JSON) -> JSON:
    kept = {key: resources[key] for key in ("limits", "requests") if resources.get(key)}
    allocated = {"allocatedResources": kept["requests"]} if "requests" in kept else {}
    return allocated | ({"resources": kept} if kept else {})


def _mount_status(mount: JSON) -> JSON:
    status: JSON = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        status |= {"readOnly": True, "recursiveReadOnly": "Disabled"}
    return status


LOST = 137
_LOST_MESSAGE = ("The container could not be located when the kubelet was restarted. "
                 "The container used to be Running")


def initial_records(pod: JSON, now: str) -> dict[str, ContainerRecord]:
    """One record per container. What an earlier kubelet process told the API server is carried over: restart counts,
    the last termination, and those init containers that are done. What ran then was lost with that process."""
    status = pod.get("status") or {}
    has_init = any(kind in (ContainerKind.INIT, ContainerKind.SIDECAR) for kind, _ in containers(pod))
    waiting = Waiting("PodInitializing") if has_init else Waiting("ContainerCreating")
    records = {}
    for kind, spec in containers(pod):
        known = _known_status(status, STATUS_OF_KIND[kind], spec["name"])
        records[spec["name"]] = _record(kind, spec, known, waiting, now)
    return records


def _known_status(status: JSON, field_name: str, name: str) -> JSON:
    return next((item for item in status.get(field_name) or () if item.get("name") == name), {})


def _record(kind: ContainerKind, spec: JSON, known: JSON, waiting: Waiting, now: str) -> ContainerRecord:
    record = ContainerRecord(kind, spec, waiting)
    state = known.get("state") or {}
    last = (known.get("lastState") or {}).get("terminated")
    if not known.get("containerID") and "terminated" not in state:
        return record
    record.restart_count = int(known.get("restartCount", 0))
    record.container_id, record.image_id = known.get("containerID", ""), known.get("imageID", "")
    record.last = Terminated.from_json(last) if last else None
    if "terminated" in state:
        record.state = Terminated.from_json(state["terminated"])
        record.started = bool(known.get("started"))
    elif "running" in state:
        record.state = Terminated(LOST, "ContainerStatusUnknown", _LOST_MESSAGE, state["running"].get("startedAt"), now,
                                  record.container_id)
    elif "waiting" in state:
        record.state = Waiting(state["waiting"].get("reason", ""), state["waiting"].get("message", ""))
    return record
