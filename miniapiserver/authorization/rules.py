"""RBAC policy rules: what a rule allows, and whether one set of rules covers another.

My job: compile a role's rules into one table that answers a request with a dozen look-ups; break rules down and compare
them for the escalation checks. Pure. Rules: `pkg/apis/rbac/v1/evaluation_helpers.go`,
`component-helpers/auth/rbac/validation/policy_comparator.go`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniapiserver.authorization.interface import Attributes

JSON = dict[str, Any]

ALL = "*"


class RoleTable:
    """One role's rules, expanded. A key is (verb, group, resource or resource/subresource); its value is the names the
    rule is limited to, None for all."""

    __slots__ = ("_resources", "_urls")

    def __init__(self, rules: Iterable[Mapping[str, Any]]) -> None:
        self._resources: dict[tuple[str, str, str], frozenset[str] | None] = {}
        self._urls: dict[str, list[str]] = {}
        for rule in rules:
            self._add(rule)

    def _add(self, rule: Mapping[str, Any]) -> None:
        names = frozenset(rule.get("resourceNames") or ()) or None
        for verb in rule.get("verbs") or ():
            self._urls.setdefault(verb, []).extend(rule.get("nonResourceURLs") or ())
            for group in rule.get("apiGroups") or ():
                for resource in rule.get("resources") or ():
                    self._allow((verb, group, resource), names)

    def _allow(self, key: tuple[str, str, str], names: frozenset[str] | None) -> None:
        if key not in self._resources:
            self._resources[key] = names
        elif (known := self._resources[key]) is not None:
            self._resources[key] = known | names if names else None

    def allows(self, asked: Attributes) -> bool:
        return self._allows_resource(asked) if asked.is_resource else self._allows_url(asked)

    def _allows_resource(self, asked: Attributes) -> bool:
        resources = _resource_patterns(asked)
        for verb in (asked.verb, ALL):
            for group in (asked.group, ALL):
                for resource in resources:
                    key = (verb, group, resource)
                    if key in self._resources:
                        names = self._resources[key]
                        if names is None or asked.name in names:
                            return True
        return False

    def _allows_url(self, asked: Attributes) -> bool:
        urls = (*self._urls.get(asked.verb, ()), *self._urls.get(ALL, ()))
        return any(url_covers(url, asked.path) for url in urls)


def _resource_patterns(asked: Attributes) -> tuple[str, ...]:
    """`pods/*` is no wildcard; `*/log` is one."""
    if asked.subresource:
        return f"{asked.resource}/{asked.subresource}", ALL, f"*/{asked.subresource}"
    return asked.resource, ALL


def url_covers(pattern: str, path: str) -> bool:
    return pattern == path or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


# --- comparing rules


@dataclass(frozen=True, slots=True)
class Atom:
    """A rule with one verb and one thing. `url` is None for a resource, `name` None for all names."""

    verb: str
    group: str = ""
    resource: str = ""
    name: str | None = None
    url: str | None = None

    def as_rule(self) -> JSON:
        if self.url is not None:
            return {"verbs": [self.verb], "nonResourceURLs": [self.url]}
        rule: JSON = {"verbs": [self.verb], "apiGroups": [self.group], "resources": [self.resource]}
        return rule | {"resourceNames": [self.name]} if self.name is not None else rule


def atoms(rules: Iterable[Mapping[str, Any]]) -> Iterator[Atom]:
    for rule in rules:
        verbs = rule.get("verbs") or ()
        names: Sequence[str | None] = rule.get("resourceNames") or (None,)
        for group in rule.get("apiGroups") or ():
            for resource in rule.get("resources") or ():
                for verb in verbs:
                    yield from (Atom(verb, group, resource, name) for name in names)
        for url in rule.get("nonResourceURLs") or ():
            yield from (Atom(verb, url=url) for verb in verbs)


def uncovered(owned: Sequence[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]]) -> list[Atom]:
    """What of `wanted` no single rule of `owned` allows."""
    return [atom for atom in atoms(wanted) if not any(_covers(rule, atom) for rule in owned)]


def _covers(rule: Mapping[str, Any], atom: Atom) -> bool:
    if not _has(rule, "verbs", atom.verb):
        return False
    if atom.url is not None:
        return any(url_covers(url, atom.url) for url in rule.get("nonResourceURLs") or ())
    names = rule.get("resourceNames") or ()
    if names and atom.name not in names:
        return False
    return _has(rule, "apiGroups", atom.group) and _covers_resource(rule.get("resources") or (), atom.resource)


def _has(rule: Mapping[str, Any], field: str, value: str) -> bool:
    values = rule.get(field) or ()
    return ALL in values or value in values


def _covers_resource(owned: Sequence[str], resource: str) -> bool:
    if ALL in owned or resource in owned:
        return True
    _, slash, subresource = resource.partition("/")
    return bool(slash) and f"*/{subresource}" in owned


def compact(missing: Iterable[Atom]) -> list[JSON]:
    """Atoms of one group and resource for all names become one rule with all their verbs."""
    rules: list[JSON] = []
    simple: dict[tuple[str, str], JSON] = {}
    for atom in missing:
        rule = atom.as_rule()
        if atom.url is None and atom.name is None:
            known = simple.setdefault((atom.group, atom.resource), rule)
            if known is not rule:
                known["verbs"].append(atom.verb)
                continue
        rules.append(rule)
    return rules


_DESCRIBED = (("APIGroups", "apiGroups"), ("Resources", "resources"), ("NonResourceURLs", "nonResourceURLs"),
              ("ResourceNames", "resourceNames"), ("Verbs", "verbs"))


def describe(rule: Mapping[str, Any]) -> str:
    """`{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`"""
    return "{" + ", ".join(f"{word}:{go_list(rule[field])}" for word, field in _DESCRIBED if rule.get(field)) + "}"


def go_list(values: Iterable[str]) -> str:
    """As Go prints a []string with %q: `["a" "b"]`."""
    return "[" + " ".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values) + "]"
