"""ClusterRoles that are the union of others.

My job: which rules an aggregated ClusterRole has, by the labels of the others. Pure. `rbac` evaluates it for every
question, so an aggregated role is right at once; `bootstrap_policy` writes it into the defaults for people to read.
Rules: `pkg/controller/clusterroleaggregation`.
"""

from collections.abc import Mapping
from typing import Any

from miniapiserver.selectors import label_selector_from

JSON = dict[str, Any]


def aggregated_rules(role: Mapping[str, Any], roles: Mapping[str, Mapping[str, Any]]) -> list[JSON]:
    """The union of the rules of all ClusterRoles that `role`'s selectors choose, by name, without repetitions. One
    that is aggregated itself contributes its own union; a circle ends where it began."""
    return _union(role, roles, frozenset())


def _union(role: Mapping[str, Any], roles: Mapping[str, Mapping[str, Any]], above: frozenset[str]) -> list[JSON]:
    name = role["metadata"]["name"]
    selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors")
    if not selectors:
        return list(role.get("rules") or ())
    rules: list[JSON] = []
    for selector in map(label_selector_from, selectors):
        for other in sorted(roles):
            labels = roles[other]["metadata"].get("labels") or {}
            if other != name and other not in above and selector is not None and selector.matches(labels):
                rules += [rule for rule in _union(roles[other], roles, above | {name}) if rule not in rules]
    return rules
