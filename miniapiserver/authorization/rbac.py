"""RBAC: who may do what by roles and bindings.

My job: answer a request from an index of the four RBAC resources. The index follows the watch caches: a changed role or
binding is compiled again at the next question, everything else is kept. A question costs a few dictionary look-ups, a
repeated one a single one. No I/O. Rules: `plugin/pkg/auth/authorizer/rbac/rbac.go`, `registry/rbac/validation/rule.go`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization.aggregation import aggregated_rules
from miniapiserver.authorization.interface import NO_OPINION, Attributes, Decision, RulesInfo, Verdict
from miniapiserver.authorization.rules import RoleTable

JSON = dict[str, Any]

GROUP = "rbac.authorization.k8s.io"
REMEMBERED = 8192  # answers kept until a role or binding changes


class Cached(Protocol):
    """One stored object; a changed one is another instance."""

    @property
    def key(self) -> str: ...

    def decode(self) -> JSON: ...


class Source(Protocol):
    """The objects of one RBAC resource, in key order, and who wants to know when they change."""

    def objects(self) -> Sequence[Cached]: ...

    def observe(self, stale: Callable[[], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class Sources:
    cluster_roles: Source
    roles: Source
    cluster_role_bindings: Source
    role_bindings: Source


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    namespace: str
    rules: Sequence[Mapping[str, Any]]
    table: RoleTable


@dataclass(frozen=True, slots=True)
class Binding:
    """`subjects` are keys of the index, in the binding's order, with their words for the reason."""

    name: str
    namespace: str
    role_kind: str
    role_name: str
    subjects: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """A role given to a subject. `problem` is set instead of the role when there is no such role."""

    role: Role | None
    reason: str
    problem: str = ""


Grants = dict[str, list[Grant]]


@dataclass(slots=True)
class _Index:
    """`everywhere` and each namespace map a subject's key to what it was granted there."""

    everywhere: Grants = field(default_factory=dict)
    namespaces: dict[str, Grants] = field(default_factory=dict)
    roles: dict[tuple[str, str], Role] = field(default_factory=dict)  # namespace "" for ClusterRoles
    answers: dict[tuple[Any, ...], Verdict] = field(default_factory=dict)


class RBAC:
    """Lives as long as the server."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._stale = True
        self._index = _Index()
        self._compiled: dict[str, tuple[Cached, Any]] = {}
        for source in (sources.cluster_roles, sources.roles, sources.cluster_role_bindings, sources.role_bindings):
            source.observe(self._mark_stale)

    async def authorize(self, attributes: Attributes) -> Verdict:
        return self.decide(attributes)

    def decide(self, asked: Attributes) -> Verdict:
        answers = self._current().answers
        user = asked.user
        key = (user.name, user.groups, asked.verb, asked.group, asked.resource, asked.subresource, asked.namespace,
               asked.name, asked.is_resource or asked.path)
        known = answers.get(key)
        if known is None:
            if len(answers) >= REMEMBERED:
                answers.clear()
            known = answers[key] = self._decide(asked)
        return known

    def _decide(self, asked: Attributes) -> Verdict:
        problems = []
        for grant in self.grants(asked.user, asked.namespace):
            if grant.role is None:
                problems.append(grant.problem)
            elif grant.role.table.allows(asked):
                return Verdict(Decision.ALLOW, f"RBAC: allowed by {grant.reason}")
        return Verdict(Decision.NO_OPINION, f"RBAC: {_aggregate(problems)}") if problems else NO_OPINION

    def rules_for(self, user: UserInfo, namespace: str) -> RulesInfo:
        found = RulesInfo()
        problems = []
        for grant in self.grants(user, namespace):
            if grant.role is None:
                problems.append(grant.problem)
                continue
            for rule in grant.role.rules:
                found.add(rule)
        found.error = _aggregate(problems)
        return found

    def owned_rules(self, user: UserInfo, namespace: str) -> list[Mapping[str, Any]]:
        """Every rule that applies to `user` in `namespace` ("" for the whole cluster)."""
        return [rule for grant in self.grants(user, namespace) if grant.role for rule in grant.role.rules]

    def role_rules(self, kind: str, namespace: str, name: str) -> Sequence[Mapping[str, Any]] | None:
        """The rules a roleRef stands for, None if there is no such role."""
        role = self._current().roles.get(("" if kind == "ClusterRole" else namespace, name))
        return role.rules if role else None

    def grants(self, user: UserInfo, namespace: str) -> Iterator[Grant]:
        index = self._current()
        scopes = [index.everywhere]
        if namespace and namespace in index.namespaces:
            scopes.append(index.namespaces[namespace])
        subjects = [_user_key(user.name), *map(_group_key, user.groups)]
        for scope in scopes:
            for subject in subjects:
                yield from scope.get(subject, ())

    # --- the index

    def _mark_stale(self) -> None:
        self._stale = True

    def _current(self) -> _Index:
        if self._stale:
            self._index = self._build()
            self._stale = False
        return self._index

    def _build(self) -> _Index:
        index = _Index()
        compiled: dict[str, tuple[Cached, Any]] = {}
        sources = self._sources
        aggregating = {role["metadata"]["name"]: role
                       for role in self._each(sources.cluster_roles, _decode, compiled)}
        for source in (sources.cluster_roles, sources.roles):
            for role in self._each(source, _role, compiled, "role "):
                index.roles[role.namespace, role.name] = role
        for name, obj in aggregating.items():
            if obj.get("aggregationRule"):
                rules = aggregated_rules(obj, aggregating)
                index.roles["", name] = Role(name, "", rules, RoleTable(rules))
        for source in (sources.cluster_role_bindings, sources.role_bindings):
            for binding in self._each(source, _binding, compiled):
                _grant(index, binding)
        self._compiled = compiled
        return index

    def _each(self, source: Source, make: Callable[[JSON], Any], compiled: dict[str, tuple[Cached, Any]],
              kind: str = "") -> Iterator[Any]:
        """What `make` says of each object, made again only for those that changed."""
        for item in source.objects():
            key = kind + item.key
            known = self._compiled.get(key)
            if known is None or known[0] is not item:
                known = (item, make(item.decode()))
            compiled[key] = known
            yield known[1]


def _decode(obj: JSON) -> JSON:
    return obj


def _role(obj: JSON) -> Role:
    rules = obj.get("rules") or []
    return Role(obj["metadata"]["name"], obj["metadata"].get("namespace", ""), rules, RoleTable(rules))


def _binding(obj: JSON) -> Binding:
    namespace = obj["metadata"].get("namespace", "")
    subjects = tuple(filter(None, (_subject(subject, namespace) for subject in obj.get("subjects") or ())))
    return Binding(obj["metadata"]["name"], namespace, obj["roleRef"]["kind"], obj["roleRef"]["name"], subjects)


def _subject(subject: Mapping[str, Any], binding_namespace: str) -> tuple[str, str] | None:
    """(key, words); None for what can match nobody. A service account is its user name."""
    kind, name = subject.get("kind", ""), subject.get("name", "")
    if kind == "User":
        return _user_key(name), f'User "{name}"'
    if kind == "Group":
        return _group_key(name), f'Group "{name}"'
    namespace = subject.get("namespace") or binding_namespace
    if kind == "ServiceAccount" and namespace:
        return _user_key(f"system:serviceaccount:{namespace}:{name}"), f'ServiceAccount "{name}/{namespace}"'
    return None


def _user_key(name: str) -> str:
    return "u:" + name


def _group_key(name: str) -> str:
    return "g:" + name


def _grant(index: _Index, binding: Binding) -> None:
    kind, name = binding.role_kind, binding.role_name
    role = index.roles.get(("" if kind == "ClusterRole" else binding.namespace, name))
    problem = "" if role else f'{kind.lower()}.{GROUP} "{name}" not found'
    if binding.namespace:
        scope = index.namespaces.setdefault(binding.namespace, {})
        which = f'RoleBinding "{binding.name}/{binding.namespace}"'
    else:
        scope, which = index.everywhere, f'ClusterRoleBinding "{binding.name}"'
    for subject, words in binding.subjects:
        scope.setdefault(subject, []).append(Grant(role, f'{which} of {kind} "{name}" to {words}', problem))


def _aggregate(problems: Sequence[str]) -> str:
    """As Go's utilerrors.NewAggregate prints: one plainly, several in brackets, none twice."""
    different = list(dict.fromkeys(problems))
    return different[0] if len(different) == 1 else f"[{', '.join(different)}]" if different else ""
