"""Pods as Table rows: what `kubectl get pods` shows.

My job: the cells, above all the Status word, which sums up phase, conditions and every container (kubernetes
`pkg/printers`, `printPod`).
"""

from dataclasses import dataclass
from typing import Any

from miniapiserver.resources.columns import AGE, NONE, age, column, duration, seconds_of, table
from miniapiserver.resources.pods.values import objects

JSON = dict[str, Any]

_TERMINAL = ("Succeeded", "Failed")


@dataclass(slots=True)
class _Sum:
    """What has been found so far, container by container."""

    word: str
    ready: int = 0
    restarts: int = 0
    last_restart: float | None = None

    def count_restarts(self, status: JSON) -> None:
        self.restarts += status.get("restartCount") or 0
        ended = (((status.get("lastState") or {}).get("terminated")) or {}).get("finishedAt")
        moment = seconds_of(ended) if ended else None
        if moment is not None and (self.last_restart is None or moment > self.last_restart):
            self.last_restart = moment


def _ended(terminated: JSON) -> str:
    if reason := terminated.get("reason"):
        return str(reason)
    if signal := terminated.get("signal"):
        return f"Signal:{signal}"
    return f"ExitCode:{terminated.get('exitCode') or 0}"


def _condition(pod_status: JSON, kind: str) -> JSON:
    return next((item for item in objects(pod_status.get("conditions")) if item.get("type") == kind), {})


def _init_word(status: JSON, position: int, total: int) -> str:
    """The word of an init container that is not done."""
    state = status.get("state") or {}
    if (terminated := state.get("terminated")) is not None:
        return f"Init:{_ended(terminated)}"
    reason = (state.get("waiting") or {}).get("reason")
    return f"Init:{reason}" if reason and reason != "PodInitializing" else f"Init:{position}/{total}"


def _sum_init(found: _Sum, sidecars: _Sum, spec: JSON, status: JSON) -> bool:
    """Go through init containers up to the first that is not done; True if there is one."""
    declared = objects(spec.get("initContainers"))
    restartable = {item.get("name") for item in declared if item.get("restartPolicy") == "Always"}
    for position, container in enumerate(objects(status.get("initContainerStatuses"))):
        found.count_restarts(container)
        sidecar = container.get("name") in restartable
        if sidecar:
            sidecars.count_restarts(container)
        terminated = (container.get("state") or {}).get("terminated")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if sidecar and container.get("started"):
            found.ready += bool(container.get("ready"))
            continue
        found.word = _init_word(container, position, len(declared))
        return True
    return False


def _sum_containers(found: _Sum, status: JSON) -> None:
    running = False
    for container in reversed(objects(status.get("containerStatuses"))):
        found.count_restarts(container)
        state = container.get("state") or {}
        if reason := (state.get("waiting") or {}).get("reason"):
            found.word = reason
        elif (terminated := state.get("terminated")) is not None:
            found.word = _ended(terminated)
        elif container.get("ready") and state.get("running") is not None:
            running = True
            found.ready += 1
    if found.word == "Completed" and running:
        found.word = "Running" if _condition(status, "Ready").get("status") == "True" else "NotReady"


def _summary(pod: JSON) -> _Sum:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    found = _Sum(status.get("reason") or status.get("phase") or "")
    if _condition(status, "PodScheduled").get("reason") == "SchedulingGated":
        found.word = "SchedulingGated"
    sidecars = _Sum("")
    initializing = _sum_init(found, sidecars, spec, status)
    if not initializing or _condition(status, "Initialized").get("status") == "True":
        found.restarts, found.last_restart = sidecars.restarts, sidecars.last_restart
        _sum_containers(found, status)
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            found.word = "Unknown"
        elif status.get("phase") not in _TERMINAL:
            found.word = "Terminating"
    return found


def _readiness_gates(spec: JSON, status: JSON) -> str:
    gates = objects(spec.get("readinessGates"))
    if not gates:
        return NONE
    true = sum(_condition(status, gate.get("conditionType") or "").get("status") == "True" for gate in gates)
    return f"{true}/{len(gates)}"


def _cells(pod: JSON, now: float) -> list[Any]:
    spec, status, found = pod.get("spec") or {}, pod.get("status") or {}, _summary(pod)
    sidecars = sum(item.get("restartPolicy") == "Always" for item in objects(spec.get("initContainers")))
    restarts = str(found.restarts)
    if found.restarts and found.last_restart is not None:
        restarts += f" ({duration(now - found.last_restart)} ago)"
    addresses = objects(status.get("podIPs"))
    return [f"{found.ready}/{len(spec.get('containers') or ()) + sidecars}", found.word, restarts, age(pod, now),
            (addresses[0].get("ip") if addresses else status.get("podIP")) or NONE, spec.get("nodeName") or NONE,
            status.get("nominatedNodeName") or NONE, _readiness_gates(spec, status)]


PODS = table(
    column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    column("Status", "The aggregate status of the containers in this pod."),
    column(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in "
        "this pod has restarted.",
    ),
    AGE,
    column("IP", "PodStatus.podIP", wide=True),
    column("Node", "PodSpec.nodeName", wide=True),
    column("Nominated Node", "PodStatus.nominatedNodeName", wide=True),
    column("Readiness Gates", "PodSpec.readinessGates", wide=True),
    cells=_cells,
)
