"""certificates.k8s.io/v1: CertificateSigningRequests."""

from miniapiserver.resources.kinds import READ_WRITE, Group, status_of
from miniapiserver.resources.resource import Resource, Subresource
from miniapiserver.resources.strategy import ObjectStrategy

CERTIFICATES = Group("certificates.k8s.io", "v1", "io.k8s.api.certificates")


def rows() -> tuple[Resource, ...]:
    kind = "CertificateSigningRequest"
    return (CERTIFICATES.row(kind, "certificatesigningrequests", ObjectStrategy(namespaced=False, status=True), namespaced=False, short=("csr",),
                             subresources=(Subresource("approval", kind, READ_WRITE), status_of(kind))),)
