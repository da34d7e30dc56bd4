"""Endpoints and EndpointSlices: which pods answer for a Service.

My job: for each Service with a selector one Endpoints object (`pkg/controller/endpoint`) and slices of at most 100
endpoints (`pkg/controller/endpointslice`).
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson

from minicontroller.actions import Action, Create, Delete, Update
from minicontroller.controller import Controller, Key, key_of
from minicontroller.deployments import ALPHABET
from minicontroller.informers import each
from minicontroller.ownership import labels_of, owner_reference
from minicontroller.podstate import is_finished, is_ready, is_terminating
from wire.apiclient import resource_path

JSON = dict[str, Any]

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
PER_SLICE = 100


class _OfServices(Controller):
    def watch(self) -> None:
        self.services = self.on(self.informers.of("", "v1", "services"))
        self.pods = self.on(self.informers.of("", "v1", "pods"), self._services_of)

    def _services_of(self, pod: JSON) -> Iterable[Key]:
        labels = labels_of(pod)
        return [
            key_of(service) for service in each(self.services, pod["metadata"]["namespace"]) if selects(service, labels)
        ]

    def backends(self, service: JSON) -> list[JSON]:
        """Its pods that have an address and are not over, in a stable order."""
        found = [
            pod
            for pod in each(self.pods, service["metadata"]["namespace"])
            if selects(service, labels_of(pod)) and (pod.get("status") or {}).get("podIP") and not is_finished(pod)
        ]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def selects(service: JSON, labels: Any) -> bool:
    selector = (service.get("spec") or {}).get("selector")
    return isinstance(selector, dict) and bool(selector) and selector.items() <= labels.items()


def _is_served(service: JSON) -> bool:
    spec = service.get("spec") or {}
    return bool(spec.get("selector")) and spec.get("type") != "ExternalName"


class Endpoints(_OfServices):
    name = "endpoints"

    def watch(self) -> None:
        super().watch()
        self.endpoints = self.on(self.informers.of("", "v1", "endpoints"))

    def plan(self, key: Key) -> Iterable[Action]:
        service, present = self.services.objects.get(key), self.endpoints.objects.get(key)
        if service is None or service["metadata"].get("deletionTimestamp"):
            if present is not None and "endpoints.kubernetes.io/managed-by" in labels_of(present):
                metadata = present["metadata"]
                yield Delete(resource_path("", "v1", "endpoints", key[0], key[1]), metadata["uid"])
            return
        if not _is_served(service):
            return
        subsets = subsets_of(service, self.backends(service))
        labels = dict(labels_of(service)) | {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
        if not (service.get("spec") or {}).get("clusterIP") or service["spec"]["clusterIP"] == "None":
            labels["service.kubernetes.io/headless"] = ""
        body = {
            "kind": "Endpoints",
            "apiVersion": "v1",
            "metadata": {"name": key[1], "namespace": key[0], "labels": labels},
        } | ({"subsets": subsets} if subsets else {})
        if present is None:
            yield Create(resource_path("", "v1", "endpoints", key[0]), body)
        elif (present.get("subsets") or []) != subsets or labels_of(present) != labels:
            body["metadata"] = present["metadata"] | {"labels": labels}
            yield Update(resource_path("", "v1", "endpoints", key[0], key[1]), body)


def subsets_of(service: JSON, pods: list[JSON]) -> list[JSON]:
    """Pods with the same ports stand in one subset."""
    grouped: dict[bytes, JSON] = {}
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    for pod in pods:
        ports = [port for port in (_port(item, pod) for item in service["spec"].get("ports") or []) if port]
        if not ports and service["spec"].get("ports"):
            continue
        subset = grouped.setdefault(orjson.dumps(ports), {"addresses": [], "notReadyAddresses": [], "ports": ports})
        ready = publish or (is_ready(pod) and not is_terminating(pod))
        subset["addresses" if ready else "notReadyAddresses"].append(_address(pod))
    return [{name: value for name, value in subset.items() if value} for subset in grouped.values()]


def _address(pod: JSON) -> JSON:
    metadata = pod["metadata"]
    found: JSON = {
        "ip": pod["status"]["podIP"],
        "nodeName": pod["spec"].get("nodeName"),
        "targetRef": {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }
    if pod["spec"].get("hostname"):
        found["hostname"] = pod["spec"]["hostname"]
    return found


def _port(service_port: JSON, pod: JSON) -> JSON | None:
    """The service's port as this pod has it; None when it has no port of that name."""
    target = service_port.get("targetPort", service_port["port"])
    protocol = service_port.get("protocol", "TCP")
    if isinstance(target, str):
        number = next(
            (
                item["containerPort"]
                for container in pod["spec"].get("containers") or []
                for item in container.get("ports") or []
                if item.get("name") == target and item.get("protocol", "TCP") == protocol
            ),
            None,
        )
    else:
        number = target or service_port["port"]
    if number is None:
        return None
    found: JSON = {"name": service_port["name"]} if service_port.get("name") else {}
    found |= {"port": number, "protocol": protocol}
    if service_port.get("appProtocol"):
        found["appProtocol"] = service_port["appProtocol"]
    return found


class EndpointSlices(_OfServices):
    name = "endpointslices"

    def watch(self) -> None:
        super().watch()
        self.slices = self.on(self.informers.of("discovery.k8s.io", "v1", "endpointslices"), _service_of)

    def plan(self, key: Key) -> Iterable[Action]:
        service = self.services.objects.get(key)
        present = {
            str(item["metadata"]["name"]): item
            for item in each(self.slices, key[0])
            if labels_of(item).get(SERVICE_LABEL) == key[1] and labels_of(item).get(MANAGER_LABEL) == MANAGER
        }
        wanted: dict[str, JSON] = {}
        if service is not None and not service["metadata"].get("deletionTimestamp") and _is_served(service):
            wanted = {str(item["metadata"]["name"]): item for item in slices_of(service, self.backends(service))}
        for name, body in wanted.items():
            if name not in present:
                yield Create(resource_path("discovery.k8s.io", "v1", "endpointslices", key[0]), body)
            elif not _same(present[name], body):
                body["metadata"] = present[name]["metadata"] | {"labels": body["metadata"]["labels"]}
                yield Update(resource_path("discovery.k8s.io", "v1", "endpointslices", key[0], name), body)
        for name, gone in present.items():
            if name not in wanted and not gone["metadata"].get("deletionTimestamp"):
                yield Delete(
                    resource_path("discovery.k8s.io", "v1", "endpointslices", key[0], name), gone["metadata"]["uid"]
                )


def _service_of(item: JSON) -> Iterable[Key]:
    name = labels_of(item).get(SERVICE_LABEL)
    return ((item["metadata"]["namespace"], name),) if name else ()


def _same(present: JSON, wanted: JSON) -> bool:
    return (
        all((present.get(name) or []) == (wanted.get(name) or []) for name in ("endpoints", "ports"))
        and labels_of(present) == wanted["metadata"]["labels"]
    )


def slices_of(service: JSON, pods: list[JSON]) -> list[JSON]:
    """The slices a service should have; names follow from service, ports and position, so that they are stable."""
    metadata = service["metadata"]
    grouped: dict[bytes, tuple[list[JSON], list[JSON]]] = {}
    for pod in pods:
        ports = [
            {"name": ""} | port for port in (_port(item, pod) for item in service["spec"].get("ports") or []) if port
        ]
        grouped.setdefault(orjson.dumps(ports), (ports, []))[1].append(_endpoint(service, pod))
    if not grouped:
        grouped[b""] = ([], [])
    labels = dict(labels_of(service)) | {SERVICE_LABEL: metadata["name"], MANAGER_LABEL: MANAGER}
    if not service["spec"].get("clusterIP") or service["spec"]["clusterIP"] == "None":
        labels["service.kubernetes.io/headless"] = ""
    found = []
    for key, (ports, endpoints) in grouped.items():
        for start in range(0, max(len(endpoints), 1), PER_SLICE):
            suffix = _suffix(b"%b %d" % (key, start))
            found.append(
                {
                    "kind": "EndpointSlice",
                    "apiVersion": "discovery.k8s.io/v1",
                    "addressType": "IPv4",
                    "metadata": {
                        "name": f"{metadata['name']}-{suffix}",
                        "namespace": metadata["namespace"],
                        "labels": labels,
                        "ownerReferences": [owner_reference(service)],
                    },
                    "endpoints": endpoints[start : start + PER_SLICE],
                    "ports": ports,
                }
            )
    return found


def _suffix(key: bytes) -> str:
    """Five characters of those that generated names have; the same key always gets the same."""
    number = int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
    return "".join(ALPHABET[number // len(ALPHABET) ** place % len(ALPHABET)] for place in range(5))


def _endpoint(service: JSON, pod: JSON) -> JSON:
    metadata, terminating = pod["metadata"], is_terminating(pod)
    serving = is_ready(pod)
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    found: JSON = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }
    if pod["spec"].get("hostname"):
        found["hostname"] = pod["spec"]["hostname"]
    if pod["spec"].get("nodeName"):
        found["nodeName"] = pod["spec"]["nodeName"]
    return found
