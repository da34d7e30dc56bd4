"""Which plugins there are, in upstream's order, and which of them this server uses.

My job: the table name → constructor (`pkg/kubeapiserver/options/plugins.go`), and the two flags that change the
default set.
"""

from collections.abc import Callable
from dataclasses import dataclass

from miniapiserver.admission.certificates import CertificateSigners, CertificateSubjectRestriction
from miniapiserver.admission.interface import Plugin
from miniapiserver.admission.limitranger import LimitRanger
from miniapiserver.admission.namespacelifecycle import NamespaceLifecycle
from miniapiserver.admission.noderestriction import NodeRestriction
from miniapiserver.admission.priority import Priority
from miniapiserver.admission.resourcequota import ResourceQuota
from miniapiserver.admission.runtimeclasses import RuntimeClass
from miniapiserver.admission.serviceaccount import ServiceAccount
from miniapiserver.admission.storageclasses import DefaultStorageClass
from miniapiserver.admission.storageprotection import StorageObjectInUseProtection
from miniapiserver.admission.taints import TaintNodesByCondition
from miniapiserver.admission.tolerations import DefaultTolerationSeconds
from miniapiserver.admission.webhooks import MutatingAdmissionWebhook, ValidatingAdmissionWebhook, Webhooks
from miniapiserver.authorization.interface import Authorizer
from miniapiserver.config import Config, ConfigError
from miniapiserver.registry.registry import Registry


@dataclass(frozen=True, slots=True)
class Ingredients:
    objects: Registry
    authorizer: Authorizer
    webhooks: Webhooks


#: name → (constructor, on by default)
PLUGINS: dict[str, tuple[Callable[[Ingredients], Plugin], bool]] = {
    "NamespaceLifecycle": (lambda has: NamespaceLifecycle(has.objects), True),
    "LimitRanger": (lambda has: LimitRanger(has.objects), True),
    "ServiceAccount": (lambda has: ServiceAccount(has.objects), True),
    "NodeRestriction": (lambda has: NodeRestriction(has.objects, has.authorizer), False),
    "TaintNodesByCondition": (lambda has: TaintNodesByCondition(), True),
    "Priority": (lambda has: Priority(has.objects), True),
    "DefaultTolerationSeconds": (lambda has: DefaultTolerationSeconds(), True),
    "DefaultStorageClass": (lambda has: DefaultStorageClass(has.objects), True),
    "StorageObjectInUseProtection": (lambda has: StorageObjectInUseProtection(), True),
    "RuntimeClass": (lambda has: RuntimeClass(has.objects), True),
    "CertificateApproval": (lambda has: CertificateSigners(has.authorizer), True),
    "CertificateSubjectRestriction": (lambda has: CertificateSubjectRestriction(), True),
    "MutatingAdmissionWebhook": (lambda has: MutatingAdmissionWebhook(has.webhooks), True),
    "ValidatingAdmissionWebhook": (lambda has: ValidatingAdmissionWebhook(has.webhooks), True),
    "ResourceQuota": (lambda has: ResourceQuota(has.objects), True),
}


def plugins(config: Config, has: Ingredients) -> list[Plugin]:
    """Raises ConfigError for a name nobody knows."""
    for name in (*config.enable_admission_plugins, *config.disable_admission_plugins):
        if name not in PLUGINS:
            raise ConfigError(f"admission plugin {name!r} is not one of {', '.join(PLUGINS)}")
    wanted = {name for name, (_, default) in PLUGINS.items() if default}
    wanted = (wanted | set(config.enable_admission_plugins)) - set(config.disable_admission_plugins)
    return [make(has) for name, (make, _) in PLUGINS.items() if name in wanted]
