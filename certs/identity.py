"""Who is behind a client certificate: the x509 authenticator's rules.

My job: verify a chain against CA files and read user, groups and uid off the leaf (apiserver
`pkg/authentication/request/x509`, Go's `crypto/x509` Verify). I own the parsed CAs and a small cache of verdicts;
nothing else. Rule: whatever is not understood is refused.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs.authority import is_signed_by
from certs.errors import InvalidCertificate, NoIdentity, UnverifiedCertificate
from certs.layout import read
from certs.requests import common_name_of, organizations_of

# Feature AllowParsingUserUIDFromCertAuth (kubernetes 1.33).
UID_OID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")
MAX_CHAIN: Final = 8
CACHED_VERDICTS: Final = 1024
# How long a changed CA file may go unnoticed; kube-apiserver's file watchers take as long.
RECHECK_SECONDS: Final = 1.0

# What we act upon. Any other critical extension must make a verifier refuse (RFC 5280 section 4.2).
_UNDERSTOOD: Final = frozenset(
    {
        x509.OID_BASIC_CONSTRAINTS,
        x509.OID_KEY_USAGE,
        x509.OID_EXTENDED_KEY_USAGE,
        x509.OID_SUBJECT_ALTERNATIVE_NAME,
    }
)
_FITS_CLIENT: Final = frozenset({x509.OID_CLIENT_AUTH, x509.ObjectIdentifier("2.5.29.37.0")})
# Go refuses both since 1.18 (x509.InsecureAlgorithmError).
_BROKEN_HASHES: Final = (hashes.MD5, hashes.SHA1)


@dataclass(frozen=True, slots=True)
class CertificateIdentity:
    """The user a verified client certificate names."""

    user: str
    groups: tuple[str, ...]
    uid: str
    fingerprint_sha256: str


@dataclass(frozen=True, slots=True)
class _Verdict:
    identity: CertificateIdentity
    not_before: datetime
    not_after: datetime


@dataclass(slots=True)
class ClientCAs:
    """The CAs whose client certificates are believed. Lives as long as its server; re-reads files that change.

    While a file is unreadable or broken the CAs read before stay in force, as in kube-apiserver.
    """

    paths: Sequence[Path | str]
    clock: Callable[[], float] = time.time
    _roots: tuple[x509.Certificate, ...] = field(default=(), init=False)
    _stamp: tuple[object, ...] = field(default=(), init=False)
    _checked_at: float = field(default=float("-inf"), init=False)
    _verdicts: OrderedDict[bytes, _Verdict] = field(default_factory=OrderedDict, init=False)

    def __post_init__(self) -> None:
        self._stamp, self._roots = self._stamps(), self._load()

    def authenticate(self, der: bytes, intermediates: Sequence[bytes] = ()) -> CertificateIdentity:
        """Raises UnverifiedCertificate (its subclass NoIdentity if the subject is empty)."""
        self._reload_if_changed()
        now = datetime.fromtimestamp(self.clock(), UTC)
        key = sha256(b"".join([der, *intermediates])).digest() if intermediates else sha256(der).digest()
        verdict = self._verdicts.get(key)
        if verdict is None or not verdict.not_before <= now <= verdict.not_after:
            verdict = self._verify(der, intermediates, now)
            self._remember(key, verdict)
        return verdict.identity

    def _remember(self, key: bytes, verdict: _Verdict) -> None:
        self._verdicts[key] = verdict
        if len(self._verdicts) > CACHED_VERDICTS:
            self._verdicts.popitem(last=False)

    def _verify(self, der: bytes, intermediates: Sequence[bytes], now: datetime) -> _Verdict:
        leaf = _parse(der)
        between = [_parse(one) for one in intermediates[:MAX_CHAIN]]
        chain = _chain(leaf, between, self._roots)
        for position, certificate in enumerate(chain):
            _check(certificate, position, now)
        return _Verdict(
            _identity(leaf),
            max(certificate.not_valid_before_utc for certificate in chain),
            min(certificate.not_valid_after_utc for certificate in chain),
        )

    def _reload_if_changed(self) -> None:
        now = time.monotonic()
        if now - self._checked_at < RECHECK_SECONDS:
            return
        self._checked_at = now
        stamp = self._stamps()
        if stamp == self._stamp:
            return
        try:
            self._roots = self._load()
        except InvalidCertificate:
            return  # half-written: looked at again in a second
        self._stamp = stamp
        self._verdicts.clear()

    def _stamps(self) -> tuple[object, ...]:
        stamps: list[object] = []
        for path in self.paths:
            try:
                status = Path(path).stat()
                stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                stamps.append(None)
        return tuple(stamps)

    def _load(self) -> tuple[x509.Certificate, ...]:
        return tuple(certificate for path in self.paths for certificate in load_bundle(Path(path)))


def load_bundle(path: Path) -> list[x509.Certificate]:
    """Every certificate of a PEM bundle. Raises InvalidCertificate if there is none."""
    content = read(path)
    if content is None:
        raise InvalidCertificate(f"{path}: no such CA bundle")
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise InvalidCertificate(f"{path}: no certificate in PEM") from error


def _parse(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions, certificate.subject, certificate.issuer  # parsed lazily, so: now
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise UnverifiedCertificate(f"x509: malformed certificate: {error}") from error
    return certificate


def _chain(
    leaf: x509.Certificate, between: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """Leaf to root, by issuer. Depth first; bounded, since each intermediate is used at most once."""
    if leaf in roots:
        return [leaf]
    for root in roots:
        if is_signed_by(leaf, root) and _is_strong(leaf):
            return [leaf, root]
    for index, candidate in enumerate(between):
        if candidate != leaf and is_signed_by(leaf, candidate) and _is_strong(leaf):
            rest = [*between[:index], *between[index + 1 :]]
            try:
                return [leaf, *_chain(candidate, rest, roots)]
            except UnverifiedCertificate:
                continue
    raise UnverifiedCertificate("x509: certificate signed by unknown authority")


def _is_strong(certificate: x509.Certificate) -> bool:
    return not isinstance(certificate.signature_hash_algorithm, _BROKEN_HASHES)


def _check(certificate: x509.Certificate, position: int, now: datetime) -> None:
    """One link of the chain: its time, its critical extensions, and that it may be where it is."""
    if now < certificate.not_valid_before_utc:
        raise UnverifiedCertificate(
            f"x509: certificate has expired or is not yet valid: current time {_rfc3339(now)} "
            f"is before {_rfc3339(certificate.not_valid_before_utc)}"
        )
    if now > certificate.not_valid_after_utc:
        raise UnverifiedCertificate(
            f"x509: certificate has expired or is not yet valid: current time {_rfc3339(now)} "
            f"is after {_rfc3339(certificate.not_valid_after_utc)}"
        )
    if any(extension.critical and extension.oid not in _UNDERSTOOD for extension in certificate.extensions):
        raise UnverifiedCertificate("x509: unhandled critical extension")
    # Go accepts a certificate without any extended key usage as fit for every use (checkChainForKeyUsage).
    usages = _extended_usages(certificate)
    if usages is not None and not _FITS_CLIENT.intersection(usages):
        raise UnverifiedCertificate("x509: certificate specifies an incompatible key usage")
    if position > 0:
        _check_issuer(certificate, certificates_below=position - 1)


def _check_issuer(certificate: x509.Certificate, certificates_below: int) -> None:
    """`certificates_below` counts the intermediates between this CA and the leaf (RFC 5280 pathLenConstraint)."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if not constraints.ca:
        raise UnverifiedCertificate("x509: certificate is not authorized to sign other certificates")
    if constraints.path_length is not None and certificates_below > constraints.path_length:
        raise UnverifiedCertificate("x509: too many intermediates for path length constraint")
    try:
        may_sign = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True
    if not may_sign:
        raise UnverifiedCertificate("x509: certificate is not authorized to sign other certificates")


def _extended_usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier] | None:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return None


def _identity(leaf: x509.Certificate) -> CertificateIdentity:
    user = common_name_of(leaf.subject)
    if not user:
        raise NoIdentity("x509: the subject has no common name")
    return CertificateIdentity(
        user=user,
        groups=organizations_of(leaf.subject),
        uid=_uid(leaf.subject),
        fingerprint_sha256=leaf.fingerprint(hashes.SHA256()).hex(),
    )


def _uid(subject: x509.Name) -> str:
    values = [attribute.value for attribute in subject.get_attributes_for_oid(UID_OID)]
    if not values:
        return ""
    if len(values) > 1:
        raise UnverifiedCertificate("x509: expected 1 UID, but found multiple")
    if not isinstance(values[0], str) or not values[0]:
        raise UnverifiedCertificate("x509: the UID is empty or not a string")
    return values[0]


def _rfc3339(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
