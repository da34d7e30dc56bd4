"""The authorizers of one server, in order.

My job: `--authorization-mode` → authorizers by a table (a new mode is a row), `system:masters` before all of them. The
first that allows or denies decides; when none does, the request is refused with all their reasons.
"""

from collections.abc import Callable, Sequence

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization.always import AlwaysAllow, AlwaysDeny, PrivilegedGroup
from miniapiserver.authorization.escalation import EscalationCheck
from miniapiserver.authorization.interface import Attributes, Authorizer, Decision, RulesInfo, Verdict
from miniapiserver.authorization.node import NodeAuthorizer
from miniapiserver.authorization.rbac import RBAC
from miniapiserver.authorization.sources import node_graph, rbac_sources
from miniapiserver.authorization.webhook import Webhook
from miniapiserver.config import Config
from miniapiserver.registry.registry import Registry

#: mode → constructor
MODES: dict[str, Callable[[Config, Registry], Authorizer]] = {
    "AlwaysAllow": lambda config, registry: AlwaysAllow(),
    "AlwaysDeny": lambda config, registry: AlwaysDeny(),
    "RBAC": lambda config, registry: RBAC(rbac_sources(registry)),
    "Node": lambda config, registry: NodeAuthorizer(node_graph(registry)),
    "Webhook": lambda config, registry: Webhook.from_config(config),
}


class AuthorizerChain:
    """Lives as long as the server; `aclose` ends what the modes opened."""

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self.authorizers = tuple(authorizers)

    async def authorize(self, attributes: Attributes) -> Verdict:
        reasons, errors = [], []
        for authorizer in self.authorizers:
            verdict = await authorizer.authorize(attributes)
            if verdict.decision is not Decision.NO_OPINION:
                return verdict
            reasons.append(verdict.reason)
            errors.append(verdict.error)
        return Verdict(Decision.NO_OPINION, "\n".join(filter(None, reasons)), ", ".join(filter(None, errors)))

    def rules_for(self, user: UserInfo, namespace: str) -> RulesInfo:
        whole = RulesInfo()
        errors = []
        for authorizer in self.authorizers:
            part = authorizer.rules_for(user, namespace)
            whole.resources += part.resources
            whole.urls += part.urls
            whole.incomplete = whole.incomplete or part.incomplete
            errors.append(part.error)
        found = list(filter(None, errors))
        whole.error = found[0] if len(found) == 1 else f"[{', '.join(found)}]" if found else ""
        return whole

    def rbac(self) -> RBAC | None:
        """The RBAC mode, if it is on: the escalation checks compare with its rules."""
        return next((each for each in self.authorizers if isinstance(each, RBAC)), None)

    async def aclose(self) -> None:
        for authorizer in self.authorizers:
            if isinstance(authorizer, Webhook):
                await authorizer.aclose()


def authorizer_chain(config: Config, registry: Registry) -> AuthorizerChain:
    return AuthorizerChain([PrivilegedGroup(), *(MODES[mode](config, registry) for mode in config.authorization_mode)])


def escalation_check(authorizer: AuthorizerChain, registry: Registry) -> EscalationCheck:
    """For writes of roles: compares with RBAC's rules also where another mode authorizes."""
    return EscalationCheck(authorizer, authorizer.rbac() or RBAC(rbac_sources(registry)))
