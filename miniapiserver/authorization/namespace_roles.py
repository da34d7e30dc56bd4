"""Default Roles and RoleBindings in kube-system and kube-public, and what kubeadm adds.

Data. Upstream: `bootstrappolicy/namespace_policy.go`; kubeadm: `app/phases/bootstraptoken`, `app/phases/kubelet`.
"""

from dataclasses import dataclass

from miniapiserver.authorization.policy_rules import CORE, EVENTS, JSON, READ, on

SYSTEM, PUBLIC = "kube-system", "kube-public"
MANAGER, SCHEDULER = "User system:kube-controller-manager", "User system:kube-scheduler"
BOOTSTRAPPERS = "Group system:bootstrappers:kubeadm:default-node-token"
NODES = "Group system:nodes"


@dataclass(frozen=True, slots=True)
class NamespacedRole:
    """A Role and the RoleBinding that gives it. `binding` is the binding's name when it is not the role's."""

    namespace: str
    name: str
    rules: tuple[JSON, ...]
    subjects: tuple[str, ...]
    binding: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """A ClusterRoleBinding: its name, the ClusterRole, to whom."""

    name: str
    role: str
    subjects: tuple[str, ...]


def _leader_lock(component: str, user: str) -> NamespacedRole:
    return NamespacedRole(
        SYSTEM, f"system::leader-locking-{component}",
        (on("watch", CORE, "configmaps"), on("get update", CORE, "configmaps", names=component)),
        (user, f"ServiceAccount {SYSTEM}/{component}"))


NAMESPACED_ROLES = (
    NamespacedRole(SYSTEM, "extension-apiserver-authentication-reader",
                   (on(READ, CORE, "configmaps", names="extension-apiserver-authentication"),), (MANAGER, SCHEDULER),
                   binding="system::extension-apiserver-authentication-reader"),
    NamespacedRole(SYSTEM, "system:controller:bootstrap-signer", (on(READ, CORE, "secrets"),),
                   (f"ServiceAccount {SYSTEM}/bootstrap-signer",)),
    NamespacedRole(SYSTEM, "system:controller:cloud-provider", (on("create get list watch", CORE, "configmaps"),),
                   (f"ServiceAccount {SYSTEM}/cloud-provider",)),
    NamespacedRole(SYSTEM, "system:controller:token-cleaner", (on("get list watch delete", CORE, "secrets"), EVENTS),
                   (f"ServiceAccount {SYSTEM}/token-cleaner",)),
    _leader_lock("kube-controller-manager", MANAGER),
    _leader_lock("kube-scheduler", SCHEDULER),
    NamespacedRole(PUBLIC, "system:controller:bootstrap-signer",
                   (on(READ, CORE, "configmaps"), on("update", CORE, "configmaps", names="cluster-info"), EVENTS),
                   (f"ServiceAccount {SYSTEM}/bootstrap-signer",)),
)

#: kubeadm's own: whoever makes clusters as kubeadm does finds them. Not labelled, never put back once changed.
KUBEADM_CLUSTER_ROLES = {"kubeadm:get-nodes": (on("get", CORE, "nodes"),)}
KUBEADM_BINDINGS = (
    Given("kubeadm:cluster-admins", "cluster-admin", ("Group kubeadm:cluster-admins",)),
    Given("kubeadm:get-nodes", "kubeadm:get-nodes", (BOOTSTRAPPERS,)),
    Given("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", (BOOTSTRAPPERS,)),
    Given("kubeadm:node-autoapprove-bootstrap", "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
          (BOOTSTRAPPERS,)),
    Given("kubeadm:node-autoapprove-certificate-rotation",
          "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", (NODES,)),
    Given("kubeadm:node-proxier", "system:node-proxier", (f"ServiceAccount {SYSTEM}/kube-proxy",)),
    # kubeadm makes the API server's kubelet client a cluster admin; the kubelet API is all it needs.
    Given("kubeadm:apiserver-kubelet-client", "system:kubelet-api-admin", ("User kube-apiserver-kubelet-client",)),
)
KUBEADM_ROLES = (
    NamespacedRole(PUBLIC, "kubeadm:bootstrap-signer-clusterinfo",
                   (on("get", CORE, "configmaps", names="cluster-info"),), ("User system:anonymous",)),
    NamespacedRole(SYSTEM, "kubeadm:nodes-kubeadm-config", (on("get", CORE, "configmaps", names="kubeadm-config"),),
                   (BOOTSTRAPPERS, NODES)),
    NamespacedRole(SYSTEM, "kubeadm:kubelet-config", (on("get", CORE, "configmaps", names="kubelet-config"),),
                   (NODES, BOOTSTRAPPERS)),
)
