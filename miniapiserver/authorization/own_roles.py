"""What miniplane's own processes may do beyond upstream's defaults.

My job: a role for the controller manager, because upstream gives each controller a service account of its own while
ours work under one identity, the user `system:kube-controller-manager`; and a binding for the service proxy.
`bootstrap` writes me.
"""

from typing import Any

from miniapiserver.authorization.policy_rules import CORE, READ, at, on

JSON = dict[str, Any]

GROUP = "rbac.authorization.k8s.io"
NAME = "miniplane:controller-manager"
USER = "system:kube-controller-manager"

RULES = (
    on(READ, "*", "*"),
    # namespaces and garbage: whatever there is may have to go, and lose owners or finalizers first
    on("delete deletecollection patch update", "*", "*"),
    on("create", CORE, "pods configmaps serviceaccounts endpoints events"),
    on("create", "apps", "replicasets controllerrevisions"),
    on("create", "batch", "jobs"),
    on("create", "discovery.k8s.io", "endpointslices"),
    on("create", "events.k8s.io", "events"),
    on("create", "authorization.k8s.io", "subjectaccessreviews"),
    on("approve sign", "certificates.k8s.io", "signers"),
    # aggregated roles hold more than their writer has
    on("escalate", "rbac.authorization.k8s.io", "clusterroles"),
    at("get", "/api /api/* /apis /apis/*"),
)


#: The service proxy runs inside the kubelet; a node that joined by token has no identity but its own for it.
PROXY_NAME = "miniplane:node-proxier"


def objects() -> dict[str, list[JSON]]:
    """Storage name → objects, as `bootstrap_policy.objects`."""
    return {
        f"clusterroles.{GROUP}": [{"metadata": {"name": NAME}, "rules": list(RULES)}],
        f"clusterrolebindings.{GROUP}": [
            _binding(NAME, NAME, {"kind": "User", "apiGroup": GROUP, "name": USER}),
            _binding(PROXY_NAME, "system:node-proxier", {"kind": "Group", "apiGroup": GROUP, "name": "system:nodes"}),
        ],
    }


def _binding(name: str, role: str, subject: JSON) -> JSON:
    reference = {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}
    return {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
