"""Objects as controllers see them, and informers that hold what a test says."""

from collections.abc import Callable
from typing import Any

from minicontroller.informers import Informers

JSON = dict[str, Any]


class Still:
    """An informer that never moves by itself."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], JSON] = {}
        self.subscribers: list[Callable[[str, JSON | None, JSON | None], None]] = []

    def subscribe(self, callback: Callable[[str, JSON | None, JSON | None], None]) -> None:
        self.subscribers.append(callback)

    def put(self, obj: JSON) -> None:
        metadata = obj["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        old = self.objects.get(key)
        self.objects[key] = obj
        for tell in self.subscribers:
            tell("MODIFIED" if old else "ADDED", obj, old)


class StillInformers(Informers):
    def __init__(self) -> None:
        self.collections: dict[str, Still] = {}

    def of(self, group: str, version: str, plural: str, **selectors: Any) -> Any:
        return self.collections.setdefault(f"{plural}.{group}" if group else plural, Still())

    def put(self, plural: str, *objects: JSON) -> None:
        for obj in objects:
            self.of("", "", plural) if plural not in self.collections else None
            self.collections[plural].put(obj)


def meta(name: str, **more: Any) -> JSON:
    return {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": "1", "generation": 1, **more}


def pod(
    name: str, owner: JSON | None = None, *, phase: str = "Running", ready: bool = True, node: str = "n1", **more: Any
) -> JSON:
    references = (
        [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": True,
            }
        ]
        if owner
        else []
    )
    conditions = [
        {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ]
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": meta(name, labels={"app": "x"}, ownerReferences=references, **more),
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": phase, "conditions": conditions, "podIP": "127.244.1.9"},
    }


def replica_set(name: str = "rs", replicas: int = 2, **more: Any) -> JSON:
    return {
        "kind": "ReplicaSet",
        "apiVersion": "apps/v1",
        "metadata": meta(name, **more),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }
