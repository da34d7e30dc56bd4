"""What miniplane's own controller manager may do.

My job: one role and its binding. Upstream gives each controller a service account of its own; ours work under one identity, the user
`system:kube-controller-manager`, which upstream's role of that name does not let do their work. `bootstrap` writes me.
"""

from typing import Any

from miniapiserver.authorization.policy_rules import CORE, READ, at, on

JSON = dict[str, Any]

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


def objects() -> dict[str, list[JSON]]:
    """Storage name → objects, as `bootstrap_policy.objects`."""
    group = "rbac.authorization.k8s.io"
    return {f"clusterroles.{group}": [{"metadata": {"name": NAME}, "rules": list(RULES)}],
            f"clusterrolebindings.{group}": [{
                "metadata": {"name": NAME}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": NAME},
                "subjects": [{"kind": "User", "apiGroup": group, "name": USER}]}]}
