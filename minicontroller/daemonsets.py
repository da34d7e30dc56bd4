"""DaemonSets: one pod on every node that fits.

My job: for each node whether it should run the pod, create and delete accordingly, replace outdated pods, report
(`pkg/controller/daemon`). Pods are bound by node affinity on metadata.name, so the scheduler still has the last word.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson

from minicontroller.actions import Action, After, Create, Delete, Patch
from minicontroller.controller import Controller, Key
from minicontroller.informers import each
from minicontroller.ownership import is_controlled_by, labels_of, owner_keys, owner_reference
from minicontroller.podstate import available_in, from_template, is_finished, is_ready, is_terminating
from minicontroller.rollout import Budget
from wire.apiclient import resource_path
from wire.nodeplacement import is_selected, untolerated

JSON = dict[str, Any]

HASH_LABEL = "controller-revision-hash"
#: What daemons tolerate without being asked (`util.AddOrUpdateDaemonPodTolerations`).
TOLERATED = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)


class DaemonSets(Controller):
    name = "daemonsets"

    def watch(self) -> None:
        self.sets = self.on(self.informers.of("apps", "v1", "daemonsets"))
        self.pods = self.on(self.informers.of("", "v1", "pods"), lambda pod: owner_keys(pod, "DaemonSet"))
        self.nodes = self.on(self.informers.of("", "v1", "nodes"), lambda node: list(self.sets.objects))

    def plan(self, key: Key) -> Iterable[Action]:
        daemon = self.sets.objects.get(key)
        if daemon is None or daemon["metadata"].get("deletionTimestamp"):
            return
        pods: dict[str, list[JSON]] = {}
        for pod in each(self.pods, key[0]):
            if is_controlled_by(pod, daemon):
                pods.setdefault(node_of(pod), []).append(pod)
        wanted = {name: node for (_, name), node in self.nodes.objects.items() if should_run(daemon, node)}
        yield from self._balance(daemon, wanted, pods)
        yield from self._replace_outdated(daemon, wanted, pods)
        yield from self._report(daemon, wanted, pods)

    def _balance(self, daemon: JSON, wanted: dict[str, JSON], pods: dict[str, list[JSON]]) -> Iterable[Action]:
        namespace = daemon["metadata"]["namespace"]
        for name in wanted:
            live = [pod for pod in pods.get(name, []) if not is_finished(pod)]
            if not live:
                yield Create(resource_path("", "v1", "pods", namespace), daemon_pod(daemon, name))
            yield from (_delete(pod) for pod in pods.get(name, []) if is_finished(pod) and not is_terminating(pod))
            yield from (_delete(pod) for pod in live[1:] if not is_terminating(pod))
        for name, found in pods.items():
            if name not in wanted:
                yield from (_delete(pod) for pod in found if not is_terminating(pod))

    def _replace_outdated(self, daemon: JSON, wanted: dict[str, JSON], pods: dict[str, list[JSON]]) -> Iterable[Action]:
        """RollingUpdate: at most maxUnavailable nodes without an available pod."""
        strategy = daemon["spec"].get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return
        allowed = Budget.of(
            len(wanted),
            {"maxSurge": 0, "maxUnavailable": (strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1)},
        ).unavailable
        digest = template_hash(daemon)
        down = sum(not any(is_ready(pod) and not is_terminating(pod) for pod in pods.get(name, [])) for name in wanted)
        for name in wanted:
            for pod in pods.get(name, []):
                if labels_of(pod).get(HASH_LABEL) == digest or is_terminating(pod) or is_finished(pod):
                    continue
                if is_ready(pod):
                    if down >= allowed:
                        continue
                    down += 1
                yield _delete(pod)

    def _report(self, daemon: JSON, wanted: dict[str, JSON], pods: dict[str, list[JSON]]) -> Iterable[Action]:
        digest, min_ready = template_hash(daemon), daemon["spec"].get("minReadySeconds", 0)
        on_wanted = [pod for name in wanted for pod in pods.get(name, [])[:1] if not is_terminating(pod)]
        waits = [available_in(pod, min_ready, self.clock()) for pod in on_wanted]
        status = {
            "currentNumberScheduled": len(on_wanted),
            "desiredNumberScheduled": len(wanted),
            "numberMisscheduled": sum(1 for name in pods if name not in wanted),
            "numberReady": sum(is_ready(pod) for pod in on_wanted),
            "numberAvailable": waits.count(0.0),
            "numberUnavailable": len(wanted) - waits.count(0.0),
            "updatedNumberScheduled": sum(labels_of(pod).get(HASH_LABEL) == digest for pod in on_wanted),
            "observedGeneration": daemon["metadata"].get("generation", 0),
        }
        old, metadata = daemon.get("status") or {}, daemon["metadata"]
        if any(old.get(name, 0) != value for name, value in status.items()):
            yield Patch(
                resource_path("apps", "v1", "daemonsets", metadata["namespace"], metadata["name"], "status"),
                {"status": status},
            )
        soonest = min((wait for wait in waits if wait), default=None)
        if soonest is not None:
            yield After(soonest)


def node_of(pod: JSON) -> str:
    """Where a daemon's pod is or is meant to be."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    for term in terms:
        for field in term.get("matchFields") or []:
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return ""


def should_run(daemon: JSON, node: JSON) -> bool:
    spec = _with_tolerations(daemon["spec"]["template"].get("spec") or {})
    if spec.get("nodeName") not in (None, "", node["metadata"]["name"]):
        return False
    if not is_selected(spec, node):
        return False
    return not untolerated(spec, node, ("NoSchedule", "NoExecute"))


def template_hash(daemon: JSON) -> str:
    return hashlib.sha256(orjson.dumps(daemon["spec"]["template"], option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]


def daemon_pod(daemon: JSON, node: str) -> JSON:
    pod = from_template(
        daemon["spec"]["template"], daemon["metadata"]["name"], daemon["metadata"]["namespace"], owner_reference(daemon)
    )
    pod["metadata"]["labels"] = (pod["metadata"].get("labels") or {}) | {HASH_LABEL: template_hash(daemon)}
    spec = _with_tolerations(pod["spec"])
    affinity = dict(spec.get("affinity") or {})
    affinity["nodeAffinity"] = (affinity.get("nodeAffinity") or {}) | {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
        }
    }
    pod["spec"] = spec | {"affinity": affinity}
    return pod


def _with_tolerations(spec: JSON) -> JSON:
    own = [{"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect} for key, effect in TOLERATED]
    if spec.get("hostNetwork"):
        own.append({"key": "node.kubernetes.io/network-unavailable", "operator": "Exists", "effect": "NoSchedule"})
    return spec | {"tolerations": [*(spec.get("tolerations") or []), *own]}


def _delete(pod: JSON) -> Action:
    metadata = pod["metadata"]
    return Delete(resource_path("", "v1", "pods", metadata["namespace"], metadata["name"]), metadata["uid"])
