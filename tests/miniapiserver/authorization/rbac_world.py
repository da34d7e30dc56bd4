"""RBAC objects in memory, and the questions tests ask of them."""

from collections.abc import Callable, Sequence
from typing import Any

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization import bootstrap_policy
from miniapiserver.authorization.interface import Attributes, Decision
from miniapiserver.authorization.rbac import RBAC, Sources

JSON = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"


class Stored:
    def __init__(self, obj: JSON) -> None:
        self.obj = obj
        metadata = obj["metadata"]
        self.key = f"{metadata.get('namespace', '')}/{metadata['name']}"

    def decode(self) -> JSON:
        return self.obj


class Table:
    """An RBAC resource in memory."""

    def __init__(self, objects: Sequence[JSON] = ()) -> None:
        self.items = {item.key: item for item in map(Stored, objects)}
        self.stale: Callable[[], None] = lambda: None

    def objects(self) -> list[Stored]:
        return [self.items[key] for key in sorted(self.items)]

    def observe(self, stale: Callable[[], None]) -> None:
        self.stale = stale

    def put(self, obj: JSON) -> None:
        item = Stored(obj)
        self.items[item.key] = item
        self.stale()

    def remove(self, key: str) -> None:
        del self.items[key]
        self.stale()


class World:
    def __init__(self, *, defaults: bool = False) -> None:
        objects = bootstrap_policy.objects() if defaults else {}
        self.cluster_roles, self.roles, self.cluster_role_bindings, self.role_bindings = (
            Table(objects.get(f"{name}.{GROUP}", ()))
            for name in ("clusterroles", "roles", "clusterrolebindings", "rolebindings"))
        self.rbac = RBAC(Sources(self.cluster_roles, self.roles, self.cluster_role_bindings, self.role_bindings))

    def cluster_role(self, name: str, *rules: JSON, **more: Any) -> None:
        self.cluster_roles.put({"metadata": {"name": name}, "rules": list(rules)} | more)

    def role(self, namespace: str, name: str, *rules: JSON) -> None:
        self.roles.put({"metadata": {"name": name, "namespace": namespace}, "rules": list(rules)})

    def bind(self, name: str, kind: str, role: str, *subjects: JSON, namespace: str = "") -> None:
        table = self.role_bindings if namespace else self.cluster_role_bindings
        table.put({"metadata": {"name": name, "namespace": namespace} if namespace else {"name": name},
                   "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}, "subjects": list(subjects)})

    def may(self, user: str, verb: str, resource: str, *, groups: tuple[str, ...] = (), **more: str) -> bool:
        verdict = self.rbac.decide(Attributes(UserInfo(user, groups=groups), verb, resource=resource, **more))
        return verdict.decision is Decision.ALLOW

    def may_path(self, user: str, verb: str, path: str, *groups: str) -> bool:
        asked = Attributes(UserInfo(user, groups=groups), verb, is_resource=False, path=path)
        return self.rbac.decide(asked).decision is Decision.ALLOW


def rule(verbs: str, resources: str, groups: str = "", names: str = "") -> JSON:
    made: JSON = {"verbs": verbs.split(), "resources": resources.split(), "apiGroups": groups.split() or [""]}
    return made | {"resourceNames": names.split()} if names else made


def user(name: str) -> JSON:
    return {"kind": "User", "name": name, "apiGroup": GROUP}
