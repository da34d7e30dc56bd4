"""Look at what lies in a state directory: does each certificate still hold, and what does it say?

My job: the answers of `check` and `show`. Reads only; changes nothing. `issuance` is what repairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs import keys, kubeconfig
from certs.authority import is_ca, is_signed_by, load_certificate, public_key_of
from certs.errors import CertsError, InvalidCertificate, KubeconfigError
from certs.layout import FilePair, Layout, read
from certs.profiles import Signer, signers

_SHORT_NAMES = {x509.OID_SERVER_AUTH: "server auth", x509.OID_CLIENT_AUTH: "client auth"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One certificate and what is wrong with it; an empty `problem` is good news."""

    name: str
    path: str
    problem: str = ""

    def as_json(self) -> dict[str, str]:
        return {"name": self.name, "path": self.path, "problem": self.problem}


@dataclass(frozen=True, slots=True)
class Description:
    """What a certificate says, in words."""

    path: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    usages: tuple[str, ...]
    is_ca: bool
    not_before: datetime
    not_after: datetime
    fingerprint_sha256: str

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "subject": self.subject,
            "issuer": self.issuer,
            "names": list(self.names),
            "usages": list(self.usages),
            "ca": self.is_ca,
            "notBefore": f"{self.not_before:%Y-%m-%dT%H:%M:%SZ}",
            "notAfter": f"{self.not_after:%Y-%m-%dT%H:%M:%SZ}",
            "fingerprintSHA256": self.fingerprint_sha256,
        }

    def as_text(self) -> str:
        fields = [
            ("subject", self.subject),
            ("issuer", self.issuer),
            ("names", ", ".join(self.names) or "-"),
            ("usages", "CA" if self.is_ca else ", ".join(self.usages) or "any"),
            ("valid", f"{self.not_before:%Y-%m-%d %H:%M}Z to {self.not_after:%Y-%m-%d %H:%M}Z"),
            ("sha256", self.fingerprint_sha256),
        ]
        return "".join(f"{line}\n" for line in [self.path, *(f"  {name:<8} {value}" for name, value in fields)])


def files_of(layout: Layout) -> list[Path]:
    """Every file below the state directory that holds a certificate."""
    found = sorted(layout.pki.glob("**/*.crt"))
    found += sorted(path for path in layout.state_dir.glob("*.conf") if path != layout.bootstrap_kubelet)
    return (
        found
        + sorted(layout.state_dir.glob("nodes/*/pki/*.crt"))
        + sorted(layout.state_dir.glob("nodes/*/pki/kubelet-client-current.pem"))
    )


def check(layout: Layout, now: datetime) -> list[Finding]:
    authorities = {name: files for name, files in signers(layout).items() if read(files.cert) is not None}
    if not authorities:
        return [Finding("ca", str(layout.ca.cert), "no cluster here: no CA certificate")]
    return [_finding(path, layout, authorities, now) for path in files_of(layout)]


def describe(path: Path) -> Description:
    certificate = _certificate_in(path)
    return Description(
        path=str(path),
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=_names(certificate),
        usages=_usages(certificate),
        is_ca=is_ca(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint_sha256=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def _finding(path: Path, layout: Layout, authorities: dict[Signer, FilePair], now: datetime) -> Finding:
    name = str(path.relative_to(layout.state_dir))
    try:
        return Finding(name, str(path), next(_problems(path, authorities, now), ""))
    except CertsError as error:
        return Finding(name, str(path), str(error))


def _problems(path: Path, authorities: dict[Signer, FilePair], now: datetime) -> Iterator[str]:
    certificate = _certificate_in(path)
    if now >= certificate.not_valid_after_utc:
        yield f"expired {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        yield f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    if not keys.belong_together(_key_beside(path), public_key_of(certificate, str(path))):
        yield "the private key does not belong to it"
    issuers = [load_certificate(_content(files.cert), str(files.cert)) for files in authorities.values()]
    if not any(is_signed_by(certificate, issuer) for issuer in issuers):
        yield "signed by none of this cluster's CAs"
    if _key_file(path).stat().st_mode & 0o077:
        yield f"others can read {_key_file(path).name}"


def _key_file(path: Path) -> Path:
    return path.with_suffix(".key") if path.suffix == ".crt" else path


def _key_beside(path: Path) -> keys.PrivateKey:
    if path.suffix == ".conf":
        pem = kubeconfig.load(path).credentials().client_key
        if pem is None:
            raise KubeconfigError(f"{path} names no client key")
    else:
        pem = _content(_key_file(path))
    return keys.load_private(pem, str(path))


def _certificate_in(path: Path) -> x509.Certificate:
    if path.suffix == ".conf":
        pem = kubeconfig.load(path).credentials().client_cert
        if pem is None:
            raise KubeconfigError(f"{path} names no client certificate")
    else:
        pem = _content(path)
    return load_certificate(pem, str(path))


def _content(path: Path) -> bytes:
    content = read(path)
    if content is None:
        raise InvalidCertificate(f"{path} does not exist")
    return content


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses: Sequence[object] = sans.get_values_for_type(x509.IPAddress)
    return (*sans.get_values_for_type(x509.DNSName), *(str(address) for address in addresses))


def _usages(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(_SHORT_NAMES.get(usage, usage.dotted_string) for usage in usages)
