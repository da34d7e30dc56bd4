"""Who may approve and sign which certificate requests, and what nobody may ask for.

My job: CertificateApproval, CertificateSigning, CertificateSubjectRestriction (`plugin/pkg/admission/certificates`):
approving and signing need the verb `approve` or `sign` on the signer, and a client certificate for system:masters is
refused.
"""

import base64

from certs.errors import InvalidCSR
from certs.requests import parse_csr
from miniapiserver.admission.interface import Attributes, Operation, Plugin
from miniapiserver.authorization.interface import Attributes as Question
from miniapiserver.authorization.interface import Authorizer, Decision
from miniapiserver.errors import Forbidden

GROUP = "certificates.k8s.io"
RESOURCE = "certificatesigningrequests"
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
MASTERS = "system:masters"
#: Subresource → verb on the signer.
VERBS = {"approval": "approve", "status": "sign"}


def request_problem(pem: bytes) -> str:
    """What is wrong with a PKCS#10 request, its signature included; "" when nothing is."""
    try:
        parse_csr(pem)
    except InvalidCSR as error:
        return str(error)
    return ""


class CertificateSubjectRestriction(Plugin):
    """No client certificate may make anybody a master."""

    async def validate(self, attributes: Attributes) -> None:
        row = attributes.row
        if row.plural != RESOURCE or row.group != GROUP or attributes.operation is not Operation.CREATE:
            return
        assert attributes.obj is not None
        spec = attributes.obj["spec"]
        if spec.get("signerName") != CLIENT_SIGNER:
            return
        if MASTERS in parse_csr(base64.b64decode(spec["request"])).organizations:
            raise Forbidden.resource(RESOURCE, GROUP, attributes.name,
                                     f"use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")


class CertificateSigners(Plugin):
    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, attributes: Attributes) -> None:
        if attributes.row.plural != RESOURCE or attributes.row.group != GROUP:
            return
        if attributes.operation is Operation.UPDATE and attributes.subresource in VERBS and self._matters(attributes):
            assert attributes.old is not None
            signer = attributes.old["spec"].get("signerName", "")
            if not await self._may(attributes, VERBS[attributes.subresource], signer):
                raise Forbidden.resource(RESOURCE, GROUP, attributes.name, f"user not permitted to "
                                         f"{VERBS[attributes.subresource]} requests with signerName \"{signer}\"")

    def _matters(self, attributes: Attributes) -> bool:
        """A status update that leaves certificate and conditions alone needs no right to sign."""
        if attributes.subresource == "approval":
            return True
        assert attributes.obj is not None and attributes.old is not None
        new, old = attributes.obj.get("status") or {}, attributes.old.get("status") or {}
        return new.get("certificate") != old.get("certificate") or new.get("conditions") != old.get("conditions")

    async def _may(self, attributes: Attributes, verb: str, signer: str) -> bool:
        domain = signer.split("/")[0] + "/*"
        for name in (signer, domain):
            verdict = await self._authorizer.authorize(
                Question(attributes.user, verb, group=GROUP, version="v1", resource="signers", name=name))
            if verdict.decision is Decision.ALLOW:
                return True
        return False
