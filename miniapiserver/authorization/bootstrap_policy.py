"""The RBAC objects every cluster starts with.

My job: the tables of default roles as objects, and how an existing object is brought up to its default: missing rules,
subjects, labels and annotations come back, nothing is taken away. Pure. Rules: `bootstrappolicy/policy.go`,
`component-helpers/auth/rbac/reconciliation`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

from miniapiserver.authorization.aggregation import aggregated_rules
from miniapiserver.authorization.cluster_roles import AGGREGATED, CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, PART_OF
from miniapiserver.authorization.controller_roles import CONTROLLER_ROLES
from miniapiserver.authorization.namespace_roles import (
    KUBEADM_BINDINGS,
    KUBEADM_CLUSTER_ROLES,
    KUBEADM_ROLES,
    NAMESPACED_ROLES,
    NamespacedRole,
)
from miniapiserver.authorization.rules import uncovered

JSON = dict[str, Any]

GROUP = "rbac.authorization.k8s.io"
LABEL = ("kubernetes.io/bootstrapping", "rbac-defaults")
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
CONTROLLER = "system:controller:"


def objects() -> dict[str, list[JSON]]:
    """Storage name → every default object of it, kubeadm's included. Fresh dicts, roles before bindings."""
    made = {
        "clusterroles": [*map(_default, _cluster_roles()), *_kubeadm_cluster_roles()],
        "roles": [*(_default(_role(row)) for row in NAMESPACED_ROLES), *map(_role, KUBEADM_ROLES)],
        "clusterrolebindings": [*map(_default, _cluster_role_bindings()), *_kubeadm_bindings()],
        "rolebindings": [*(_default(_role_binding(row)) for row in NAMESPACED_ROLES),
                         *map(_role_binding, KUBEADM_ROLES)]}
    return {f"{plural}.{GROUP}": made[plural] for plural in made}


def _default(obj: JSON) -> JSON:
    """Marked as a default that is kept up."""
    metadata = obj["metadata"]
    metadata["labels"] = {LABEL[0]: LABEL[1]} | metadata.get("labels", {})
    metadata["annotations"] = {AUTOUPDATE: "true"}
    return obj


def _cluster_roles() -> Iterator[JSON]:
    rules = CLUSTER_ROLES | {CONTROLLER + name: rules for name, rules in CONTROLLER_ROLES.items()}
    made = {name: _cluster_role(name, rules.get(name, ())) for name in (*rules, *AGGREGATED)}
    for name in AGGREGATED:
        made[name]["rules"] = aggregated_rules(made[name], made)
    return iter(made.values())


def _cluster_role(name: str, rules: Iterable[JSON]) -> JSON:
    obj: JSON = {"metadata": {"name": name}, "rules": deepcopy(list(rules))}
    if name in PART_OF:
        obj["metadata"]["labels"] = {AGGREGATED[PART_OF[name]]: "true"}
    if name in AGGREGATED:
        obj["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {AGGREGATED[name]: "true"}}]}
    return obj


def _cluster_role_bindings() -> Iterator[JSON]:
    for role, subjects in CLUSTER_ROLE_BINDINGS.items():
        yield _binding(role, "ClusterRole", role, subjects)
    for name in CONTROLLER_ROLES:
        yield _binding(CONTROLLER + name, "ClusterRole", CONTROLLER + name, (f"ServiceAccount kube-system/{name}",))


def _kubeadm_cluster_roles() -> list[JSON]:
    return [_cluster_role(name, rules) for name, rules in KUBEADM_CLUSTER_ROLES.items()]


def _kubeadm_bindings() -> list[JSON]:
    return [_binding(given.name, "ClusterRole", given.role, given.subjects) for given in KUBEADM_BINDINGS]


def _role(row: NamespacedRole) -> JSON:
    return {"metadata": {"name": row.name, "namespace": row.namespace}, "rules": deepcopy(list(row.rules))}


def _role_binding(row: NamespacedRole) -> JSON:
    return _binding(row.binding or row.name, "Role", row.name, row.subjects, row.namespace)


def _binding(name: str, kind: str, role: str, subjects: Sequence[str], namespace: str = "") -> JSON:
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    obj: JSON = {"metadata": metadata, "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}}
    return obj | {"subjects": [_subject(words) for words in subjects]} if subjects else obj


def _subject(words: str) -> JSON:
    """`Group system:nodes`, `ServiceAccount kube-system/kube-dns`."""
    kind, _, name = words.partition(" ")
    if kind == "ServiceAccount":
        namespace, _, account = name.partition("/")
        return {"kind": kind, "name": account, "namespace": namespace}
    return {"apiGroup": GROUP, "kind": kind, "name": name}


# --- reconciling


def reconcile(found: JSON, wanted: JSON) -> JSON | None:
    """`found` with what it lacks of `wanted`; None when nothing is missing, or when it is not ours to keep up."""
    if AUTOUPDATE not in (wanted["metadata"].get("annotations") or {}):
        return None
    if (found["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false":
        return None
    result = deepcopy(found)
    for field in ("labels", "annotations"):
        result["metadata"][field] = wanted["metadata"][field] | (found["metadata"].get(field) or {})
    complete: Callable[[JSON, JSON], None] = _complete_binding if "roleRef" in wanted else _complete_role
    complete(result, wanted)
    return result if result != found else None


def _complete_role(result: JSON, wanted: JSON) -> None:
    if aggregation := wanted.get("aggregationRule"):
        held = result.setdefault("aggregationRule", {}).setdefault("clusterRoleSelectors", [])
        held += [selector for selector in aggregation["clusterRoleSelectors"] if selector not in held]
        return
    missing = uncovered(result.get("rules") or (), wanted["rules"])
    if missing:
        result["rules"] = [*(result.get("rules") or ()), *(atom.as_rule() for atom in missing)]


def _complete_binding(result: JSON, wanted: JSON) -> None:
    """A binding to another role is somebody's decision (upstream deletes it and makes its own); it stays."""
    if result["roleRef"].get("name") != wanted["roleRef"]["name"]:
        return
    held = result.get("subjects") or []
    missing = [subject for subject in wanted.get("subjects", ()) if subject not in held]
    if missing:
        result["subjects"] = [*held, *missing]
