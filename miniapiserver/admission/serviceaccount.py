"""Every pod runs as a service account and finds its token where clients look for it.

My job: the ServiceAccount plugin (`plugin/pkg/admission/serviceaccount`): the account's name, its image pull
secrets, and the projected volume with token, cluster CA and namespace. The kubelet fills the volume.
"""

import secrets
from typing import Any

from miniapiserver.admission.interface import Attributes, Operation, Plugin
from miniapiserver.errors import Forbidden
from miniapiserver.registry.objects import Objects

JSON = dict[str, Any]

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
MIRROR = "kubernetes.io/config.mirror"
ENFORCE_SECRETS = "kubernetes.io/enforce-mountable-secrets"
TOKEN_SECONDS = 3607
SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
#: The account controller needs a moment after a namespace appears; upstream tries ten times, 100–200 ms apart.
WAIT_FOR_DEFAULT_SECONDS = 1.5


class ServiceAccount(Plugin):
    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def admit(self, attributes: Attributes) -> None:
        if not _is_new_pod(attributes):
            return
        pod = attributes.obj
        assert pod is not None
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            return
        spec = pod["spec"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(attributes, name)
        if _wants_token(spec, account):
            _mount_token(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]

    async def validate(self, attributes: Attributes) -> None:
        if not _is_new_pod(attributes):
            return
        pod = attributes.obj
        assert pod is not None
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            _check_mirror(attributes, pod["spec"])
            return
        account = self._objects.get("serviceaccounts", attributes.namespace, pod["spec"]["serviceAccountName"])
        if account and (account["metadata"].get("annotations") or {}).get(ENFORCE_SECRETS, "").lower() == "true":
            _check_secrets(attributes, pod["spec"], account)

    async def _account(self, attributes: Attributes, name: str) -> JSON:
        patience = WAIT_FOR_DEFAULT_SECONDS if name == "default" else 0.0
        found = await self._objects.appears("serviceaccounts", attributes.namespace, name, patience)
        if found is None:
            raise Forbidden.resource("pods", "", attributes.name, "error looking up service account "
                                     f'{attributes.namespace}/{name}: serviceaccount "{name}" not found')
        return found


def _is_new_pod(attributes: Attributes) -> bool:
    row = attributes.row
    return (row.plural == "pods" and not row.group and not attributes.subresource
            and attributes.operation is Operation.CREATE)


def _wants_token(spec: JSON, account: JSON) -> bool:
    for holder in (spec, account):
        if holder.get("automountServiceAccountToken") is not None:
            return bool(holder["automountServiceAccountToken"])
    return True


def _mount_token(spec: JSON) -> None:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    lacking = [c for c in containers
               if not any(m.get("mountPath") == MOUNT_PATH for m in c.get("volumeMounts") or [])]
    if not lacking:
        return
    name = _token_volume(spec)
    for container in lacking:
        container["volumeMounts"] = [*(container.get("volumeMounts") or []),
                                     {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]


def _token_volume(spec: JSON) -> str:
    """The name of the token volume, which is added if the pod has none."""
    volumes = spec.get("volumes") or []
    found = next((v["name"] for v in volumes if v.get("name", "").startswith("kube-api-access-")), None)
    if found is not None:
        return str(found)
    name = "kube-api-access-" + "".join(secrets.choice(SUFFIX_ALPHABET) for _ in range(5))
    sources = [{"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
               {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
               {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {
                   "apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]
    spec["volumes"] = [*volumes, {"name": name, "projected": {"sources": sources, "defaultMode": 420}}]
    return name


def _check_mirror(attributes: Attributes, spec: JSON) -> None:
    if spec.get("serviceAccountName"):
        raise Forbidden.resource("pods", "", attributes.name, "a mirror pod may not reference service accounts")
    for volume in spec.get("volumes") or []:
        if "secret" in volume:
            raise Forbidden.resource("pods", "", attributes.name, "a mirror pod may not reference secrets")
        for source in (volume.get("projected") or {}).get("sources") or []:
            if "serviceAccountToken" in source:
                raise Forbidden.resource("pods", "", attributes.name,
                                         "a mirror pod may not use ServiceAccountToken volume projections")


def _check_secrets(attributes: Attributes, spec: JSON, account: JSON) -> None:
    allowed = {ref.get("name") for ref in account.get("secrets") or []}
    for volume in spec.get("volumes") or []:
        name = (volume.get("secret") or {}).get("secretName")
        if name and name not in allowed:
            who = account["metadata"]["name"]
            raise Forbidden.resource("pods", "", attributes.name,
                                     f'volume with secret.secretName="{name}" is not allowed because '
                                     f" service account {who} does not reference that secret")
