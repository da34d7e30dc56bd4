"""What every namespace has: a service account `default` and the cluster's root CA.

My job: two small controllers (`pkg/controller/serviceaccount`, `pkg/controller/certificates/rootcacertpublisher`).
"""

from collections.abc import Callable, Iterable
from typing import Any

from minicontroller.actions import Action, Create, Update
from minicontroller.controller import Controller, Key, key_of
from minicontroller.informers import Informers
from wire.apiclient import resource_path

JSON = dict[str, Any]

ROOT_CA = "kube-root-ca.crt"
ROOT_CA_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as "
    "the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of "
    "Kubernetes clusters."
)


def is_live(namespace: JSON | None) -> bool:
    return (
        namespace is not None
        and not namespace["metadata"].get("deletionTimestamp")
        and (namespace.get("status") or {}).get("phase", "Active") == "Active"
    )


class ServiceAccounts(Controller):
    name = "serviceaccounts"

    def watch(self) -> None:
        self.namespaces = self.on(self.informers.of("", "v1", "namespaces"))
        self.accounts = self.on(
            self.informers.of("", "v1", "serviceaccounts"),
            lambda obj: [("", obj["metadata"]["namespace"])] if key_of(obj)[1] == "default" else [],
        )

    def plan(self, key: Key) -> Iterable[Action]:
        namespace = key[1]
        if is_live(self.namespaces.objects.get(key)) and (namespace, "default") not in self.accounts.objects:
            yield Create(
                resource_path("", "v1", "serviceaccounts", namespace),
                {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default", "namespace": namespace}},
                exists_is_fine=True,
            )


class RootCA(Controller):
    name = "rootca"

    def __init__(self, informers: Informers, clock: Callable[[], float], bundle: str) -> None:
        self.bundle = bundle
        super().__init__(informers, clock)

    def watch(self) -> None:
        self.namespaces = self.on(self.informers.of("", "v1", "namespaces"))
        self.maps = self.on(
            self.informers.of("", "v1", "configmaps", fieldSelector=f"metadata.name={ROOT_CA}"),
            lambda obj: [("", obj["metadata"]["namespace"])],
        )

    def plan(self, key: Key) -> Iterable[Action]:
        namespace = key[1]
        if not is_live(self.namespaces.objects.get(key)):
            return
        present = self.maps.objects.get((namespace, ROOT_CA))
        annotations = {"kubernetes.io/description": ROOT_CA_DESCRIPTION}
        body = {
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "metadata": {"name": ROOT_CA, "namespace": namespace, "annotations": annotations},
            "data": {"ca.crt": self.bundle},
        }
        if present is None:
            yield Create(resource_path("", "v1", "configmaps", namespace), body, exists_is_fine=True)
        elif present.get("data") != body["data"]:
            body["metadata"] = present["metadata"] | {"annotations": annotations}
            yield Update(resource_path("", "v1", "configmaps", namespace, ROOT_CA), body)
