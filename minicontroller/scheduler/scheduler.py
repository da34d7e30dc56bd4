"""Pods without a node, one after another.

My job: keep the picture of nodes and pods, ask `filters` and `scores`, bind, and say why when no node will do (events
and the PodScheduled condition). A pod that fits nowhere is looked at again when a node or pod changes.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from minicontroller.actions import Action, Create, Patch
from minicontroller.controller import Controller, Key
from minicontroller.informers import Informers
from minicontroller.podstate import condition, is_finished, timestamp, with_condition
from minicontroller.scheduler.filters import NodeState, refusal
from minicontroller.scheduler.scores import best
from wire.apiclient import resource_path

JSON = dict[str, Any]

NAME = "default-scheduler"


class Scheduler(Controller):
    name = "scheduler"

    def __init__(self, informers: Informers, clock: Callable[[], float] = time.time) -> None:
        self._waiting: set[Key] = set()
        super().__init__(informers, clock)

    def watch(self) -> None:
        self.nodes = self.informers.of("", "v1", "nodes")
        self.pods = self.on(self.informers.of("", "v1", "pods"))
        self.nodes.subscribe(lambda kind, new, old: self._look_again())
        self.pods.subscribe(
            lambda kind, new, old: self._look_again() if kind == "DELETED" or _ended(new, old) else None
        )

    def _look_again(self) -> None:
        for key in self._waiting:
            self.queue.add(key)
        self._waiting.clear()

    def plan(self, key: Key) -> Iterable[Action]:
        pod = self.pods.objects.get(key)
        if pod is None or not self._is_ours(pod):
            self._waiting.discard(key)
            return
        states = self._states()
        refusals = {state.name: refusal(pod, state, states) for state in states}
        candidates = [state for state in states if not refusals[state.name]]
        if candidates:
            yield from self._bind(pod, best(pod, candidates).name)
        else:
            self._waiting.add(key)
            yield from self._unschedulable(pod, list(refusals.values()))

    def _is_ours(self, pod: JSON) -> bool:
        spec = pod["spec"]
        return (
            not spec.get("nodeName")
            and not pod["metadata"].get("deletionTimestamp")
            and not is_finished(pod)
            and spec.get("schedulerName", NAME) == NAME
            and not spec.get("schedulingGates")
        )

    def _states(self) -> list[NodeState]:
        states = {
            name: NodeState(node)
            for (_, name), node in self.nodes.objects.items()
            if not node["metadata"].get("deletionTimestamp")
        }
        for pod in self.pods.objects.values():
            state = states.get(pod["spec"].get("nodeName", ""))
            if state is not None and not is_finished(pod):
                state.pods[pod["metadata"]["uid"]] = pod
        return list(states.values())

    def _bind(self, pod: JSON, node: str) -> Iterable[Action]:
        metadata = pod["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        yield Create(
            resource_path("", "v1", "pods", namespace, name, "binding"),
            {
                "kind": "Binding",
                "apiVersion": "v1",
                "metadata": {"name": name, "namespace": namespace, "uid": metadata["uid"]},
                "target": {"kind": "Node", "name": node},
            },
        )
        yield self._event(pod, "Normal", "Scheduled", f"Successfully assigned {namespace}/{name} to {node}")

    def _unschedulable(self, pod: JSON, refusals: list[str]) -> Iterable[Action]:
        message = failure_message(refusals)
        known = condition(pod, "PodScheduled")
        if known is not None and known.get("message") == message:
            return
        metadata = pod["metadata"]
        conditions = with_condition(
            list((pod.get("status") or {}).get("conditions") or []),
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
            self.clock(),
        )
        yield Patch(
            resource_path("", "v1", "pods", metadata["namespace"], metadata["name"], "status"),
            {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": conditions}},
        )
        yield self._event(pod, "Warning", "FailedScheduling", message)

    def _event(self, pod: JSON, kind: str, reason: str, message: str) -> Action:
        metadata, now = pod["metadata"], self.clock()
        return Create(
            resource_path("", "v1", "events", metadata["namespace"]),
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {"name": f"{metadata['name']}.{int(now * 1e9):x}", "namespace": metadata["namespace"]},
                "involvedObject": {
                    "kind": "Pod",
                    "apiVersion": "v1",
                    "namespace": metadata["namespace"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "resourceVersion": metadata["resourceVersion"],
                },
                "type": kind,
                "reason": reason,
                "message": message,
                "source": {"component": NAME},
                "reportingComponent": NAME,
                "firstTimestamp": timestamp(now),
                "lastTimestamp": timestamp(now),
                "count": 1,
            },
            exists_is_fine=True,
        )


def _ended(new: JSON | None, old: JSON | None) -> bool:
    """A pod that stopped using its node's resources."""
    return new is not None and old is not None and is_finished(new) and not is_finished(old)


def failure_message(refusals: list[str]) -> str:
    """`0/3 nodes are available: 1 Insufficient cpu, 2 node(s) …` as upstream counts them."""
    if not refusals:
        return "no nodes available to schedule pods"
    counts: dict[str, int] = {}
    for text in refusals:
        for reason in text.split(", ") if text.startswith(("Insufficient", "Too many")) else (text,):
            counts[reason] = counts.get(reason, 0) + 1
    reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
    return (
        f"0/{len(refusals)} nodes are available: {reasons}. preemption: 0/{len(refusals)} nodes are available: "
        f"{len(refusals)} Preemption is not helpful for scheduling."
    )
