"""Path to pod to container, with upstream's words for what is missing.

My job: one place for the look-ups of exec, attach, port-forward and run. Pure over the workers' index. Neighbours:
the streaming handlers.
"""

from minikubelet.pods.containers import ContainerSupervisor
from minikubelet.pods.podref import full_name
from minikubelet.pods.worker import PodWorker
from minikubelet.pods.workers import PodWorkers
from minikubelet.runtime.interface import Container
from minikubelet.server.answers import HTTPError


def find_pod(workers: PodWorkers, namespace: str, name: str, uid: str | None) -> PodWorker:
    worker = workers.find(namespace, name)
    if worker is None:
        raise HTTPError(404, "pod does not exist")
    if uid is not None and worker.ref.uid != uid:
        raise HTTPError(404, "pod not found")
    return worker


def running_container(worker: PodWorker, name: str) -> Container:
    container = _running(worker.supervisors.get(name))
    if container is None:
        raise HTTPError(500, f'container not found ("{name}")')
    return container


def attachable(worker: PodWorker, name: str) -> Container:
    container = _running(worker.supervisors.get(name))
    if container is None:
        raise HTTPError(500, f"container {name} not found in pod {full_name(worker.ref)}")
    return container


def _running(supervisor: ContainerSupervisor | None) -> Container | None:
    if supervisor is None or supervisor.container is None or supervisor.container.exit_status is not None:
        return None
    return supervisor.container
