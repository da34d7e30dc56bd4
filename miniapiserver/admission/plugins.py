"""Which plugins there are, in upstream's order, and which of them this server uses.

My job: the table name → constructor (`pkg/kubeapiserver/options/plugins.go`), and the two flags that change the
default set.
"""

from collections.abc import Callable
from dataclasses import dataclass

from miniapiserver.admission.certificates import CertificateSigners, CertificateSubjectRestriction
from miniapiserver.admission.interface import Plugin
from miniapiserver.admission.namespacelifecycle import NamespaceLifecycle
from miniapiserver.admission.noderestriction import NodeRestriction
from miniapiserver.admission.priority import Priority
from miniapiserver.admission.serviceaccount import ServiceAccount
from miniapiserver.admission.taints import TaintNodesByCondition
from miniapiserver.admission.tolerations import DefaultTolerationSeconds
from miniapiserver.authorization.interface import Authorizer
from miniapiserver.config import Config, ConfigError
from miniapiserver.registry.objects import Objects


@dataclass(frozen=True, slots=True)
class Ingredients:
    objects: Objects
    authorizer: Authorizer


#: name → (constructor, on by default)
PLUGINS: dict[str, tuple[Callable[[Ingredients], Plugin], bool]] = {
    "NamespaceLifecycle": (lambda has: NamespaceLifecycle(has.objects), True),
    "NodeRestriction": (lambda has: NodeRestriction(has.objects, has.authorizer), False),
    "ServiceAccount": (lambda has: ServiceAccount(has.objects), True),
    "TaintNodesByCondition": (lambda has: TaintNodesByCondition(), True),
    "Priority": (lambda has: Priority(has.objects), True),
    "DefaultTolerationSeconds": (lambda has: DefaultTolerationSeconds(), True),
    "CertificateSubjectRestriction": (lambda has: CertificateSubjectRestriction(), True),
    "CertificateApproval": (lambda has: CertificateSigners(has.authorizer), True),
}


def plugins(config: Config, objects: Objects, authorizer: Authorizer) -> list[Plugin]:
    """Raises ConfigError for a name nobody knows."""
    for name in (*config.enable_admission_plugins, *config.disable_admission_plugins):
        if name not in PLUGINS:
            raise ConfigError(f"admission plugin {name!r} is not one of {', '.join(PLUGINS)}")
    wanted = {name for name, (_, default) in PLUGINS.items() if default}
    wanted = (wanted | set(config.enable_admission_plugins)) - set(config.disable_admission_plugins)
    has = Ingredients(objects, authorizer)
    return [make(has) for name, (make, _) in PLUGINS.items() if name in wanted]
