"""The three authorizers that do not look far: everything, nothing, and everything for `system:masters`.

Pure. Texts: apiserver `authorizerfactory/builtin.go`.
"""

from miniapiserver.authentication.interface import MASTERS, UserInfo
from miniapiserver.authorization.interface import NO_OPINION, Attributes, Decision, RulesInfo, Verdict

ALLOWED = Verdict(Decision.ALLOW)
FORBIDDEN = Verdict(Decision.NO_OPINION, "Everything is forbidden.")


class AlwaysAllow:
    async def authorize(self, attributes: Attributes) -> Verdict:
        return ALLOWED

    def rules_for(self, user: UserInfo, namespace: str) -> RulesInfo:
        return RulesInfo([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                         [{"verbs": ["*"], "nonResourceURLs": ["*"]}])


class AlwaysDeny:
    async def authorize(self, attributes: Attributes) -> Verdict:
        return FORBIDDEN

    def rules_for(self, user: UserInfo, namespace: str) -> RulesInfo:
        return RulesInfo()


class PrivilegedGroup:
    """Members of `system:masters` may do everything, before any other mode is asked."""

    async def authorize(self, attributes: Attributes) -> Verdict:
        return ALLOWED if MASTERS in attributes.user.groups else NO_OPINION

    def rules_for(self, user: UserInfo, namespace: str) -> RulesInfo:
        return RulesInfo()
