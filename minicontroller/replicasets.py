"""ReplicaSets and ReplicationControllers: as many pods as asked for.

My job: create what is missing, delete what is too much, adopt orphans that match, report (`pkg/controller/replicaset`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from minicontroller.actions import Action, After, Create, Delete, Patch
from minicontroller.controller import Controller, Key, key_of
from minicontroller.informers import Informers, each
from minicontroller.ownership import controller_of, is_controlled_by, labels_of, matches, owner_keys, owner_reference
from minicontroller.podstate import (
    available_in,
    deletion_rank,
    from_template,
    is_active,
    is_finished,
    is_ready,
    is_terminating,
)
from wire.apiclient import resource_path

JSON = dict[str, Any]

#: Upstream's burst: so many pods at a time, the rest after the copies have caught up.
BURST = 500


@dataclass(frozen=True, slots=True)
class Workload:
    """Which kind: the two differ in nothing but their name and their selector's form."""

    group: str
    plural: str
    kind: str

    def selector(self, owner: JSON) -> JSON | None:
        found = owner["spec"].get("selector")
        return found if self.group or found is None else {"matchLabels": found}

    def path(self, owner: JSON, subresource: str | None = None) -> str:
        metadata = owner["metadata"]
        return resource_path(self.group, "v1", self.plural, metadata["namespace"], metadata["name"], subresource)


REPLICA_SETS = Workload("apps", "replicasets", "ReplicaSet")
REPLICATION_CONTROLLERS = Workload("", "replicationcontrollers", "ReplicationController")


class Replicas(Controller):
    def __init__(self, informers: Informers, workload: Workload, clock: Callable[[], float]) -> None:
        self.workload = workload
        self.name = workload.plural
        super().__init__(informers, clock)

    def watch(self) -> None:
        self.owners = self.on(self.informers.of(self.workload.group, "v1", self.workload.plural))
        self.pods = self.on(self.informers.of("", "v1", "pods"), self._owners_of)

    def _owners_of(self, pod: JSON) -> Iterable[Key]:
        if controller_of(pod) is not None:
            return owner_keys(pod, self.workload.kind)
        return [
            key_of(owner)
            for owner in each(self.owners, pod["metadata"]["namespace"])
            if matches(self.workload.selector(owner), labels_of(pod))
        ]

    def plan(self, key: Key) -> Iterable[Action]:
        owner = self.owners.objects.get(key)
        if owner is None:
            return
        pods = [pod for pod in each(self.pods, key[0]) if is_controlled_by(pod, owner)]
        active = [pod for pod in pods if is_active(pod)]
        if not owner["metadata"].get("deletionTimestamp"):
            adopted = [pod for pod in each(self.pods, key[0]) if self._is_orphan_of(owner, pod)]
            yield from (self._adopt(owner, pod) for pod in adopted)
            if not adopted:
                yield from self._balance(owner, active)
        yield from self._report(owner, active, sum(is_terminating(pod) and not is_finished(pod) for pod in pods))

    def _is_orphan_of(self, owner: JSON, pod: JSON) -> bool:
        return controller_of(pod) is None and is_active(pod) and matches(self.workload.selector(owner), labels_of(pod))

    def _adopt(self, owner: JSON, pod: JSON) -> Action:
        metadata = pod["metadata"]
        references = [*(metadata.get("ownerReferences") or []), owner_reference(owner)]
        return Patch(
            resource_path("", "v1", "pods", metadata["namespace"], metadata["name"]),
            {"metadata": {"uid": metadata["uid"], "ownerReferences": references}},
        )

    def _balance(self, owner: JSON, active: list[JSON]) -> Iterable[Action]:
        wanted = owner["spec"].get("replicas", 1)
        namespace = owner["metadata"]["namespace"]
        for _ in range(min(wanted - len(active), BURST)):
            pod = from_template(owner["spec"]["template"], owner["metadata"]["name"], namespace, owner_reference(owner))
            yield Create(resource_path("", "v1", "pods", namespace), pod)
        for pod in sorted(active, key=deletion_rank)[: max(len(active) - wanted, 0)]:
            metadata = pod["metadata"]
            yield Delete(resource_path("", "v1", "pods", namespace, metadata["name"]), metadata["uid"])

    def _report(self, owner: JSON, active: list[JSON], terminating: int) -> Iterable[Action]:
        min_ready = owner["spec"].get("minReadySeconds", 0)
        waits = [available_in(pod, min_ready, self.clock()) for pod in active]
        template_labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
        fully = sum(1 for pod in active if template_labels.items() <= labels_of(pod).items())
        status = {
            "replicas": len(active),
            "fullyLabeledReplicas": fully,
            "readyReplicas": sum(is_ready(pod) for pod in active),
            "availableReplicas": waits.count(0.0),
            "observedGeneration": owner["metadata"].get("generation", 0),
        }
        if self.workload.kind == "ReplicaSet":  # ReplicationControllers have no field for it
            status["terminatingReplicas"] = terminating
        old = owner.get("status") or {}
        if any(old.get(name, 0) != value for name, value in status.items()):
            yield Patch(self.workload.path(owner, "status"), {"status": status})
        soonest = min((wait for wait in waits if wait), default=None)
        if soonest is not None:
            yield After(soonest)
