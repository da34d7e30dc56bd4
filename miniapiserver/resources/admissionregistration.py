"""admissionregistration.k8s.io/v1: webhooks and admission policies."""

from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

ADMISSION = Group("admissionregistration.k8s.io", "v1", "io.k8s.api.admissionregistration")


def rows() -> tuple[Resource, ...]:
    def row(kind: str, plural: str, status: bool = False) -> Resource:
        return ADMISSION.row(kind, plural, ObjectStrategy(namespaced=False, generation=True, status=status), namespaced=False, categories=("api-extensions",),
                             subresources=(status_of(kind),) if status else ())

    return (
        row("MutatingAdmissionPolicy", "mutatingadmissionpolicies"),
        row("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings"),
        row("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
        row("ValidatingAdmissionPolicy", "validatingadmissionpolicies", status=True),
        row("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        row("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    )
