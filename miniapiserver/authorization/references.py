"""What a pod or a volume names: secrets, config maps, claims, accounts.

Pure. Rules: `pkg/api/v1/pod/util.go VisitPodSecretNames`, `VisitPodConfigmapNames`,
`pkg/api/v1/persistentvolume/util.go`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

JSON = dict[str, Any]

#: Volume source → the field that holds its secret: a reference `{name}`, or the name itself.
_SECRETS_OF_VOLUME = (("secret", "secretName"), ("azureFile", "secretName"), ("cephfs", "secretRef"),
                      ("cinder", "secretRef"), ("flexVolume", "secretRef"), ("rbd", "secretRef"),
                      ("scaleIO", "secretRef"), ("iscsi", "secretRef"), ("storageos", "secretRef"),
                      ("csi", "nodePublishSecretRef"))
#: Persistent volume source → fields holding secrets that kubelets may see.
_SECRETS_OF_PERSISTENT_VOLUME = (("cephfs", "secretRef"), ("cinder", "secretRef"), ("flexVolume", "secretRef"),
                                 ("rbd", "secretRef"), ("scaleIO", "secretRef"), ("iscsi", "secretRef"),
                                 ("storageos", "secretRef"), ("csi", "nodePublishSecretRef"),
                                 ("csi", "nodeStageSecretRef"), ("csi", "nodeExpandSecretRef"))

_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def pod_references(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(resource, name) of everything in the pod's namespace that its node needs for it."""
    spec = pod["spec"]
    if account := spec.get("serviceAccountName"):
        yield "serviceaccounts", account
    for secret in spec.get("imagePullSecrets") or ():
        if secret.get("name"):
            yield "secrets", secret["name"]
    for field in _CONTAINERS:
        for container in spec.get(field) or ():
            yield from _container_references(container)
    for volume in spec.get("volumes") or ():
        yield from _volume_references(pod["metadata"]["name"], volume)
    yield from (("resourceclaims", name) for name in _claims(pod))


def _container_references(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        for field, resource in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
            if name := (source.get(field) or {}).get("name"):
                yield resource, name
    for source in container.get("envFrom") or ():
        for field, resource in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
            if name := (source.get(field) or {}).get("name"):
                yield resource, name


def _volume_references(pod_name: str, volume: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from (("secrets", name) for name in _secrets(volume, _SECRETS_OF_VOLUME))
    if name := (volume.get("configMap") or {}).get("name"):
        yield "configmaps", name
    for source in (volume.get("projected") or {}).get("sources") or ():
        for field, resource in (("secret", "secrets"), ("configMap", "configmaps")):
            if name := (source.get(field) or {}).get("name"):
                yield resource, name
    if name := (volume.get("persistentVolumeClaim") or {}).get("claimName"):
        yield "persistentvolumeclaims", name
    if volume.get("ephemeral"):
        yield "persistentvolumeclaims", f"{pod_name}-{volume['name']}"


def _secrets(source: Mapping[str, Any], table: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for kind, field in table:
        held = (source.get(kind) or {}).get(field)
        name = held.get("name") if isinstance(held, dict) else held
        if name:
            yield name


def _claims(pod: Mapping[str, Any]) -> Iterator[str]:
    """Resource claims: named in the spec, or made for the pod and then named in its status."""
    status = pod.get("status") or {}
    made = {claim.get("name"): claim.get("resourceClaimName") for claim in status.get("resourceClaimStatuses") or ()}
    for claim in pod["spec"].get("resourceClaims") or ():
        name = claim.get("resourceClaimName") or made.get(claim.get("name"))
        if name:
            yield name
    if name := (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName"):
        yield name


def volume_references(volume: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(namespace, name) of the secrets that mounting a persistent volume needs."""
    spec = volume["spec"]
    claim_namespace = (spec.get("claimRef") or {}).get("namespace", "")
    azure = spec.get("azureFile") or {}
    if azure.get("secretName"):
        yield azure.get("secretNamespace") or claim_namespace, azure["secretName"]
    for kind, field in _SECRETS_OF_PERSISTENT_VOLUME:
        held = (spec.get(kind) or {}).get(field) or {}
        if held.get("name"):
            yield held.get("namespace") or claim_namespace, held["name"]
