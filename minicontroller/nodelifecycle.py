"""Nodes that stop speaking.

My job: judge each node by its Lease, set its conditions to Unknown when it is silent for too long, keep its taints in
step with its conditions, and evict pods that do not tolerate a NoExecute taint any longer
(`pkg/controller/nodelifecycle`, `tainteviction`).
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from minicontroller.actions import Action, After, Delete, Patch
from minicontroller.controller import Controller, Key
from minicontroller.informers import Informers
from minicontroller.podstate import condition, is_ready, is_terminating, seconds, timestamp, with_condition
from wire.apiclient import resource_path
from wire.nodeplacement import tolerates

JSON = dict[str, Any]

LOOK_EVERY_SECONDS = 5.0
PREFIX = "node.kubernetes.io/"
JUDGED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
#: (condition, status) → (taint, effects) (`nodeConditionToTaintKeyStatusMap`).
TAINTS: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("Ready", "False"): ("not-ready", ("NoSchedule", "NoExecute")),
    ("Ready", "Unknown"): ("unreachable", ("NoSchedule", "NoExecute")),
    ("MemoryPressure", "True"): ("memory-pressure", ("NoSchedule",)),
    ("DiskPressure", "True"): ("disk-pressure", ("NoSchedule",)),
    ("PIDPressure", "True"): ("pid-pressure", ("NoSchedule",)),
    ("NetworkUnavailable", "True"): ("network-unavailable", ("NoSchedule",)),
}
OURS = frozenset(PREFIX + key for key, _ in TAINTS.values()) | {PREFIX + "unschedulable"}


class NodeLifecycle(Controller):
    name = "nodelifecycle"

    def __init__(self, informers: Informers, grace: float, clock: Callable[[], float] = time.time) -> None:
        self.grace = grace
        self._heard: dict[str, tuple[str, float]] = {}
        super().__init__(informers, clock)

    def watch(self) -> None:
        self.nodes = self.on(self.informers.of("", "v1", "nodes"))
        self.leases = self.informers.of(
            "coordination.k8s.io", "v1", "leases", fieldSelector="metadata.namespace=kube-node-lease"
        )
        self.leases.subscribe(lambda kind, new, old: self._renewed(new))
        self.pods = self.informers.of("", "v1", "pods")

    def _renewed(self, lease: JSON | None) -> None:
        """Our clock decides when a node was heard, not the node's."""
        if lease is not None:
            name, renewed = lease["metadata"]["name"], lease["spec"].get("renewTime", "")
            if self._heard.get(name, ("", 0.0))[0] != renewed:
                self._heard[name] = (renewed, self.clock())

    def plan(self, key: Key) -> Iterable[Action]:
        node = self.nodes.objects.get(key)
        if node is None:
            self._heard.pop(key[1], None)
            return
        silent = self._silent_for(node)
        path = resource_path("", "v1", "nodes", None, key[1])
        if silent >= self.grace and (condition(node, "Ready") or {}).get("status") != "Unknown":
            yield Patch(path + "/status", {"status": {"conditions": self._unknown(node)}})
            yield from self._pods_not_ready(key[1])
        taints = self._taints(node, silent >= self.grace)
        if taints != (node["spec"].get("taints") or []):
            yield Patch(
                path,
                {
                    "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
                    "spec": {"taints": taints or None},
                },
            )
        yield from self._evictions(key[1], taints)
        yield After(LOOK_EVERY_SECONDS)

    def _silent_for(self, node: JSON) -> float:
        name = node["metadata"]["name"]
        heard = self._heard.setdefault(name, ("", self.clock()))[1]
        return self.clock() - heard

    def _unknown(self, node: JSON) -> list[JSON]:
        conditions = list((node.get("status") or {}).get("conditions") or [])
        for kind in JUDGED:
            known = condition(node, kind)
            reason = "NodeStatusUnknown" if known else "NodeStatusNeverUpdated"
            message = "Kubelet stopped posting node status." if known else "Kubelet never posted node status."
            conditions = with_condition(
                conditions, {"type": kind, "status": "Unknown", "reason": reason, "message": message}, self.clock()
            )
        return conditions

    def _pods_not_ready(self, node: str) -> Iterable[Action]:
        for pod in list(self.pods.objects.values()):
            if pod["spec"].get("nodeName") == node and is_ready(pod):
                conditions = with_condition(
                    list(pod["status"].get("conditions") or []), {"type": "Ready", "status": "False"}, self.clock()
                )
                metadata = pod["metadata"]
                yield Patch(
                    resource_path("", "v1", "pods", metadata["namespace"], metadata["name"], "status"),
                    {"status": {"conditions": conditions}},
                )

    def _taints(self, node: JSON, silent: bool) -> list[JSON]:
        """What others put there, and ours as the conditions say."""
        wanted: list[tuple[str, str]] = []
        for kind in (*JUDGED, "NetworkUnavailable"):
            status = "Unknown" if silent and kind == "Ready" else (condition(node, kind) or {}).get("status", "")
            if kind == "Ready" and not status:
                status = "False"  # never heard of: not ready
            key, effects = TAINTS.get((kind, status), ("", ()))
            wanted += [(PREFIX + key, effect) for effect in effects]
        if node["spec"].get("unschedulable"):
            wanted.append((PREFIX + "unschedulable", "NoSchedule"))
        present = node["spec"].get("taints") or []
        kept = [item for item in present if item["key"] not in OURS or (item["key"], item["effect"]) in wanted]
        have = {(item["key"], item["effect"]) for item in kept}
        return kept + [
            {"key": key, "effect": effect} | ({"timeAdded": timestamp(self.clock())} if effect == "NoExecute" else {})
            for key, effect in wanted
            if (key, effect) not in have
        ]

    def _evictions(self, node: str, taints: list[JSON]) -> Iterable[Action]:
        harsh = [taint for taint in taints if taint["effect"] == "NoExecute"]
        if not harsh:
            return
        for pod in list(self.pods.objects.values()):
            if pod["spec"].get("nodeName") != node or is_terminating(pod):
                continue
            left = time_left(pod, harsh, self.clock())
            if left is not None and left <= 0:
                metadata = pod["metadata"]
                yield Delete(resource_path("", "v1", "pods", metadata["namespace"], metadata["name"]), metadata["uid"])
            elif left is not None:
                yield After(min(left, LOOK_EVERY_SECONDS))


def time_left(pod: JSON, taints: list[JSON], now: float) -> float | None:
    """Seconds a pod may stay under these NoExecute taints; None: for ever."""
    soonest: float | None = None
    for taint in taints:
        matching = [item for item in pod["spec"].get("tolerations") or [] if tolerates(item, taint)]
        if not matching:
            return 0.0
        limits = [item["tolerationSeconds"] for item in matching if item.get("tolerationSeconds") is not None]
        if limits:
            left = seconds(taint.get("timeAdded", "")) + max(min(limits), 0) - now
            soonest = left if soonest is None else min(soonest, left)
    return soonest
