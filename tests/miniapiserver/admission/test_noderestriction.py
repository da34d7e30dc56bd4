"""What a kubelet may write: each refusal with the twin that is allowed."""

import base64
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import pytest

from certs.requests import new_csr, new_key
from miniapiserver.admission.interface import Attributes, Operation
from miniapiserver.admission.noderestriction import NodeRestriction
from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization.always import AlwaysAllow, AlwaysDeny
from miniapiserver.errors import Forbidden, NotFound
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.rows import all_rows

JSON = dict[str, Any]
CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE
N1 = UserInfo("system:node:n1", groups=("system:nodes", "system:authenticated"))
ROWS: dict[tuple[str, str], Resource] = {(row.group, row.plural): row for row in all_rows()}


class Stored:
    """Pods p1 on n1 and p2 on n2, the node n1, a CSI driver."""

    objects: dict[tuple[str, str, str], JSON]

    def __init__(self) -> None:
        token = {"serviceAccountToken": {"audience": "vault"}}
        volumes = [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {}}, token]}},
                   {"name": "c", "csi": {"driver": "drv"}}]
        self.objects = {
            ("pods", "default", "p1"): {"metadata": {"name": "p1", "uid": "u1"},
                                        "spec": {"nodeName": "n1", "volumes": volumes}},
            ("pods", "default", "p2"): {"metadata": {"name": "p2", "uid": "u2"}, "spec": {"nodeName": "n2"}},
            ("nodes", "", "n1"): {"metadata": {"name": "n1", "uid": "nu"}, "spec": {}},
            ("csidrivers.storage.k8s.io", "", "drv"): {"metadata": {},
                                                       "spec": {"tokenRequests": [{"audience": "csi"}]}}}

    def get(self, storage: str, namespace: str, name: str) -> JSON | None:
        return self.objects.get((storage, namespace, name))

    def list(self, storage: str, namespace: str = "") -> Iterable[JSON]:
        return ()

    async def appears(self, storage: str, namespace: str, name: str, seconds: float) -> JSON | None:
        return self.get(storage, namespace, name)


async def write(operation: Operation, resource: str, name: str = "", obj: JSON | None = None, old: JSON | None = None,
                *, subresource: str = "", namespace: str = "default", user: UserInfo = N1, more: bool = False) -> None:
    group, _, plural = resource.rpartition("/")
    plugin = NodeRestriction(Stored(), AlwaysAllow() if more else AlwaysDeny())
    await plugin.validate(Attributes(operation, ROWS[group, plural], subresource, namespace, name, user, obj, old,
                                     False, []))


async def refused(why: str, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(Forbidden) as error:
        await write(*args, **kwargs)
    assert why in error.value.message


def mirror(**spec: Any) -> JSON:
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "nu", "controller": True}
    return {"metadata": {"name": "m", "namespace": "default", "annotations": {"kubernetes.io/config.mirror": "h"},
                         "ownerReferences": [owner]}, "spec": {"nodeName": "n1", "containers": []} | spec}


async def test_a_node_makes_mirror_pods_of_its_own_only() -> None:
    await write(CREATE, "pods", obj=mirror())
    plain = mirror()
    del plain["metadata"]["annotations"]
    await refused('node "n1" can only create mirror pods', CREATE, "pods", obj=plain)
    await refused("spec.nodeName set to itself", CREATE, "pods", obj=mirror(nodeName="n2"))
    await write(CREATE, "pods", obj=plain, user=UserInfo("ada"))


@pytest.mark.parametrize(("change", "why"), [
    ({"controller": False}, "controller owner reference"), ({"name": "n2"}, "an owner reference set to itself"),
    ({"kind": "Pod"}, "an owner reference set to itself"), ({"uid": "x"}, "node n1 UID mismatch: expected x got nu"),
    ({"blockOwnerDeletion": True}, "must not set blockOwnerDeletion")])
async def test_a_mirror_pod_is_owned_by_its_node(change: JSON, why: str) -> None:
    pod = mirror()
    pod["metadata"]["ownerReferences"][0] |= change
    await refused(why, CREATE, "pods", obj=pod)


async def test_a_mirror_pod_has_exactly_one_owner() -> None:
    pod = mirror()
    pod["metadata"]["ownerReferences"] *= 2
    await refused("a single owner reference", CREATE, "pods", obj=pod)
    pod["metadata"]["ownerReferences"] = []
    await refused("an owner reference set to itself", CREATE, "pods", obj=pod)


@pytest.mark.parametrize(("spec", "what"), [
    ({"serviceAccountName": "x"}, "a service account"), ({"imagePullSecrets": [{"name": "s"}]}, "secrets"),
    ({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}, "configmaps"),
    ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}, "persistentvolumeclaims"),
    ({"resourceClaims": [{"name": "r"}]}, "resourceclaims"),
    ({"volumes": [{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"name": "b"}}]}}]},
     "clustertrustbundles")])
async def test_a_mirror_pod_names_nothing_else(spec: JSON, what: str) -> None:
    await refused(f'node "n1" can not create pods that reference {what}', CREATE, "pods", obj=mirror(**spec))


async def test_a_node_deletes_evicts_and_reports_its_own_pods() -> None:
    pods = Stored().objects
    one, two = pods["pods", "default", "p1"], pods["pods", "default", "p2"]
    await write(DELETE, "pods", "p1", old=one)
    await refused("can only delete pods with spec.nodeName set to itself", DELETE, "pods", "p2", old=two)
    await write(CREATE, "pods", "p1", obj={"metadata": {}}, subresource="eviction")
    await refused("node n1 can only evict pods", CREATE, "pods", "p2", obj={"metadata": {}}, subresource="eviction")
    with pytest.raises(NotFound):
        await write(CREATE, "pods", "p9", obj={"metadata": {}}, subresource="eviction")
    await write(UPDATE, "pods", "p1", one | {"status": {"phase": "Running"}}, one, subresource="status")
    await refused("can only update pod status for pods", UPDATE, "pods", "p2", two, two, subresource="status")
    await refused("can only create and delete mirror pods", UPDATE, "pods", "p1", one, one)
    await refused("unexpected pod subresource", UPDATE, "pods", "p1", one, one, subresource="ephemeralcontainers")


async def test_a_status_changes_neither_labels_nor_claims() -> None:
    pod = Stored().objects["pods", "default", "p1"]
    labelled = deepcopy(pod)
    labelled["metadata"]["labels"] = {"a": "b"}
    await refused("cannot update labels through pod status", UPDATE, "pods", "p1", labelled, pod, subresource="status")
    claims = pod | {"status": {"resourceClaimStatuses": [{"name": "a", "resourceClaimName": "b"}]}}
    await refused("cannot update resource claim statues", UPDATE, "pods", "p1", claims, pod, subresource="status")


def node(name: str = "n1", labels: JSON | None = None, **more: Any) -> JSON:
    return {"metadata": {"name": name, "labels": labels or {}} | more.pop("metadata", {}), "spec": more}


async def test_a_node_registers_and_changes_itself_only() -> None:
    await write(CREATE, "nodes", obj=node(), namespace="")
    await refused('node "n1" is not allowed to modify node "n2"', CREATE, "nodes", obj=node("n2"), namespace="")
    await write(UPDATE, "nodes", "n1", node(), node(), namespace="", subresource="status")
    await refused('node "n1" is not allowed to modify node "n2"', UPDATE, "nodes", "n2", node("n2"), node("n2"),
                  namespace="", subresource="status")


@pytest.mark.parametrize(("label", "allowed"), [
    ("kubernetes.io/hostname", True), ("topology.kubernetes.io/zone", True), ("node.kubernetes.io/anything", True),
    ("sub.kubelet.kubernetes.io/x", True), ("example.com/x", True), ("plain", True),
    ("node-restriction.kubernetes.io/x", False), ("a.node-restriction.kubernetes.io/x", False),
    ("node-role.kubernetes.io/control-plane", False), ("kubernetes.io/other", False), ("x.k8s.io/y", False)])
async def test_a_node_may_not_steer_workloads_by_labels(label: str, allowed: bool) -> None:
    created, changed = node(labels={label: "x"}), (node(labels={label: "y"}), node(labels={label: "x"}))
    if allowed:
        await write(CREATE, "nodes", obj=created, namespace="")
        await write(UPDATE, "nodes", "n1", *changed, namespace="")
    else:
        why = f"is not allowed to set the following labels: {label}"
        await refused(why, CREATE, "nodes", obj=created, namespace="")
        await refused(f"is not allowed to modify labels: {label}", UPDATE, "nodes", "n1", *changed, namespace="")
        await refused("labels", UPDATE, "nodes", "n1", node(), changed[0], namespace="")  # nor take one away
        await write(UPDATE, "nodes", "n1", *changed, namespace="", user=UserInfo("admin"))


async def test_a_node_keeps_its_taints_and_owners() -> None:
    tainted = node(taints=[{"key": "k", "effect": "NoSchedule"}])
    await write(CREATE, "nodes", obj=tainted, namespace="")
    await refused("is not allowed to modify taints", UPDATE, "nodes", "n1", node(), tainted, namespace="")
    owned = node(metadata={"ownerReferences": [{"uid": "x"}]})
    await refused("is not allowed to modify ownerReferences", UPDATE, "nodes", "n1", owned, node(), namespace="")


def token(audiences: list[str] | None = None, **bound: str) -> JSON:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "p1", "uid": "u1"} | bound
    return {"spec": {"audiences": audiences or [], "boundObjectRef": reference}}


@pytest.mark.parametrize(("request_", "why"), [
    (token(), ""), (token(["vault"]), ""), (token(["csi"]), ""),
    ({"spec": {}}, "not bound to a pod"), (token(kind="Secret"), "not bound to a pod"),
    (token(uid=""), "without a uid"), (token(uid="old"), "does not match the UID in record"),
    (token(name="p2", uid="u2"), "a pod scheduled on a different node"),
    (token(["vault", "csi"]), "may only request 0 or 1 audiences"),
    (token(["other"]), 'audience "other" not found in pod spec volume')])
async def test_a_node_gets_tokens_for_its_own_pods_and_their_audiences(request_: JSON, why: str) -> None:
    if why:
        await refused(why, CREATE, "serviceaccounts", "robot", obj=request_, subresource="token")
        await write(CREATE, "serviceaccounts", "robot", obj=request_, subresource="token", user=UserInfo("ada"))
    else:
        await write(CREATE, "serviceaccounts", "robot", obj=request_, subresource="token")


async def test_another_audience_needs_a_permission() -> None:
    await write(CREATE, "serviceaccounts", "robot", obj=token(["other"]), subresource="token", more=True)


async def test_leases_and_csi_nodes_are_ones_own() -> None:
    lease = "coordination.k8s.io/leases"
    await write(CREATE, lease, obj=node("n1"), namespace="kube-node-lease")
    await write(UPDATE, lease, "n1", node(), node(), namespace="kube-node-lease")
    await refused("same name as the requesting node", CREATE, lease, obj=node("n2"), namespace="kube-node-lease")
    await refused("system namespace", UPDATE, lease, "n1", node(), node(), namespace="kube-system")
    await write(CREATE, "storage.k8s.io/csinodes", obj=node("n1"), namespace="")
    await refused("CSINode with the same name", CREATE, "storage.k8s.io/csinodes", obj=node("n2"), namespace="")


async def test_of_a_claim_only_capacity_and_conditions_change() -> None:
    old = {"metadata": {"name": "c"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}}
    new = old | {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
    await write(UPDATE, "persistentvolumeclaims", "c", new, old, subresource="status")
    await refused("fields other than", UPDATE, "persistentvolumeclaims", "c", old | {"status": {"phase": "Lost"}}, old,
                  subresource="status")
    await refused("fields other than", UPDATE, "persistentvolumeclaims", "c", old | {"metadata": {
        "name": "c", "labels": {"a": "b"}}}, old, subresource="status")
    await refused("may only update PVC status", UPDATE, "persistentvolumeclaims", "c", new, old)


def request_for(common_name: str, signer: str) -> JSON:
    pem = new_csr(new_key(), common_name, ("system:nodes",))
    return {"metadata": {"name": "r"}, "spec": {"signerName": signer, "request": base64.b64encode(pem).decode()}}


@pytest.mark.parametrize("signer", ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"])
async def test_a_node_asks_for_certificates_in_its_own_name(signer: str) -> None:
    resource = "certificates.k8s.io/certificatesigningrequests"
    await write(CREATE, resource, obj=request_for("system:node:n1", signer), namespace="")
    await refused("can only create a node CSR with CN=system:node:n1", CREATE, resource,
                  obj=request_for("system:node:n2", signer), namespace="")
    await refused("unable to parse csr", CREATE, resource, namespace="", obj={
        "metadata": {}, "spec": {"signerName": signer, "request": base64.b64encode(b"x").decode()}})
    await write(CREATE, resource, obj=request_for("system:node:n2", "example.com/other"), namespace="")
    bootstrapper = UserInfo("system:bootstrap:abc", groups=("system:bootstrappers",))
    await write(CREATE, resource, obj=request_for("system:node:n2", signer), namespace="", user=bootstrapper)


async def test_a_node_without_a_name_writes_nothing() -> None:
    nameless = UserInfo("system:node:", groups=("system:nodes",))
    await refused("could not determine node from user", CREATE, "pods", obj=mirror(), user=nameless)
    outsider = UserInfo("system:node:n2", groups=("system:authenticated",))  # the name alone makes no node
    await write(CREATE, "nodes", obj=node("n1"), namespace="", user=outsider)
