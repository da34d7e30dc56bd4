"""A pod's status from what is known of its containers.

My job: phase, conditions and container statuses (upstream kubelet_pods.go `getPhase`, status/generate.go). Pure:
records and the previous status in, a status out. Neighbours: `worker` keeps the records, `statuswriter` sends what I
make.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minikubelet.pods.podref import ContainerKind, restart_policy
from minikubelet.pods.records import ContainerRecord, Running, Terminated, Waiting

JSON = dict[str, Any]
Records = Mapping[str, ContainerRecord]


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the worker knows beside the containers."""

    host_ip: str
    pod_ip: str = ""
    start_time: str = ""
    has_sandbox: bool = False
    is_ended: bool = False
    failure: tuple[str, str] | None = None
    """(reason, message) of a pod the node itself gave up: rejected, evicted, deadline exceeded."""


def phase(pod: JSON, records: Records) -> str:
    policy = restart_policy(pod)
    inits = [_init_outcome(record) for record in _of(records, ContainerKind.INIT, ContainerKind.SIDECAR)]
    if "failed" in inits and policy == "Never":
        return "Failed"
    if "pending" in inits or "failed" in inits:
        return "Pending"
    return _main_phase(_of(records, ContainerKind.MAIN), policy)


def _of(records: Records, *kinds: ContainerKind) -> list[ContainerRecord]:
    return [record for record in records.values() if record.kind in kinds]


def _init_outcome(record: ContainerRecord) -> str:
    """done, pending or failed."""
    if record.kind is ContainerKind.SIDECAR:
        # Once started, a sidecar no longer holds the pod back, whatever becomes of it.
        return "done" if record.started or record.last or isinstance(record.state, Terminated) else "pending"
    if isinstance(record.state, Terminated):
        return "done" if record.state.exit_code == 0 else "failed"
    if isinstance(record.state, Waiting) and record.last and record.last.exit_code:
        return "failed"
    return "pending"


def _main_phase(records: Sequence[ContainerRecord], policy: str) -> str:
    running = sum(record.is_running for record in records)
    stopped = [record.state if isinstance(record.state, Terminated) else record.last
               for record in records if isinstance(record.state, Terminated) or
               (isinstance(record.state, Waiting) and record.last)]
    if len(records) - running - len(stopped) > 0:
        return "Pending"
    if running:
        return "Running"
    if policy == "Always":
        return "Running"
    if all(ended is not None and ended.exit_code == 0 for ended in stopped):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def build(pod: JSON, records: Records, facts: PodFacts, previous: JSON, now: str) -> JSON:
    """The whole status to report. `previous` gives what is not ours: scheduling, resize, foreign conditions."""
    generation = pod["metadata"].get("generation")
    current = "Failed" if facts.failure else phase(pod, records)
    if facts.is_ended and current in ("Running", "Pending") and not facts.failure:
        current = _ended_phase(records)
    if not facts.is_ended and current in ("Succeeded", "Failed") and any(item.is_running for item in records.values()):
        # A phase that is final is told only when nothing runs any more: sidecars, or a pod past its deadline.
        current = "Running"
    status: JSON = {"phase": current}
    if generation is not None:
        status["observedGeneration"] = generation
    if facts.failure:
        status["reason"], status["message"] = facts.failure
    status["conditions"] = conditions(pod, records, facts, current, previous, now)
    status |= _addresses(facts)
    if facts.start_time:
        status["startTime"] = facts.start_time
    status |= _container_statuses(records)
    if quality := previous.get("qosClass"):
        status["qosClass"] = quality
    return status


def _ended_phase(records: Records) -> str:
    """A pod that was stopped for good has ended: Failed if any container did, as upstream since 1.27."""
    mains = _of(records, ContainerKind.MAIN)
    return "Succeeded" if mains and all(record.has_succeeded for record in mains) else "Failed"


def _addresses(facts: PodFacts) -> JSON:
    addresses: JSON = {"hostIP": facts.host_ip, "hostIPs": [{"ip": facts.host_ip}]}
    if facts.pod_ip:
        addresses |= {"podIP": facts.pod_ip, "podIPs": [{"ip": facts.pod_ip}]}
    return addresses


def _container_statuses(records: Records) -> JSON:
    """Regular statuses sorted by name, init ones in spec order, as upstream reports them."""
    inits = _of(records, ContainerKind.INIT, ContainerKind.SIDECAR)
    mains = sorted(_of(records, ContainerKind.MAIN), key=lambda record: record.name)
    ephemeral = sorted(_of(records, ContainerKind.EPHEMERAL), key=lambda record: record.name)
    named = (("initContainerStatuses", inits), ("containerStatuses", mains), ("ephemeralContainerStatuses", ephemeral))
    return {key: [record.as_status() for record in chosen] for key, chosen in named if chosen}


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: bool
    reason: str = ""
    message: str = ""


def conditions(pod: JSON, records: Records, facts: PodFacts, current: str, previous: JSON, now: str) -> list[JSON]:
    """Ours, in upstream's order, with the old transition time where the status did not change; then foreign ones."""
    containers_ready = _containers_ready(records, current)
    ours = [
        Condition("PodReadyToStartContainers", facts.has_sandbox and current not in ("Succeeded", "Failed")),
        _initialized(records, current),
        _ready(pod, containers_ready, previous),
        containers_ready,
    ]
    old = {item["type"]: item for item in previous.get("conditions") or ()}
    generation = pod["metadata"].get("generation")
    written = [_as_json(condition, old.get(condition.type), generation, now) for condition in ours]
    scheduled = old.get("PodScheduled") or _as_json(Condition("PodScheduled", True), None, generation, now)
    if generation is not None:
        scheduled = scheduled | {"observedGeneration": generation}
    names = {condition.type for condition in ours} | {"PodScheduled"}
    return [*written, scheduled, *(item for name, item in old.items() if name not in names)]


def _as_json(condition: Condition, old: JSON | None, generation: int | None, now: str) -> JSON:
    word = "True" if condition.status else "False"
    unchanged = old is not None and old.get("status") == word
    body: JSON = {"type": condition.type, "status": word, "lastProbeTime": None,
                  "lastTransitionTime": old["lastTransitionTime"] if unchanged and old else now}
    if generation is not None:
        body["observedGeneration"] = generation
    if condition.reason:
        body["reason"] = condition.reason
    if condition.message:
        body["message"] = condition.message
    return body


def _initialized(records: Records, current: str) -> Condition:
    if current == "Succeeded":
        return Condition("Initialized", True, "PodCompleted")
    inits = _of(records, ContainerKind.INIT, ContainerKind.SIDECAR)
    incomplete = [record.name for record in inits if not _is_initialized(record)]
    if not incomplete or any(isinstance(record.state, Running) for record in _of(records, ContainerKind.MAIN)):
        return Condition("Initialized", True)
    return Condition("Initialized", False, "ContainersNotInitialized",
                     f"containers with incomplete status: [{' '.join(incomplete)}]")


def _is_initialized(record: ContainerRecord) -> bool:
    if record.kind is ContainerKind.SIDECAR:
        return record.started
    return record.has_succeeded


def _containers_ready(records: Records, current: str) -> Condition:
    if current == "Succeeded":
        return Condition("ContainersReady", False, "PodCompleted")
    counted = _of(records, ContainerKind.SIDECAR, ContainerKind.MAIN)
    unready = [record.name for record in counted if not record.ready]
    if current == "Failed":
        return Condition("ContainersReady", False, "PodFailed")
    if unready:
        return Condition("ContainersReady", False, "ContainersNotReady",
                         f"containers with unready status: [{' '.join(unready)}]")
    return Condition("ContainersReady", True)


def _ready(pod: JSON, containers_ready: Condition, previous: JSON) -> Condition:
    if not containers_ready.status:
        return Condition("Ready", False, containers_ready.reason, containers_ready.message)
    known = {item["type"]: item.get("status") for item in previous.get("conditions") or ()}
    complaints = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in known:
            complaints.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif known[kind] != "True":
            complaints.append(f'the status of pod readiness gate "{kind}" is not "True", but {known[kind]}')
    if complaints:
        message = complaints[0] if len(complaints) == 1 else f"[{', '.join(complaints)}]"
        return Condition("Ready", False, "ReadinessGatesNotReady", message)
    return Condition("Ready", True)


def stopped_reason(exit_code: int) -> str:
    """The reason a container ended with, where the runtime names none."""
    return "Completed" if exit_code == 0 else "Error"
