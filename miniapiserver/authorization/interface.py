"""The words every authorizer speaks (apiserver `pkg/authorization/authorizer`).

My job: Attributes of a request, Decision, the Authorizer protocol. Pure. `authorization.chain` asks the modes in order.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from miniapiserver.authentication.interface import UserInfo


class Decision(enum.Enum):
    ALLOW = "allow"
    DENY = "deny"
    NO_OPINION = "no opinion"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is asked. A non-resource request has `is_resource` False and only `verb` and `path`.

    `field_selector` and `label_selector` are the raw query texts of list, watch and deletecollection.
    """

    user: UserInfo
    verb: str
    is_resource: bool = True
    namespace: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    path: str = ""
    field_selector: str = ""
    label_selector: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`error` is what went wrong while deciding; it does not change the decision (a webhook that failed)."""

    decision: Decision
    reason: str = ""
    error: str = ""


NO_OPINION = Verdict(Decision.NO_OPINION)


@dataclass(slots=True)
class RulesInfo:
    """What a user may do in a namespace, as far as it can be listed. Rules are in the form of review statuses."""

    resources: list[dict[str, Any]] = field(default_factory=list)
    urls: list[dict[str, Any]] = field(default_factory=list)
    incomplete: bool = False
    error: str = ""

    def add(self, rule: Mapping[str, Any]) -> None:
        """A PolicyRule's two halves."""
        if rule.get("resources"):
            self.resources.append({name: rule[name] for name in ("verbs", "apiGroups", "resources", "resourceNames")
                                   if rule.get(name)})
        if rule.get("nonResourceURLs"):
            self.urls.append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})


class Authorizer(Protocol):
    async def authorize(self, attributes: Attributes) -> Verdict: ...

    def rules_for(self, user: UserInfo, namespace: str) -> RulesInfo:
        """For SelfSubjectRulesReview. One that cannot list its rules says that the answer is incomplete, and why."""
        ...
