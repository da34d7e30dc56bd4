"""certificates.k8s.io/v1: CertificateSigningRequests.

My job: who may set which field through which endpoint, and the rules of fields. That a request is a well-signed
PKCS#10 is asked through `check_request`, because keys and signatures belong to `certs`.
"""

from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Callable
from typing import Any

from miniapiserver.errors import FieldError, duplicate, forbidden_field, invalid, not_supported, required, too_long
from miniapiserver.resources.columns import AGE, NONE, age, column, duration, table
from miniapiserver.resources.kinds import READ_WRITE, Group, select, status_of
from miniapiserver.resources.names import dns_label, dns_subdomain, path_segment_name
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.resource import Resource, Subresource, WriteContext
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]
#: Given the PEM of a request, what is wrong with it; empty if nothing is
CheckRequest = Callable[[bytes], str]

CERTIFICATES = Group("certificates.k8s.io", "v1", "io.k8s.api.certificates")
USAGES = ("any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
          "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
          "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
          "server auth", "signing", "timestamping")
_LEGACY = "kubernetes.io/legacy-unknown"
_BEGIN = b"-----BEGIN CERTIFICATE REQUEST-----"
_DECIDED = ("Approved", "Denied")
_TRUE_ONLY = ("Approved", "Denied", "Failed")
_MIN_SECONDS = 600


def signer_name_errors(name: str, path: str) -> list[FieldError]:
    if not name:
        return [required(path)]
    if name.count("/") != 1:
        return [invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")]
    domain, _, tail = name.partition("/")
    errors = [too_long(path, 253)] if len(domain) > 253 else []
    labels = domain.split(".")
    errors += [
        invalid(path, domain, f'validating label "{label}": {words}') for label in labels for words in dns_label(label)
    ]
    if len(labels) < 2:
        errors.append(invalid(path, domain, "should be a domain with at least two segments separated by dots"))
    errors += [
        invalid(path, tail, f'validating label "{label}": {words}')
        for label in tail.split(".")
        for words in dns_subdomain(label)
    ]
    return errors


class CertificateSigningRequestStrategy(ObjectStrategy):
    def __init__(self, check_request: CheckRequest | None = None) -> None:
        super().__init__(namespaced=False, names=path_segment_name, status=True)
        self.check_request = check_request

    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        spec["signerName"] = spec.get("signerName") or ""
        spec.setdefault("request", None)
        for condition in (obj.get("status") or {}).get("conditions") or ():
            if condition is not None:
                condition.setdefault("lastUpdateTime", None)
                condition.setdefault("lastTransitionTime", None)

    def prepare_for_create(self, obj: JSON, context: WriteContext) -> None:
        """Who asks is what authentication says, whatever the body says."""
        obj["status"] = {}
        spec = obj["spec"]
        for key in ("username", "uid", "groups", "extra"):
            spec.pop(key, None)
        caller = {"username": context.user, "uid": context.uid, "groups": list(context.groups),
                  "extra": {key: list(values) for key, values in context.extra.items()}}
        spec.update((key, value) for key, value in caller.items() if value)

    def prepare_for_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        super().prepare_for_update(obj, old, context)
        obj["spec"] = old.get("spec") or {}

    def prepare_for_status_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        """`/approval` decides and does nothing else; `/status` does everything else and does not decide."""
        super().prepare_for_status_update(obj, old, context)
        before, status = old.get("status") or {}, obj.get("status") or {}
        new, had = objects(status.get("conditions")), objects(before.get("conditions"))
        if context.subresource == "approval":
            status = {key: value for key, value in before.items() if key != "conditions"}
            mine = [item for item in new if item.get("type") in _DECIDED]
            conditions = [item for item in had if item.get("type") not in _DECIDED] + mine
        else:
            status = dict(status)
            conditions = [item for item in had if item.get("type") in _DECIDED] + [
                item for item in new if item.get("type") not in _DECIDED]
        status.pop("conditions", None)
        if conditions:
            status["conditions"] = [_stamped(item, had, context.now) for item in conditions]
        obj["status"] = status

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = self._request_errors(spec.get("request") or "")
        errors += _usage_errors(spec.get("usages"))
        if (signer := spec.get("signerName") or "") == _LEGACY:
            errors.append(
                invalid("spec.signerName", signer, "the legacy signerName is not allowed via this API version")
            )
        else:
            errors += signer_name_errors(signer, "spec.signerName")
        if (seconds := spec.get("expirationSeconds")) is not None and seconds < _MIN_SECONDS:
            errors.append(
                invalid(
                    "spec.expirationSeconds", seconds, "may not specify a duration less than 600 seconds (10 minutes)"
                )
            )
        return errors

    def _request_errors(self, request: str) -> list[FieldError]:
        try:
            pem = b64decode(request)
        except (ValueError, BadBase64):
            pem = b""
        words = "PEM block type must be CERTIFICATE REQUEST"
        if _BEGIN in pem:
            words = self.check_request(pem) if self.check_request else ""
        return [invalid("spec.request", request, words)] if words else []

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        return []  # only metadata can have changed

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        status, before = obj.get("status") or {}, old.get("status") or {}
        conditions, had = objects(status.get("conditions")), objects(before.get("conditions"))
        errors = _condition_errors(conditions)
        for kind in _TRUE_ONLY:
            if any(item.get("type") == kind for item in had) and not any(
                item.get("type") == kind for item in conditions
            ):
                errors.append(
                    forbidden_field("status.conditions", f'updates may not remove a condition of type "{kind}"')
                )
        new, held = status.get("certificate"), before.get("certificate")
        if held and new != held:
            errors.append(forbidden_field("status.certificate", "updates may not modify existing certificate content"))
        elif new and not held:
            errors += _certificate_errors(new)
        return errors


def _stamped(condition: JSON, before: list[JSON], now: str) -> JSON:
    same = next((item for item in before if item.get("type") == condition.get("type")
                 and item.get("status") == condition.get("status")), None)
    stamped = dict(condition)
    if not stamped.get("lastUpdateTime"):
        stamped["lastUpdateTime"] = now
    if not stamped.get("lastTransitionTime"):
        stamped["lastTransitionTime"] = same.get("lastTransitionTime") or now if same else now
    return stamped


def _usage_errors(usages: Any) -> list[FieldError]:
    listed = [usage or "" for usage in usages or ()]
    if not listed:
        return [required("spec.usages")]
    errors = [
        not_supported(f"spec.usages[{index}]", usage, USAGES)
        for index, usage in enumerate(listed)
        if usage not in USAGES
    ]
    return errors + [
        duplicate(f"spec.usages[{index}]", usage) for index, usage in enumerate(listed) if usage in listed[:index]
    ]


def _condition_errors(conditions: list[JSON]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        path, kind, status = f"status.conditions[{index}]", condition.get("type") or "", condition.get("status") or ""
        if not kind:
            errors.append(required(f"{path}.type"))
        allowed = ("True",) if kind in _TRUE_ONLY else ("False", "True", "Unknown")
        if not status:
            errors.append(required(f"{path}.status"))
        elif status not in allowed:
            errors.append(not_supported(f"{path}.status", status, allowed))
        if kind in _DECIDED and any(other in seen for other in _DECIDED if other != kind):
            errors.append(invalid(f"{path}.type", kind, "Approved and Denied conditions are mutually exclusive"))
        if kind in seen:
            errors.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
    return errors


def _certificate_errors(encoded: str) -> list[FieldError]:
    """A chain of PEM certificates and nothing between them."""
    path, shown = "status.certificate", "<certificate data>"
    try:
        lines = b64decode(encoded).decode("ascii").splitlines()
    except (ValueError, BadBase64):
        lines = []
    begins = [line for line in lines if line.startswith("-----BEGIN ")]
    if not begins:
        return [invalid(path, shown, "must contain at least one CERTIFICATE PEM block")]
    for line in begins:
        kind = line.removeprefix("-----BEGIN ").removesuffix("-----")
        if kind != "CERTIFICATE":
            return [invalid(path, shown, f'only CERTIFICATE PEM blocks are allowed, found "{kind}"')]
    if any(":" in line for line in lines):
        return [invalid(path, shown, "no PEM block headers are permitted")]
    return []


def condition_text(status: JSON) -> str:
    """Approved, Denied or Failed, else Pending; and whether the certificate is there."""
    found = {item.get("type") for item in objects(status.get("conditions"))}
    if "Denied" in found:
        words = ["Denied"]
    else:
        words = ["Approved"] if "Approved" in found else ["Pending"]
    words += ["Failed"] if "Failed" in found else []
    words += ["Issued"] if status.get("certificate") else []
    return ",".join(words)


def _cells(obj: JSON, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    seconds = spec.get("expirationSeconds")
    return [age(obj, now), spec.get("signerName") or NONE, spec.get("username") or "",
            NONE if seconds is None else duration(seconds), condition_text(obj.get("status") or {})]


_TABLE = table(
    AGE, column("SignerName", "CertificateSigningRequestSpec.signerName"),
    column("Requestor", "CertificateSigningRequestSpec.request"),
    column("RequestedDuration", "CertificateSigningRequestSpec.expirationSeconds"),
    column("Condition", "CertificateSigningRequestStatus.conditions"), cells=_cells)


def rows(check_request: CheckRequest | None = None) -> tuple[Resource, ...]:
    kind = "CertificateSigningRequest"
    return (
        CERTIFICATES.row(
            kind,
            "certificatesigningrequests",
            CertificateSigningRequestStrategy(check_request),
            namespaced=False,
            table=_TABLE,
            short=("csr",),
            subresources=(Subresource("approval", kind, READ_WRITE), status_of(kind)),
            selectable=select({"spec.signerName": ("spec", "signerName")}),
            fields=("spec.signerName",),
        ),
    )
