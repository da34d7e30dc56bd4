"""rbac.authorization.k8s.io/v1: roles and their bindings.

My job: what they may say. Whether the caller may grant it is authorization's question.
"""

from typing import Any

from miniapiserver.errors import FieldError, invalid, not_supported, required
from miniapiserver.resources.columns import AGE, NAME_AND_CREATED, age, column, table
from miniapiserver.resources.kinds import Group
from miniapiserver.resources.names import path_segment, path_segment_name, subdomain_name
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.resource import Resource, Table
from miniapiserver.resources.selectors import label_selector_errors
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

RBAC = Group("rbac.authorization.k8s.io", "v1", "io.k8s.api.rbac")
_MIXED = "rules cannot apply to both regular resources and non-resource URLs"
_NAMESPACED = "namespaced rules cannot apply to non-resource URLs"
_KINDS = ("ServiceAccount", "User", "Group")


def rule_errors(rule: JSON, namespaced: bool, path: str) -> list[FieldError]:
    errors = [] if rule.get("verbs") else [required(f"{path}.verbs", "verbs must contain at least one value")]
    if urls := rule.get("nonResourceURLs"):
        if namespaced:
            errors.append(invalid(f"{path}.nonResourceURLs", urls, _NAMESPACED))
        if any(rule.get(key) for key in ("apiGroups", "resources", "resourceNames")):
            errors.append(invalid(f"{path}.nonResourceURLs", urls, _MIXED))
        return errors
    if not rule.get("apiGroups"):
        errors.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        errors.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    return errors


class RoleStrategy(ObjectStrategy):
    def __init__(self, namespaced: bool) -> None:
        super().__init__(namespaced=namespaced, names=path_segment_name, create_on_update=True)

    def default(self, obj: JSON) -> None:
        obj.setdefault("rules", None)

    def check(self, obj: JSON) -> list[FieldError]:
        errors: list[FieldError] = []
        for index, rule in enumerate(objects(obj.get("rules"))):
            errors += rule_errors(rule, self.namespaced, f"rules[{index}]")
        if (aggregation := obj.get("aggregationRule")) is not None and not self.namespaced:
            errors += _aggregation_errors(aggregation)
        return errors


def _aggregation_errors(aggregation: JSON) -> list[FieldError]:
    path = "aggregationRule.clusterRoleSelectors"
    selectors = objects(aggregation.get("clusterRoleSelectors"))
    if not selectors:
        return [required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")]
    return [
        error
        for index, selector in enumerate(selectors)
        for error in label_selector_errors(selector, f"{path}[{index}]")
    ]


class BindingStrategy(ObjectStrategy):
    def __init__(self, namespaced: bool) -> None:
        super().__init__(namespaced=namespaced, names=path_segment_name, create_on_update=True)

    def default(self, obj: JSON) -> None:
        ref = obj["roleRef"] = obj.get("roleRef") or {}
        for key in ("apiGroup", "kind", "name"):
            ref[key] = ref.get(key) or ""
        ref["apiGroup"] = ref["apiGroup"] or RBAC.name
        for subject in obj.get("subjects") or ():
            if subject is not None and not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
                subject["apiGroup"] = RBAC.name

    def check(self, obj: JSON) -> list[FieldError]:
        ref = obj.get("roleRef") or {}
        group, kind, name = (ref.get(key) or "" for key in ("apiGroup", "kind", "name"))
        kinds = ("Role", "ClusterRole") if self.namespaced else ("ClusterRole",)
        errors = [] if group == RBAC.name else [not_supported("roleRef.apiGroup", group, (RBAC.name,))]
        if kind not in kinds:
            errors.append(not_supported("roleRef.kind", kind, kinds))
        if not name:
            errors.append(required("roleRef.name"))
        errors += [invalid("roleRef.name", name, words) for words in path_segment(name)]
        for index, subject in enumerate(objects(obj.get("subjects"))):
            errors += _subject_errors(subject, self.namespaced, f"subjects[{index}]")
        return errors

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        errors = self.check(obj)
        if (obj.get("roleRef") or {}) != (old.get("roleRef") or {}):
            ref = obj.get("roleRef") or {}
            names = (("APIGroup", "apiGroup"), ("Kind", "kind"), ("Name", "name"))
            internal = {go: ref.get(key) or "" for go, key in names}
            errors.append(invalid("roleRef", internal, "cannot change roleRef"))
        return errors


def _subject_errors(subject: JSON, namespaced: bool, path: str) -> list[FieldError]:
    name, kind, group = (subject.get(key) or "" for key in ("name", "kind", "apiGroup"))
    errors = [] if name else [required(f"{path}.name")]
    if kind == "ServiceAccount":
        if name:
            errors += [invalid(f"{path}.name", name, words) for words in subdomain_name(name)]
        if group:
            errors.append(not_supported(f"{path}.apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):
            errors.append(required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        if group != RBAC.name:
            errors.append(not_supported(f"{path}.apiGroup", group, (RBAC.name,)))
    else:
        errors.append(not_supported(f"{path}.kind", kind, _KINDS))
    return errors


def _subjects(obj: JSON, kind: str) -> str:
    found = [subject for subject in objects(obj.get("subjects")) if subject.get("kind") == kind]
    return ", ".join(f"{subject.get('namespace') or ''}/{subject.get('name') or ''}" if kind == "ServiceAccount"
                     else subject.get("name") or "" for subject in found)


def _cells(obj: JSON, now: float) -> list[Any]:
    ref = obj.get("roleRef") or {}
    return [f"{ref.get('kind') or ''}/{ref.get('name') or ''}", age(obj, now),
            *(_subjects(obj, kind) for kind in ("User", "Group", "ServiceAccount"))]


def _bindings(kind: str) -> Table:
    return table(column("Role", f"{kind}.roleRef"), AGE, column("Users", f"Users in the {_lower(kind)}", wide=True),
                 column("Groups", f"Groups in the {_lower(kind)}", wide=True),
                 column("ServiceAccounts", f"ServiceAccounts in the {_lower(kind)}", wide=True), cells=_cells)


def _lower(kind: str) -> str:
    return kind[0].lower() + kind[1:]


def rows() -> tuple[Resource, ...]:
    row = RBAC.row
    return (
        row(
            "ClusterRoleBinding",
            "clusterrolebindings",
            BindingStrategy(False),
            namespaced=False,
            table=_bindings("ClusterRoleBinding"),
        ),
        row("ClusterRole", "clusterroles", RoleStrategy(False), namespaced=False, table=NAME_AND_CREATED),
        row("RoleBinding", "rolebindings", BindingStrategy(True), table=_bindings("RoleBinding")),
        row("Role", "roles", RoleStrategy(True), table=NAME_AND_CREATED),
    )
