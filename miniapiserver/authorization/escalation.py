"""Nobody grants what he does not have.

My job: the checks on writes of roles and bindings: a role needs all its rules (or the verb `escalate`), a binding those
of the role it names (or the verb `bind`). I ask the authorizer and RBAC's rules; I write nothing. Rules:
`pkg/registry/rbac/{escalation_check,validation/rule}.go`, `pkg/registry/rbac/*/policybased`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from miniapiserver.authentication.interface import MASTERS, UserInfo
from miniapiserver.authorization.interface import Attributes, Authorizer, Decision
from miniapiserver.authorization.rbac import GROUP, RBAC
from miniapiserver.authorization.rules import compact, describe, go_list, uncovered
from miniapiserver.errors import Forbidden, NotFound

JSON = dict[str, Any]

EVERYTHING: Sequence[Mapping[str, Any]] = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]})
#: Metadata that the garbage collector changes; a write of nothing else grants nothing.
COLLECTED = ("ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation")
ROLES = ("roles", "clusterroles")
BINDINGS = ("rolebindings", "clusterrolebindings")


class EscalationCheck:
    """Lives as long as the server."""

    def __init__(self, authorizer: Authorizer, rbac: RBAC) -> None:
        self._authorizer, self._rbac = authorizer, rbac

    async def check(self, user: UserInfo, resource: str, obj: JSON, old: JSON | None) -> None:
        """`resource` is the plural of one of RBAC's four; `old` None for a create. Raises Forbidden, NotFound."""
        if MASTERS in user.groups or (old is not None and _same_but_collected(obj, old)):
            return
        if resource in ROLES:
            await self._check_role(user, resource, obj, old)
        elif resource in BINDINGS:
            await self._check_binding(user, resource, obj)

    async def _check_role(self, user: UserInfo, resource: str, obj: JSON, old: JSON | None) -> None:
        metadata = obj["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
        # A create has no name in its path, so that `escalate` limited to names never covers one.
        asked = Attributes(user, "escalate", True, namespace, GROUP, "*", resource, "", name if old else "")
        if await self._may(asked):
            return
        self._confirm(user, resource, namespace, name, obj.get("rules") or ())
        aggregates = obj.get("aggregationRule") or (old or {}).get("aggregationRule")
        if resource == "clusterroles" and aggregates and uncovered(self._rbac.owned_rules(user, ""), EVERYTHING):
            raise Forbidden.resource(resource, GROUP, name,
                                     "must have cluster-admin privileges to use the aggregationRule")

    async def _check_binding(self, user: UserInfo, resource: str, obj: JSON) -> None:
        metadata, reference = obj["metadata"], obj["roleRef"]
        namespace = metadata.get("namespace", "")
        kind, role = reference.get("kind", ""), reference.get("name", "")
        which = {"ClusterRole": "clusterroles", "Role": "roles"}.get(kind)
        if which and await self._may(Attributes(user, "bind", True, namespace, GROUP, "*", which, "", role)):
            return
        rules = self._rbac.role_rules(kind, namespace, role)
        if rules is None:
            raise NotFound.resource(kind.lower(), GROUP, role)
        self._confirm(user, resource, namespace, metadata.get("name", ""), rules)

    async def _may(self, asked: Attributes) -> bool:
        return (await self._authorizer.authorize(asked)).decision is Decision.ALLOW

    def _confirm(self, user: UserInfo, resource: str, namespace: str, name: str,
                 rules: Iterable[Mapping[str, Any]]) -> None:
        missing = uncovered(self._rbac.owned_rules(user, namespace), rules)
        if missing:
            words = "\n".join(sorted({describe(rule) for rule in compact(missing)}))
            raise Forbidden.resource(resource, GROUP, name, (
                f'user "{user.name}" (groups={go_list(user.groups)}) is attempting to grant RBAC permissions not '
                f"currently held:\n{words}"))


def _same_but_collected(obj: JSON, old: JSON) -> bool:
    return _without_collected(obj) == _without_collected(old)


def _without_collected(obj: JSON) -> JSON:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in COLLECTED and value}
    return obj | {"metadata": metadata}
