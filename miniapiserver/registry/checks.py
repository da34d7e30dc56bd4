"""Validation that needs more than the object's own fields.

My job: a table storage → further problems of a new object, found with libraries the pure strategies may not touch (X.509 through `certs`).
`creation` asks me before the strategy, so that the problems stand in upstream's order.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Any

from certs.errors import InvalidCSR
from certs.requests import CertificateRequest, parse_csr
from miniapiserver.errors import FieldError, Forbidden, invalid

JSON = dict[str, Any]

CSR_STORAGE = "certificatesigningrequests.certificates.k8s.io"
PEM_HEAD = b"-----BEGIN CERTIFICATE REQUEST-----"
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
MASTERS = "system:masters"


def csr_problems(csr: JSON) -> list[FieldError]:
    """`spec.request` must be a PKCS#10 request whose signature holds (`pkg/apis/certificates/validation`).

    Raises Forbidden for a client certificate in system:masters (plugin CertificateSubjectRestriction).
    """
    spec = csr.get("spec") or {}
    text = spec.get("request") or ""
    try:
        request = read_request(text)
    except InvalidCSR as error:
        return [invalid("spec.request", text, str(error))]
    if spec.get("signerName") == CLIENT_SIGNER and MASTERS in request.organizations:
        raise Forbidden.resource("certificatesigningrequests", "certificates.k8s.io", csr["metadata"].get("name", ""),
                                 f"use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")
    return []


def read_request(text: str) -> CertificateRequest:
    """Raises InvalidCSR."""
    try:
        pem = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InvalidCSR(str(error)) from error
    if not pem.lstrip().startswith(PEM_HEAD):
        raise InvalidCSR("PEM block type must be CERTIFICATE REQUEST")
    return parse_csr(pem)


CHECKS: dict[str, Callable[[JSON], list[FieldError]]] = {CSR_STORAGE: csr_problems}


def problems_of(storage: str, obj: JSON) -> list[FieldError]:
    check = CHECKS.get(storage)
    return check(obj) if check is not None else []
