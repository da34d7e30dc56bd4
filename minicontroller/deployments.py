"""Deployments: one ReplicaSet per pod template, moved over a few pods at a time.

My job: find or make the ReplicaSet of the present template, scale new and old ones by the strategy, keep revisions,
report progress (`pkg/controller/deployment`).
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson

from minicontroller.actions import Action, After, Create, Delete, Patch
from minicontroller.controller import Controller, Key
from minicontroller.informers import each
from minicontroller.ownership import is_controlled_by, owner_keys, owner_reference
from minicontroller.podstate import condition, is_finished, seconds, with_condition
from minicontroller.rollout import Budget, Sizes, next_sizes
from wire.apiclient import resource_path

JSON = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
DESIRED, MAXIMUM = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"
HASH_LABEL = "pod-template-hash"
#: Annotations of the Deployment that are not copied to its ReplicaSets.
OWN_ANNOTATIONS = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        "deployment.kubernetes.io/revision-history",
        DESIRED,
        MAXIMUM,
    }
)
PAUSED = {"type": "Progressing", "status": "Unknown", "reason": "DeploymentPaused", "message": "Deployment is paused"}
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class Deployments(Controller):
    name = "deployments"

    def watch(self) -> None:
        self.deployments = self.on(self.informers.of("apps", "v1", "deployments"))
        self.sets = self.on(self.informers.of("apps", "v1", "replicasets"), lambda obj: owner_keys(obj, "Deployment"))
        self.pods = self.on(self.informers.of("", "v1", "pods"), self._of_pod)

    def _of_pod(self, pod: JSON) -> Iterable[Key]:
        """Only the Recreate strategy waits for pods to be gone; their ReplicaSet's status tells the rest."""
        for namespace, name in owner_keys(pod, "ReplicaSet"):
            owner = self.sets.objects.get((namespace, name))
            if owner is not None:
                yield from owner_keys(owner, "Deployment")

    def plan(self, key: Key) -> Iterable[Action]:
        deployment = self.deployments.objects.get(key)
        if deployment is None:
            return
        sets = [obj for obj in each(self.sets, key[0]) if is_controlled_by(obj, deployment)]
        current = next((obj for obj in sets if same_template(obj, deployment)), None)
        old = [obj for obj in sets if obj is not current]
        if deployment["metadata"].get("deletionTimestamp"):
            yield from self._report(deployment, current, old)
            return
        yield from self._rollback_free(deployment, current, old)
        yield from self._report(deployment, current, old)

    def _rollback_free(self, deployment: JSON, current: JSON | None, old: list[JSON]) -> Iterable[Action]:
        """Everything but the report."""
        paused = bool(deployment["spec"].get("paused"))
        if current is None:
            if not paused:
                if not self._must_wait(deployment, old):
                    yield new_replica_set(deployment, old)
                else:
                    yield from (_scale(deployment, obj, 0) for obj in old if replicas(obj))
            elif len(old) == 1:
                yield from _resize(deployment, old[0], deployment["spec"].get("replicas", 1))
            return
        yield from _keep_revision(deployment, current, old)
        yield from self._move(deployment, current, old, paused)
        if not paused and is_complete(deployment, current, old):
            yield from _cleanup(deployment, old)

    def _must_wait(self, deployment: JSON, old: list[JSON]) -> bool:
        """Recreate: nothing new before every old pod is gone."""
        if (deployment["spec"].get("strategy") or {}).get("type") != "Recreate":
            return False
        uids = {obj["metadata"]["uid"] for obj in old}
        return any(replicas(obj) for obj in old) or any(
            ref.get("uid") in uids
            for pod in each(self.pods, deployment["metadata"]["namespace"])
            if not is_finished(pod)
            for ref in pod["metadata"].get("ownerReferences") or []
        )

    def _move(self, deployment: JSON, current: JSON, old: list[JSON], paused: bool) -> Iterable[Action]:
        wanted = deployment["spec"].get("replicas", 1)
        strategy = deployment["spec"].get("strategy") or {}
        if paused:
            if not any(replicas(obj) for obj in old):
                yield from _resize(deployment, current, wanted)
            return
        if strategy.get("type") == "Recreate":
            yield from (_scale(deployment, obj, 0) for obj in old if replicas(obj))
            if not self._must_wait(deployment, old):
                yield from _resize(deployment, current, wanted)
            return
        budget = Budget.of(wanted, strategy.get("rollingUpdate") or {})
        sizes = [Sizes(replicas(obj), _available(obj)) for obj in old]
        new_size, old_sizes = next_sizes(budget, Sizes(replicas(current), _available(current)), sizes)
        yield from _resize(deployment, current, new_size)
        for obj, size in zip(old, old_sizes, strict=True):
            if size != replicas(obj):
                yield _scale(deployment, obj, size)

    def _report(self, deployment: JSON, current: JSON | None, old: list[JSON]) -> Iterable[Action]:
        status = self._status(deployment, current, old)
        before = deployment.get("status") or {}
        if any(before.get(name, _EMPTY[name]) != value for name, value in status.items()):
            metadata = deployment["metadata"]
            yield Patch(
                resource_path("apps", "v1", "deployments", metadata["namespace"], metadata["name"], "status"),
                {"status": {name: value if value or name not in _OMITTED else None for name, value in status.items()}},
            )
        deadline = deployment["spec"].get("progressDeadlineSeconds")
        if deadline and not is_complete(deployment, current, old):
            yield After(float(deadline))

    def _status(self, deployment: JSON, current: JSON | None, old: list[JSON]) -> JSON:
        everything = [*old, current] if current is not None else old
        total = sum(_status_of(obj, "replicas") for obj in everything)
        available = sum(_available(obj) for obj in everything)
        status: JSON = {
            "observedGeneration": deployment["metadata"].get("generation", 0),
            "replicas": total,
            "updatedReplicas": _status_of(current, "replicas") if current is not None else 0,
            "readyReplicas": sum(_status_of(obj, "readyReplicas") for obj in everything),
            "availableReplicas": available,
            "unavailableReplicas": max(sum(replicas(obj) for obj in everything) - available, 0),
        }
        going = [(obj.get("status") or {}).get("terminatingReplicas") for obj in everything]
        if None not in going:
            status["terminatingReplicas"] = sum(going)
        status["conditions"] = self._conditions(deployment, current, old, status)
        return status

    def _conditions(self, deployment: JSON, current: JSON | None, old: list[JSON], status: JSON) -> list[JSON]:
        now = self.clock()
        conditions = list((deployment.get("status") or {}).get("conditions") or [])
        budget = Budget.of(
            deployment["spec"].get("replicas", 1), (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
        )
        paused = bool(deployment["spec"].get("paused"))
        known = condition(deployment, "Progressing") or {}
        deadline = deployment["spec"].get("progressDeadlineSeconds")
        if paused and deadline is not None and known.get("reason") != "ProgressDeadlineExceeded":
            conditions = with_condition(conditions, PAUSED, now, updated=True)
        enough = status["availableReplicas"] >= budget.least_available
        conditions = with_condition(
            conditions,
            {
                "type": "Available",
                "status": "True" if enough else "False",
                "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
                "message": "Deployment has minimum availability."
                if enough
                else "Deployment does not have minimum availability.",
            },
            now,
            updated=True,
        )
        if paused or current is None or deadline is None:
            return conditions
        return with_condition(conditions, self._progress(deployment, current, old, status, now), now, updated=True)

    def _progress(self, deployment: JSON, current: JSON, old: list[JSON], status: JSON, now: float) -> JSON:
        name = current["metadata"]["name"]
        if is_complete(deployment, current, old):
            return {
                "type": "Progressing",
                "status": "True",
                "reason": "NewReplicaSetAvailable",
                "message": f'ReplicaSet "{name}" has successfully progressed.',
            }
        before, known = deployment.get("status") or {}, condition(deployment, "Progressing")
        moved = any(
            before.get(field, 0) != status[field]
            for field in ("updatedReplicas", "readyReplicas", "availableReplicas", "replicas")
        )
        since = seconds((known or {}).get("lastUpdateTime", "")) or now
        if not moved and known is not None and now - since >= deployment["spec"]["progressDeadlineSeconds"]:
            return {
                "type": "Progressing",
                "status": "False",
                "reason": "ProgressDeadlineExceeded",
                "message": f'ReplicaSet "{name}" has timed out progressing.',
            }
        if not moved and known is not None and known.get("reason") in ("ReplicaSetUpdated", "ProgressDeadlineExceeded"):
            return {key: known[key] for key in ("type", "status", "reason", "message")}
        return {
            "type": "Progressing",
            "status": "True",
            "reason": "ReplicaSetUpdated",
            "message": f'ReplicaSet "{name}" is progressing.',
        }


_EMPTY: JSON = {
    "terminatingReplicas": None,
    "observedGeneration": 0,
    "replicas": 0,
    "updatedReplicas": 0,
    "readyReplicas": 0,
    "availableReplicas": 0,
    "unavailableReplicas": 0,
    "conditions": [],
}
_OMITTED = frozenset({"replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"})


def replicas(replica_set: JSON) -> int:
    wanted: int = replica_set["spec"].get("replicas", 1)
    return wanted


def _status_of(obj: JSON, name: str) -> int:
    found: int = (obj.get("status") or {}).get(name, 0)
    return found


def _available(obj: JSON) -> int:
    return _status_of(obj, "availableReplicas")


def same_template(replica_set: JSON, deployment: JSON) -> bool:
    """The same pods but for the hash label."""
    return _without_hash(replica_set["spec"]["template"]) == _without_hash(deployment["spec"]["template"])


def _without_hash(template: JSON) -> JSON:
    metadata = dict(template.get("metadata") or {})
    metadata.pop("creationTimestamp", None)
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    return template | {"metadata": metadata | {"labels": labels}}


def template_hash(template: JSON, collisions: int) -> str:
    """Ten characters that name a template; the same template always gets the same."""
    digest = hashlib.sha256(
        orjson.dumps(_without_hash(template), option=orjson.OPT_SORT_KEYS) + str(collisions).encode()
    )
    number = int.from_bytes(digest.digest()[:8], "big")
    return "".join(ALPHABET[number // len(ALPHABET) ** place % len(ALPHABET)] for place in range(10))


def revision_of(obj: JSON) -> int:
    text = (obj["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def _annotations(deployment: JSON, revision: int) -> JSON:
    copied = {
        key: value
        for key, value in (deployment["metadata"].get("annotations") or {}).items()
        if key not in OWN_ANNOTATIONS
    }
    wanted = deployment["spec"].get("replicas", 1)
    budget = Budget.of(wanted, (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {})
    return copied | {REVISION: str(revision), DESIRED: str(wanted), MAXIMUM: str(budget.most)}


def new_replica_set(deployment: JSON, old: list[JSON]) -> Action:
    metadata, spec = deployment["metadata"], deployment["spec"]
    digest = template_hash(spec["template"], (deployment.get("status") or {}).get("collisionCount", 0))
    template: JSON = orjson.loads(orjson.dumps(spec["template"]))
    template.setdefault("metadata", {}).setdefault("labels", {})[HASH_LABEL] = digest
    selector: JSON = orjson.loads(orjson.dumps(spec["selector"]))
    selector.setdefault("matchLabels", {})[HASH_LABEL] = digest
    budget = Budget.of(spec.get("replicas", 1), (spec.get("strategy") or {}).get("rollingUpdate") or {})
    room = max(budget.most - sum(replicas(obj) for obj in old), 0)
    is_recreate = (spec.get("strategy") or {}).get("type") == "Recreate"
    body = {
        "kind": "ReplicaSet",
        "apiVersion": "apps/v1",
        "metadata": {
            "name": f"{metadata['name']}-{digest}",
            "namespace": metadata["namespace"],
            "labels": template["metadata"]["labels"],
            "ownerReferences": [owner_reference(deployment)],
            "annotations": _annotations(deployment, max((revision_of(obj) for obj in old), default=0) + 1),
        },
        "spec": {
            "replicas": budget.wanted if is_recreate else min(budget.wanted, room),
            "minReadySeconds": spec.get("minReadySeconds", 0),
            "selector": selector,
            "template": template,
        },
    }
    return Create(resource_path("apps", "v1", "replicasets", metadata["namespace"]), body)


def _keep_revision(deployment: JSON, current: JSON, old: list[JSON]) -> Iterable[Action]:
    """A template that came back becomes the newest revision; the Deployment says which one it runs."""
    newest = max((revision_of(obj) for obj in old), default=0)
    revision = max(revision_of(current), newest + 1) if newest >= revision_of(current) else revision_of(current)
    wanted = _annotations(deployment, revision)
    have = current["metadata"].get("annotations") or {}
    metadata = current["metadata"]
    if any(have.get(key) != value for key, value in wanted.items()):
        yield Patch(
            resource_path("apps", "v1", "replicasets", metadata["namespace"], metadata["name"]),
            {"metadata": {"annotations": wanted}},
        )
    if (deployment["metadata"].get("annotations") or {}).get(REVISION) != str(revision):
        # On /status, as upstream: an annotation written to the main endpoint would count as a new generation.
        path = resource_path(
            "apps", "v1", "deployments", metadata["namespace"], deployment["metadata"]["name"], "status"
        )
        yield Patch(path, {"metadata": {"annotations": {REVISION: str(revision)}}})


def _resize(deployment: JSON, replica_set: JSON, size: int) -> Iterable[Action]:
    if replicas(replica_set) != size:
        yield _scale(deployment, replica_set, size)


def _scale(deployment: JSON, replica_set: JSON, size: int) -> Action:
    metadata = replica_set["metadata"]
    return Patch(
        resource_path("apps", "v1", "replicasets", metadata["namespace"], metadata["name"]),
        {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": {"replicas": size}},
    )


def is_complete(deployment: JSON, current: JSON | None, old: list[JSON]) -> bool:
    wanted = deployment["spec"].get("replicas", 1)
    return (
        current is not None
        and _status_of(current, "replicas") == wanted
        and _available(current) == wanted
        and not any(_status_of(obj, "replicas") for obj in old)
    )


def _cleanup(deployment: JSON, old: list[JSON]) -> Iterable[Action]:
    """No more old ReplicaSets than revisionHistoryLimit."""
    limit = deployment["spec"].get("revisionHistoryLimit", 10)
    empty = sorted(
        (
            obj
            for obj in old
            if not replicas(obj) and not _status_of(obj, "replicas") and not obj["metadata"].get("deletionTimestamp")
        ),
        key=revision_of,
    )
    for obj in empty[: max(len(old) - limit, 0)]:
        metadata = obj["metadata"]
        yield Delete(
            resource_path("apps", "v1", "replicasets", metadata["namespace"], metadata["name"]), metadata["uid"]
        )
