"""What a kubelet may write: its own node, its own pods, its own lease.

My job: NodeRestriction. The Node authorizer lets a kubelet through to objects whose content it cannot see; I see it.
Says nothing about anybody but users `system:node:<name>` in `system:nodes`. Rules and words:
`plugin/pkg/admission/noderestriction`.
"""

import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from certs.errors import InvalidCSR
from certs.requests import parse_csr
from miniapiserver.admission.interface import Attributes, Operation, Plugin
from miniapiserver.authorization.interface import Attributes as Question
from miniapiserver.authorization.interface import Authorizer, Decision
from miniapiserver.authorization.node import LEASE_NAMESPACE, USER_PREFIX, node_of
from miniapiserver.authorization.references import pod_references
from miniapiserver.errors import Forbidden, NotFound
from miniapiserver.registry.objects import Objects

JSON = dict[str, Any]

MIRROR = "kubernetes.io/config.mirror"
RESTRICTED = "node-restriction.kubernetes.io"
KUBELET_SIGNERS = ("kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving")
#: Labels in Kubernetes' own namespaces that a kubelet sets about itself (`kubelet/pkg/apis/well_known_labels.go`).
KUBELET_LABELS = frozenset((
    "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch", "node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/region", "topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone"))
KUBELET_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")
REFERENCES = {"secrets": "secrets", "configmaps": "configmaps", "persistentvolumeclaims": "persistentvolumeclaims",
              "resourceclaims": "resourceclaims", "serviceaccounts": "a service account"}
#: Fields of a claim's status that belong to the node.
CLAIM_STATUS = ("capacity", "conditions", "allocatedResources", "allocatedResourceStatuses")


class NodeRestriction(Plugin):
    """Lives as long as the server; reads pods and nodes from the caches."""

    def __init__(self, objects: Objects, authorizer: Authorizer) -> None:
        self._objects, self._authorizer = objects, authorizer
        self._checks: dict[tuple[str, str], Callable[[str, Attributes], Awaitable[None]]] = {
            ("", "pods"): self._pod, ("", "nodes"): self._node, ("", "persistentvolumeclaims"): self._claim,
            ("", "serviceaccounts"): self._account, ("coordination.k8s.io", "leases"): self._lease,
            ("storage.k8s.io", "csinodes"): self._csi_node, ("resource.k8s.io", "resourceslices"): self._slice,
            ("certificates.k8s.io", "certificatesigningrequests"): self._certificate}

    async def validate(self, attributes: Attributes) -> None:
        node = node_of(attributes.user)
        if node is None:
            return
        if not node:
            raise _no(attributes, f'could not determine node from user "{attributes.user.name}"')
        check = self._checks.get((attributes.row.group, attributes.row.plural))
        if check is not None:
            await check(node, attributes)

    # --- pods

    async def _pod(self, node: str, asked: Attributes) -> None:
        operation = asked.operation
        if asked.subresource == "status":
            self._pod_status(node, asked)
        elif asked.subresource == "eviction":
            self._eviction(node, asked)
        elif asked.subresource:
            raise _no(asked, f'unexpected pod subresource "{asked.subresource}", only \'status\' and \'eviction\' are '
                             "allowed")
        elif operation is Operation.CREATE:
            self._mirror_pod(node, asked)
        elif operation is not Operation.DELETE:
            raise _no(asked, f'unexpected operation "{operation.value}", node "{node}" can only create and delete '
                             "mirror pods")
        elif _node_name(asked.old) != node:
            raise _no(asked, f'node "{node}" can only delete pods with spec.nodeName set to itself')

    def _pod_status(self, node: str, asked: Attributes) -> None:
        old, new = asked.old or {}, asked.obj or {}
        if _node_name(old) != node:
            raise _no(asked, f'node "{node}" can only update pod status for pods with spec.nodeName set to itself')
        if _labels(old) != _labels(new):
            raise _no(asked, f'node "{node}" cannot update labels through pod status')
        if _claim_statuses(old) != _claim_statuses(new):
            raise _no(asked, f'node "{node}" cannot update resource claim statues')

    def _eviction(self, node: str, asked: Attributes) -> None:
        name = asked.name or ((asked.obj or {}).get("metadata") or {}).get("name", "")
        if not name:
            raise _no(asked, "could not determine pod from request data")
        if _node_name(self._existing("pods", asked.namespace, name)) != node:
            raise _no(asked, f"node {node} can only evict pods with spec.nodeName set to itself")

    def _mirror_pod(self, node: str, asked: Attributes) -> None:
        pod = asked.obj or {}
        if MIRROR not in (pod["metadata"].get("annotations") or {}):
            raise _no(asked, f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods')
        if _node_name(pod) != node:
            raise _no(asked, f'node "{node}" can only create pods with spec.nodeName set to itself')
        self._owner(node, asked, pod["metadata"].get("ownerReferences") or ())
        named = {resource for resource, _ in pod_references(pod)}
        if pod["spec"].get("resourceClaims"):
            named.add("resourceclaims")
        for resource, words in REFERENCES.items():
            if resource in named:
                raise _no(asked, f'node "{node}" can not create pods that reference {words}')
        for volume in pod["spec"].get("volumes") or ():
            sources = (volume.get("projected") or {}).get("sources") or ()
            if any(source.get("clusterTrustBundle") for source in sources):
                raise _no(asked, f'node "{node}" can not create pods that reference clustertrustbundles')

    def _owner(self, node: str, asked: Attributes, owners: Iterable[Mapping[str, Any]]) -> None:
        found = list(owners)
        if len(found) > 1:
            raise _no(asked, f'node "{node}" can only create pods with a single owner reference set to itself')
        owner = found[0] if found else {}
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            raise _no(asked, f'node "{node}" can only create pods with an owner reference set to itself')
        if not owner.get("controller"):
            raise _no(asked, f'node "{node}" can only create pods with a controller owner reference set to itself')
        if owner.get("blockOwnerDeletion"):
            raise _no(asked, f'node "{node}" must not set blockOwnerDeletion on an owner reference')
        uid = self._existing("nodes", "", node)["metadata"]["uid"]
        if owner.get("uid") != uid:
            raise _no(asked, f"node {node} UID mismatch: expected {owner.get('uid', '')} got {uid}")

    # --- the node

    async def _node(self, node: str, asked: Attributes) -> None:
        new, old = asked.obj, asked.old
        created = new if asked.operation is Operation.CREATE else None
        if created is not None and (forbidden := _forbidden_labels(_labels(created), {})):
            raise _no(asked, f'node "{node}" is not allowed to set the following labels: {", ".join(forbidden)}')
        name = asked.name or (new or {}).get("metadata", {}).get("name", "")
        if name != node:
            raise _no(asked, f'node "{node}" is not allowed to modify node "{name}"')
        if asked.operation is Operation.UPDATE and new is not None and old is not None:
            self._node_update(node, asked, new, old)

    def _node_update(self, node: str, asked: Attributes, new: JSON, old: JSON) -> None:
        if (new["metadata"].get("ownerReferences") or []) != (old["metadata"].get("ownerReferences") or []):
            raise _no(asked, f'node "{node}" is not allowed to modify ownerReferences')
        if (new["spec"].get("taints") or []) != (old["spec"].get("taints") or []):
            raise _no(asked, f'node "{node}" is not allowed to modify taints')
        if forbidden := _forbidden_labels(_labels(new), _labels(old)):
            raise _no(asked, f"is not allowed to modify labels: {', '.join(forbidden)}")

    # --- the rest

    async def _claim(self, node: str, asked: Attributes) -> None:
        if asked.subresource != "status":
            raise _no(asked, "may only update PVC status")
        new, old = asked.obj, asked.old
        if new is None or old is None or _without_claim_status(new) != _without_claim_status(old):
            raise _no(asked, f'node "{node}" is not allowed to update fields other than status.quantity and '
                             "status.conditions")

    async def _account(self, node: str, asked: Attributes) -> None:
        if asked.operation is not Operation.CREATE or asked.subresource != "token":
            return
        spec = (asked.obj or {}).get("spec") or {}
        bound = spec.get("boundObjectRef") or {}
        if (bound.get("apiVersion"), bound.get("kind")) != ("v1", "Pod") or not bound.get("name"):
            raise _no(asked, "node requested token not bound to a pod")
        if not bound.get("uid"):
            raise _no(asked, "node requested token with a pod binding without a uid")
        pod = self._existing("pods", asked.namespace, bound["name"])
        if bound["uid"] != pod["metadata"]["uid"]:
            raise _no(asked, f"the UID in the bound object reference ({bound['uid']}) does not match the UID in "
                             "record. The object might have been deleted and then recreated")
        if _node_name(pod) != node:
            raise _no(asked, "node requested token bound to a pod scheduled on a different node")
        await self._audience(asked, spec.get("audiences") or (), pod)

    async def _audience(self, asked: Attributes, audiences: Iterable[str], pod: JSON) -> None:
        wanted = list(audiences)
        if len(wanted) > 1:
            raise _no(asked, "node may only request 0 or 1 audiences")
        audience = wanted[0] if wanted else ""
        if audience in await self._audiences(pod):
            return
        verdict = await self._authorizer.authorize(Question(
            asked.user, "request-serviceaccounts-token-audience", True, asked.namespace, "", "v1", audience,
            name=asked.name))
        if verdict.decision is not Decision.ALLOW:
            raise _no(asked, f'audience "{audience}" not found in pod spec volume')

    async def _audiences(self, pod: JSON) -> set[str]:
        """What the pod's volumes ask tokens for; "" is the API server's own audience."""
        found: set[str] = set()
        for volume in pod["spec"].get("volumes") or ():
            for source in (volume.get("projected") or {}).get("sources") or ():
                if "serviceAccountToken" in source:
                    found.add((source["serviceAccountToken"] or {}).get("audience") or "")
            if driver := (volume.get("csi") or {}).get("driver"):
                spec = (await self._objects.appears("csidrivers.storage.k8s.io", "", driver, 0) or {}).get("spec") or {}
                found |= {request.get("audience") or "" for request in spec.get("tokenRequests") or ()}
        return found

    async def _lease(self, node: str, asked: Attributes) -> None:
        if asked.namespace != LEASE_NAMESPACE:
            raise _no(asked, f'can only access leases in the "{LEASE_NAMESPACE}" system namespace')
        if _name(asked) != node:
            raise _no(asked, "can only access node lease with the same name as the requesting node")

    async def _csi_node(self, node: str, asked: Attributes) -> None:
        if _name(asked) != node:
            raise _no(asked, "can only access CSINode with the same name as the requesting node")

    async def _slice(self, node: str, asked: Attributes) -> None:
        if asked.operation is Operation.CREATE and _node_name(asked.obj) != node:
            raise _no(asked, "can only create ResourceSlice with the same NodeName as the requesting node")
        if asked.operation is Operation.DELETE and _node_name(asked.old) != node:
            raise _no(asked, "can only delete ResourceSlice with the same NodeName as the requesting node")

    async def _certificate(self, node: str, asked: Attributes) -> None:
        """A kubelet may ask for certificates in its own name only; what else it asks for, the signers judge."""
        spec = (asked.obj or {}).get("spec") or {}
        if asked.operation is not Operation.CREATE or spec.get("signerName") not in KUBELET_SIGNERS:
            return
        try:
            name = parse_csr(base64.b64decode(spec.get("request") or "")).common_name
        except InvalidCSR as error:
            raise _no(asked, f"unable to parse csr: {error}") from error
        if name != USER_PREFIX + node:
            raise _no(asked, f"can only create a node CSR with CN={USER_PREFIX}{node}")

    def _existing(self, storage: str, namespace: str, name: str) -> JSON:
        found = self._objects.get(storage, namespace, name)
        if found is None:
            raise NotFound.resource(storage, "", name)
        return found


def _no(asked: Attributes, why: str) -> Forbidden:
    return Forbidden.resource(asked.row.plural, asked.row.group, asked.name, why)


def _name(asked: Attributes) -> str:
    """The object's own name: a create has none in its path."""
    if asked.operation is Operation.CREATE:
        return str((asked.obj or {}).get("metadata", {}).get("name", ""))
    return asked.name


def _node_name(obj: JSON | None) -> str:
    return str(((obj or {}).get("spec") or {}).get("nodeName") or "")


def _labels(obj: JSON) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _claim_statuses(pod: JSON) -> list[tuple[str, str | None]]:
    return [(claim.get("name", ""), claim.get("resourceClaimName"))
            for claim in (pod.get("status") or {}).get("resourceClaimStatuses") or ()]


def _without_claim_status(claim: JSON) -> JSON:
    metadata = {key: value for key, value in claim["metadata"].items()
                if key not in ("resourceVersion", "managedFields")}
    status = {key: value for key, value in (claim.get("status") or {}).items() if key not in CLAIM_STATUS}
    return claim | {"metadata": metadata, "status": status}


def _forbidden_labels(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """Changed labels that steer workloads: reserved ones, and Kubernetes' own that no kubelet sets."""
    changed = {key for key in new.keys() | old.keys() if new.get(key) != old.get(key)}
    return sorted(key for key in changed if _is_forbidden(key))


def _is_forbidden(label: str) -> bool:
    namespace = label.partition("/")[0] if "/" in label else ""
    if _within(namespace, RESTRICTED):
        return True
    if not (_within(namespace, "kubernetes.io") or _within(namespace, "k8s.io")):
        return False
    return label not in KUBELET_LABELS and not any(_within(namespace, known) for known in KUBELET_NAMESPACES)


def _within(namespace: str, parent: str) -> bool:
    return namespace == parent or namespace.endswith("." + parent)
