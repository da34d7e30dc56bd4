"""The words every authorizer speaks (apiserver `pkg/authorization/authorizer`).

My job: Attributes of a request, Decision, the Authorizer protocol. Pure. `authorization.chain` asks the modes in order.
"""

import enum
from dataclasses import dataclass
from typing import Protocol

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
    """`error` is what went wrong while deciding; it does not change the decision (a missing role, a webhook that failed)."""

    decision: Decision
    reason: str = ""
    error: str = ""


NO_OPINION = Verdict(Decision.NO_OPINION)


class Authorizer(Protocol):
    async def authorize(self, attributes: Attributes) -> Verdict: ...
