"""What the containers of one pod share.

My job: the pod as it is now, its place on the node, and the gathering of what an environment needs. Owned by the
pod's worker, which alone changes it; `containers` and `starting` read it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minikubelet.events import Involved
from minikubelet.pods.environment import CONFIG_MAP, SECRET, ConfigError, ObjectRef, build, references
from minikubelet.pods.launch import PodPlace
from minikubelet.pods.podref import containers, is_static
from minikubelet.pods.records import ContainerRecord
from minikubelet.pods.references import ObjectKey
from minikubelet.pods.serviceenv import service_environment
from minikubelet.pods.surroundings import PodVolumes, Surroundings
from minikubelet.runtime.interface import PodRef, Sandbox
from wire.apiclient import APIError
from wire.errors import WireError

JSON = dict[str, Any]


@dataclass(slots=True)
class PodContext:
    """One pod on this node. Lives as long as its worker."""

    around: Surroundings
    pod: JSON
    ref: PodRef
    place: PodPlace
    volumes: PodVolumes
    changed: Callable[[], None]
    """Something the status shows is different now."""
    sandbox: Sandbox | None = None
    records: dict[str, ContainerRecord] = field(default_factory=dict)
    probe_counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(container, kind of probe, result) → how often, for the metrics."""

    def event(self, type: str, reason: str, message: str, record: ContainerRecord | None = None) -> None:
        container = (record.kind, record.name) if record else None
        self.around.events.record(Involved.pod(self.pod, container), type, reason, message)

    def with_addresses(self) -> JSON:
        """The pod as the downward API shows it: its addresses filled in, whatever the API server knows yet."""
        node_ip, pod_ip = self.around.config.node_ip, self.place.pod_ip
        addresses = {"hostIP": node_ip, "hostIPs": [{"ip": node_ip}], "podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}
        return self.pod | {"status": (self.pod.get("status") or {}) | addresses}

    async def environment(self, container: JSON) -> dict[str, str]:
        """Raises ConfigError."""
        if not is_static(self.pod):
            # A static pod may be what the API server itself runs in.
            await self.around.services.synced.wait()
        namespace = self.ref.namespace
        objects: dict[ObjectRef, JSON | None] = {}
        for wanted in references(container):
            try:
                objects[wanted] = await self.around.references.get(wanted.kind, namespace, wanted.name)
            except APIError as error:
                raise ConfigError(error.message) from error
            except WireError as error:
                raise ConfigError(f'{wanted.kind} "{wanted.name}": {error}') from error
        links = self.pod["spec"].get("enableServiceLinks") is not False
        services = service_environment(self.around.services.objects.values(), namespace, links=links)
        services |= self.around.api_address(services)
        return build(container, self.with_addresses(), objects, services, self.around.node.allocatable)


def referenced_objects(pod: JSON) -> set[ObjectKey]:
    """Every ConfigMap and Secret the pod uses, in environments and volumes."""
    namespace = pod["metadata"].get("namespace", "default")
    found = {ObjectKey(item.kind, namespace, item.name)
             for _, container in containers(pod) for item in references(container)}
    for volume in pod["spec"].get("volumes") or ():
        for kind, name in _volume_objects(volume):
            found.add(ObjectKey(kind, namespace, name))
    return found


def _volume_objects(volume: JSON) -> list[tuple[str, str]]:
    sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
    found = []
    for source in sources:
        if (config_map := source.get("configMap")) and config_map.get("name"):
            found.append((CONFIG_MAP, config_map["name"]))
        if (secret := source.get("secret")) and (name := secret.get("secretName") or secret.get("name")):
            found.append((SECRET, name))
    return found
