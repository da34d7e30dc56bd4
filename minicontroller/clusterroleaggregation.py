"""Aggregated ClusterRoles show the rules they stand for.

My job: write the union of the chosen roles' rules into a role with an aggregationRule
(`pkg/controller/clusterroleaggregation`). The API server computes the union at every question, so a role works before
I have written it; I write it for people and tools to read.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from minicontroller.actions import Action, Update
from minicontroller.controller import Controller, Key
from minicontroller.ownership import matches
from wire.apiclient import resource_path

JSON = dict[str, Any]

GROUP = "rbac.authorization.k8s.io"


class ClusterRoleAggregation(Controller):
    name = "clusterroleaggregation"

    def watch(self) -> None:
        self.roles = self.informers.of(GROUP, "v1", "clusterroles")
        self.roles.subscribe(self._changed)

    def _changed(self, kind: str, new: JSON | None, old: JSON | None) -> None:
        """Any role may be part of any aggregated one."""
        for key, role in list(self.roles.objects.items()):
            if role.get("aggregationRule"):
                self.queue.add(key)

    def plan(self, key: Key) -> Iterable[Action]:
        role = self.roles.objects.get(key)
        if role is None or not role.get("aggregationRule"):
            return
        rules = union(role, {name: item for (_, name), item in self.roles.objects.items()})
        if rules != (role.get("rules") or []):
            yield Update(resource_path(GROUP, "v1", "clusterroles", None, key[1]), role | {"rules": rules})


def union(role: JSON, roles: Mapping[str, JSON]) -> list[JSON]:
    """The rules of all chosen roles by name, without repetitions; the role itself is never one of them."""
    rules: list[JSON] = []
    for selector in role["aggregationRule"].get("clusterRoleSelectors") or ():
        for name in sorted(roles):
            labels = roles[name]["metadata"].get("labels") or {}
            if name != role["metadata"]["name"] and matches(selector, labels):
                rules += [rule for rule in roles[name].get("rules") or () if rule not in rules]
    return rules
