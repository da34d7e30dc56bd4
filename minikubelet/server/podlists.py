"""/pods and /runningpods/.

My job: what runs here, as PodLists: as it should be and is reported, and as the runtime sees it. Pure over the
workers.
"""

from typing import Any

from minikubelet.pods.workers import PodWorkers

JSON = dict[str, Any]


def pods(workers: PodWorkers) -> JSON:
    items = [worker.pod | {"status": worker.status()} for worker in workers]
    return _list([{key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in items])


def running_pods(workers: PodWorkers) -> JSON:
    """Only names, uids and the containers that run, as upstream builds them from the runtime's answer."""
    items = []
    for worker in workers:
        running = [record for record in worker.records.values() if record.is_running]
        if running:
            items.append({
                "metadata": {"name": worker.ref.name, "namespace": worker.ref.namespace, "uid": worker.ref.uid},
                "spec": {"containers": [{"name": record.name, "image": record.spec.get("image", ""), "resources": {}}
                                        for record in running]},
                "status": {}})
    return _list(items)


def _list(items: list[JSON]) -> JSON:
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
