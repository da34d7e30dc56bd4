"""StatefulSets: pods with names that stay, one after another.

My job: pods name-0 … name-(n-1), created in order (or at once with Parallel), ended from the highest down, replaced
from the highest down to the partition when the template changes, with their claims (`pkg/controller/statefulset`).
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from minicontroller.actions import Action, After, Create, Delete, Patch
from minicontroller.controller import Controller, Key
from minicontroller.informers import each
from minicontroller.ownership import is_controlled_by, labels_of, owner_keys, owner_reference
from minicontroller.podstate import available_in, from_template, is_finished, is_ready, is_terminating
from wire.apiclient import resource_path

JSON = dict[str, Any]

POD_NAME, POD_INDEX = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"
REVISION = "controller-revision-hash"


class StatefulSets(Controller):
    name = "statefulsets"

    def watch(self) -> None:
        self.sets = self.on(self.informers.of("apps", "v1", "statefulsets"))
        self.pods = self.on(self.informers.of("", "v1", "pods"), lambda pod: owner_keys(pod, "StatefulSet"))
        self.claims = self.informers.of("", "v1", "persistentvolumeclaims")

    def plan(self, key: Key) -> Iterable[Action]:
        owner = self.sets.objects.get(key)
        if owner is None or owner["metadata"].get("deletionTimestamp"):
            return
        pods = {ordinal_of(pod, owner): pod for pod in each(self.pods, key[0]) if is_controlled_by(pod, owner)}
        pods.pop(-1, None)
        wanted = ordinals(owner)
        yield from self._step(owner, pods, wanted)
        yield from self._report(owner, pods, wanted)

    def _step(self, owner: JSON, pods: dict[int, JSON], wanted: Sequence[int]) -> Iterable[Action]:
        """What may be done now: with OrderedReady one thing at a time, and only behind healthy pods."""
        at_once = owner["spec"].get("podManagementPolicy") == "Parallel"
        for ordinal in wanted:
            pod = pods.get(ordinal)
            if pod is None:
                yield from self._claims_of(owner, ordinal)
                yield Create(resource_path("", "v1", "pods", owner["metadata"]["namespace"]), member(owner, ordinal))
            elif is_finished(pod) and not is_terminating(pod):
                yield _delete(pod)
            elif self._is_healthy(owner, pod):
                continue
            if not at_once:
                return
        surplus = sorted((ordinal for ordinal in pods if ordinal not in wanted), reverse=True)
        for ordinal in surplus:
            if not is_terminating(pods[ordinal]):
                yield _delete(pods[ordinal])
            if not at_once:
                return
        if not surplus:
            yield from self._replace_outdated(owner, pods, wanted)

    def _replace_outdated(self, owner: JSON, pods: dict[int, JSON], wanted: Sequence[int]) -> Iterable[Action]:
        strategy = owner["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        digest = template_hash(owner)
        for ordinal in sorted(wanted, reverse=True):
            pod = pods.get(ordinal)
            if ordinal < partition or pod is None:
                continue
            if labels_of(pod).get(REVISION) != digest and not is_terminating(pod):
                yield _delete(pod)
                return
            if not self._is_healthy(owner, pod):
                return

    def _is_healthy(self, owner: JSON, pod: JSON) -> bool:
        wait = available_in(pod, owner["spec"].get("minReadySeconds", 0), self.clock())
        return wait == 0.0 and not is_terminating(pod)

    def _claims_of(self, owner: JSON, ordinal: int) -> Iterable[Action]:
        namespace = owner["metadata"]["namespace"]
        for template in owner["spec"].get("volumeClaimTemplates") or []:
            name = f"{template['metadata']['name']}-{owner['metadata']['name']}-{ordinal}"
            if (namespace, name) not in self.claims.objects:
                metadata = {"name": name, "namespace": namespace, "labels": template["metadata"].get("labels") or {}}
                body = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": metadata}
                path = resource_path("", "v1", "persistentvolumeclaims", namespace)
                yield Create(path, body | {"spec": template.get("spec") or {}}, exists_is_fine=True)

    def _report(self, owner: JSON, pods: dict[int, JSON], wanted: Sequence[int]) -> Iterable[Action]:
        live = [pod for pod in pods.values() if not is_terminating(pod)]
        digest, min_ready = template_hash(owner), owner["spec"].get("minReadySeconds", 0)
        waits = [available_in(pod, min_ready, self.clock()) for pod in live]
        updated = sum(labels_of(pod).get(REVISION) == digest for pod in live)
        old, name = owner.get("status") or {}, owner["metadata"]["name"]
        is_done = updated == len(live) == len(wanted)
        status: JSON = {
            "replicas": len(live),
            "readyReplicas": sum(is_ready(pod) for pod in live),
            "availableReplicas": waits.count(0.0),
            "updatedReplicas": updated,
            "currentReplicas": updated if is_done else len(live) - updated,
            "updateRevision": f"{name}-{digest}",
            "currentRevision": f"{name}-{digest}" if is_done else old.get("currentRevision") or f"{name}-{digest}",
            "collisionCount": 0,
            "observedGeneration": owner["metadata"].get("generation", 0),
        }
        if any((old.get(field) or 0) != (value or 0) for field, value in status.items()):
            path = resource_path("apps", "v1", "statefulsets", owner["metadata"]["namespace"], name, "status")
            yield Patch(path, {"status": status})
        soonest = min((wait for wait in waits if wait), default=None)
        if soonest is not None:
            yield After(soonest)


def ordinals(owner: JSON) -> range:
    start = (owner["spec"].get("ordinals") or {}).get("start", 0)
    return range(start, start + owner["spec"].get("replicas", 1))


def ordinal_of(pod: JSON, owner: JSON) -> int:
    """The number in the pod's name; -1 if it is not of this set's form."""
    text = str(pod["metadata"]["name"]).removeprefix(owner["metadata"]["name"] + "-")
    return int(text) if text.isdigit() else -1


def template_hash(owner: JSON) -> str:
    return hashlib.sha256(orjson.dumps(owner["spec"]["template"], option=orjson.OPT_SORT_KEYS)).hexdigest()[:10]


def member(owner: JSON, ordinal: int) -> JSON:
    """The pod of one ordinal: its name is its host name below the governing service."""
    metadata = owner["metadata"]
    name = f"{metadata['name']}-{ordinal}"
    pod = from_template(owner["spec"]["template"], metadata["name"], metadata["namespace"], owner_reference(owner))
    del pod["metadata"]["generateName"]
    pod["metadata"]["name"] = name
    identity = {POD_NAME: name, POD_INDEX: str(ordinal), REVISION: template_hash(owner)}
    pod["metadata"]["labels"] = (pod["metadata"].get("labels") or {}) | identity
    claims = [template["metadata"]["name"] for template in owner["spec"].get("volumeClaimTemplates") or []]
    volumes = [item for item in pod["spec"].get("volumes") or [] if item.get("name") not in claims]
    volumes += [{"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{name}"}} for claim in claims]
    pod["spec"] = pod["spec"] | {"hostname": name, "subdomain": owner["spec"].get("serviceName") or ""}
    if volumes:
        pod["spec"]["volumes"] = volumes
    return pod


def _delete(pod: JSON) -> Action:
    metadata = pod["metadata"]
    return Delete(resource_path("", "v1", "pods", metadata["namespace"], metadata["name"]), metadata["uid"])
