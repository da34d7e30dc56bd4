"""What a kubelet may write although it may write: its own node, its own pods, nothing else's name.

My job: the NodeRestriction plugin (`plugin/pkg/admission/noderestriction`). The Node authorizer decides which objects a kubelet may touch; I
look at what it puts into them. The table WRITES names every object a kubelet writes, each with its rule.
"""

from collections.abc import Callable
from typing import Any

from certs.errors import InvalidCSR
from miniapiserver.admission.certificates import common_name_of
from miniapiserver.admission.interface import Attributes, Operation, Plugin
from miniapiserver.authorization.interface import Attributes as Question
from miniapiserver.authorization.interface import Authorizer, Decision
from miniapiserver.authorization.node import node_of
from miniapiserver.errors import Forbidden
from miniapiserver.registry.objects import Objects

JSON = dict[str, Any]

MIRROR = "kubernetes.io/config.mirror"
LEASES = "kube-node-lease"
RESTRICTED_SUFFIX = "node-restriction.kubernetes.io"
#: Labels in Kubernetes' own domains that a kubelet may set on itself (`kubelet/apis well_known_labels.go`).
OWN_LABELS = frozenset({
    "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
    "topology.kubernetes.io/zone", "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region", "node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"})
OWN_PREFIXES = ("kubelet.kubernetes.io", "node.kubernetes.io")
KUBERNETES_DOMAINS = ("kubernetes.io", "k8s.io")
KUBELET_SIGNERS = ("kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving")
TOKEN_VERB = "request-serviceaccounts-token-audience"


class NodeRestriction(Plugin):
    def __init__(self, objects: Objects, authorizer: Authorizer) -> None:
        self._objects, self._authorizer = objects, authorizer

    async def validate(self, attributes: Attributes) -> None:
        node = node_of(attributes.user)
        if node is None:
            return
        rule = WRITES.get((attributes.row.group, attributes.row.plural, attributes.subresource))
        if rule is not None:
            await rule(self, attributes, node)

    async def pod(self, asked: Attributes, node: str) -> None:
        if asked.operation is Operation.CREATE:
            self._mirror_pod(asked, node)
        elif asked.operation is Operation.DELETE:
            self._bound_here(asked, node, asked.old, "can only delete pods with spec.nodeName set to itself")
        else:
            raise refused(asked, f"unexpected operation {asked.operation.value}")

    def _mirror_pod(self, asked: Attributes, node: str) -> None:
        """A kubelet creates pods only to show what runs from its manifest folder."""
        pod = asked.obj
        assert pod is not None
        spec, metadata = pod["spec"], pod["metadata"]
        if MIRROR not in (metadata.get("annotations") or {}):
            raise refused(asked, f'pod does not have "{MIRROR}" annotation, node {_quoted(node)} can only create mirror pods')
        if spec.get("nodeName") != node:
            raise refused(asked, f"node {_quoted(node)} can only create pods with spec.nodeName set to itself")
        self._check_owner(asked, node, metadata.get("ownerReferences") or [])
        if spec.get("serviceAccountName"):
            raise refused(asked, f"node {_quoted(node)} can not create pods that reference a service account")
        if forbidden := _references(spec):
            raise refused(asked, f"node {_quoted(node)} can not create pods that reference {forbidden}")

    def _check_owner(self, asked: Attributes, node: str, owners: list[JSON]) -> None:
        if not owners:
            raise refused(asked, f"node {_quoted(node)} can only create pods with an owner reference set to itself")
        owner = owners[0]
        found = self._objects.get("nodes", "", node)
        uid = found["metadata"]["uid"] if found is not None else None
        if len(owners) > 1 or (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            raise refused(asked, f"node {_quoted(node)} can only create pods with an owner reference set to itself")
        if not owner.get("controller"):
            raise refused(asked, f"node {_quoted(node)} can only create pods with an owner reference set as controller")
        if owner.get("blockOwnerDeletion"):
            raise refused(asked, f"node {_quoted(node)} must not set blockOwnerDeletion on an owner reference")
        if owner.get("uid") != uid:
            raise refused(asked, f"node {_quoted(node)} UID mismatch: expected {uid} got {owner.get('uid')}")

    def _bound_here(self, asked: Attributes, node: str, pod: JSON | None, why: str) -> None:
        if pod is None or pod["spec"].get("nodeName") != node:
            raise refused(asked, f"node {_quoted(node)} {why}")

    async def pod_status(self, asked: Attributes, node: str) -> None:
        self._bound_here(asked, node, asked.old, "can only update pod status for pods with spec.nodeName set to itself")
        assert asked.obj is not None and asked.old is not None
        if (asked.obj["metadata"].get("labels") or {}) != (asked.old["metadata"].get("labels") or {}):
            raise refused(asked, f"node {_quoted(node)} cannot update labels through pod status")

    async def eviction(self, asked: Attributes, node: str) -> None:
        pod = self._objects.get("pods", asked.namespace, asked.name)
        self._bound_here(asked, node, pod, "can only evict pods with spec.nodeName set to itself")

    async def node(self, asked: Attributes, node: str) -> None:
        if asked.name not in (node, "") or asked.operation is Operation.DELETE:
            raise refused(asked, f"node {_quoted(node)} is not allowed to modify node {_quoted(asked.name)}")
        assert asked.obj is not None
        old = asked.old or {"metadata": {}, "spec": {}}
        touched = _changed_labels(asked.obj["metadata"].get("labels") or {}, old["metadata"].get("labels") or {})
        if names := sorted(name for name in touched if not may_label(name)):
            what = "set" if asked.old is None else "modify"
            raise refused(asked, f"is not allowed to {what} the following labels: {', '.join(names)}", node)
        if asked.old is None:
            return
        if (asked.obj["spec"].get("taints") or []) != (old["spec"].get("taints") or []):
            raise refused(asked, f"node {_quoted(node)} is not allowed to modify taints")
        if (asked.obj["metadata"].get("ownerReferences") or []) != (old["metadata"].get("ownerReferences") or []):
            raise refused(asked, f"node {_quoted(node)} is not allowed to modify ownerReferences")

    async def token(self, asked: Attributes, node: str) -> None:
        """A token for a pod that runs here, for an audience that pod asks for."""
        assert asked.obj is not None
        spec = asked.obj.get("spec") or {}
        reference = spec.get("boundObjectRef") or {}
        if reference.get("kind") != "Pod" or not reference.get("name"):
            raise refused(asked, "node requested token not bound to a pod")
        if not reference.get("uid"):
            raise refused(asked, "node requested token with a pod binding without a uid")
        pod = self._objects.get("pods", asked.namespace, reference["name"])
        if pod is None or pod["metadata"]["uid"] != reference["uid"]:
            raise refused(asked, "the UID in the bound object reference does not match the UID in record")
        if pod["spec"].get("nodeName") != node:
            raise refused(asked, f"node requested token bound to a pod scheduled on a different node: {pod['metadata']['name']}")
        await self._check_audiences(asked, spec.get("audiences") or [], pod)

    async def _check_audiences(self, asked: Attributes, audiences: list[str], pod: JSON) -> None:
        if len(audiences) > 1:
            raise refused(asked, "node may only request 0 or 1 audiences")
        wanted = audiences[0] if audiences else ""
        volumes = pod["spec"].get("volumes") or []
        offered = {(source["serviceAccountToken"].get("audience") or "") for volume in volumes
                   for source in (volume.get("projected") or {}).get("sources") or [] if "serviceAccountToken" in source}
        if wanted in offered:
            return
        verdict = await self._authorizer.authorize(Question(asked.user, TOKEN_VERB, version="v1", resource=wanted,
                                                            namespace=asked.namespace, name=asked.name))
        if verdict.decision is not Decision.ALLOW:
            raise refused(asked, f'audience "{wanted}" not found in pod spec volume')

    async def lease(self, asked: Attributes, node: str) -> None:
        if asked.namespace != LEASES:
            raise refused(asked, f"can only access leases in the \"{LEASES}\" system namespace")
        name = (asked.obj or {"metadata": {}})["metadata"].get("name") or asked.name
        if name != node:
            raise refused(asked, "can only access node lease with the same name as the requesting node")

    async def csi_node(self, asked: Attributes, node: str) -> None:
        name = (asked.obj or {"metadata": {}})["metadata"].get("name") or asked.name
        if name != node:
            raise refused(asked, "can only access CSINode with the same name as the requesting node")

    async def certificate(self, asked: Attributes, node: str) -> None:
        """No certificate in another node's name."""
        if asked.operation is not Operation.CREATE:
            return
        assert asked.obj is not None
        spec = asked.obj["spec"]
        if spec.get("signerName") not in KUBELET_SIGNERS:
            return
        try:
            name = common_name_of(spec.get("request") or "")
        except InvalidCSR as error:
            raise refused(asked, f"unable to parse csr: {error}") from error
        if name != asked.user.name:
            raise refused(asked, f"can only create a node CSR with CN={asked.user.name}")


Rule = Callable[[NodeRestriction, Attributes, str], Any]

#: (group, resource, subresource) → what a kubelet must keep to when it writes there.
WRITES: dict[tuple[str, str, str], Rule] = {
    ("", "pods", ""): NodeRestriction.pod, ("", "pods", "status"): NodeRestriction.pod_status,
    ("", "pods", "eviction"): NodeRestriction.eviction,
    ("", "nodes", ""): NodeRestriction.node, ("", "nodes", "status"): NodeRestriction.node,
    ("", "serviceaccounts", "token"): NodeRestriction.token,
    ("coordination.k8s.io", "leases", ""): NodeRestriction.lease,
    ("storage.k8s.io", "csinodes", ""): NodeRestriction.csi_node,
    ("certificates.k8s.io", "certificatesigningrequests", ""): NodeRestriction.certificate}


def refused(asked: Attributes, why: str, node: str = "") -> Forbidden:
    who = f"node {_quoted(node)} " if node else ""
    return Forbidden.resource(asked.row.plural, asked.row.group, asked.name, who + why)


def _quoted(text: str) -> str:
    return f'"{text}"'


def may_label(name: str) -> bool:
    """Whether a kubelet may set this label on its node. Labels outside Kubernetes' domains are free."""
    domain, slash, _ = name.partition("/")
    if not slash:
        return True
    if domain == RESTRICTED_SUFFIX or domain.endswith("." + RESTRICTED_SUFFIX):
        return False
    if not any(domain == known or domain.endswith("." + known) for known in KUBERNETES_DOMAINS):
        return True
    return name in OWN_LABELS or any(domain == prefix or domain.endswith("." + prefix) for prefix in OWN_PREFIXES)


def _changed_labels(new: JSON, old: JSON) -> set[str]:
    return {name for name in new.keys() | old.keys() if new.get(name) != old.get(name)}


def _references(spec: JSON) -> str:
    """The first kind of object a mirror pod refers to and may not."""
    for volume in spec.get("volumes") or []:
        for source, words in (("secret", "secrets"), ("configMap", "configmaps"), ("persistentVolumeClaim",
                              "persistentvolumeclaims"), ("ephemeral", "persistentvolumeclaims")):
            if source in volume:
                return words
        for source in (volume.get("projected") or {}).get("sources") or []:
            if "serviceAccountToken" in source or "secret" in source or "configMap" in source:
                return "secrets, configmaps or tokens"
    for container in (*(spec.get("initContainers") or []), *(spec.get("containers") or [])):
        for variable in container.get("env") or []:
            value_from = variable.get("valueFrom") or {}
            if "secretKeyRef" in value_from or "configMapKeyRef" in value_from:
                return "secrets or configmaps"
        if container.get("envFrom"):
            return "secrets or configmaps"
    return "resource claims" if spec.get("resourceClaims") else ""
