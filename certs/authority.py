"""A certificate authority: a certificate, its key, and what they sign.

My job: build and sign X.509 certificates. I own no files (`layout` names them, `issuance` decides when). Rule: no clock
here; `now` is an argument. Shape of a leaf as kube-controller-manager's signer makes it (pkg/controller/certificates/
authority): subject, key usages, CA:false, authority key id, SANs, and no other extension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.errors import AuthorityError, InvalidCertificate, InvalidCSR, KeyMismatch
from certs.keys import PrivateKey, PublicKey, as_public_key, belong_together, load_private, new_ec_key, private_pem
from certs.layout import read
from certs.profiles import DAY, Profile
from certs.requests import general_names, parse_csr, subject_name

BACKDATE: Final = timedelta(minutes=5)
CA_LIFETIME: Final = 3650 * DAY
# Below this, NotAfter is not shortened by the backdating (signer's `policy`, kubernetes 1.22 and later).
SHORT_LIVED: Final = timedelta(hours=8)

_EXTENDED_USAGES: Final = {
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "s/mime": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "ipsec end system": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.5"),
    "ipsec tunnel": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.6"),
    "ipsec user": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.7"),
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
    "microsoft sgc": x509.ObjectIdentifier("1.3.6.1.4.1.311.10.3.3"),
    "netscape sgc": x509.ObjectIdentifier("2.16.840.1.113730.4.1"),
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}
_KEY_USAGES: Final = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_NO_USAGE: Final = dict.fromkeys(sorted(set(_KEY_USAGES.values())), False)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate (chain) and its private key, in PEM."""

    cert: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that can sign. Immutable; lives as long as its owner wants to sign with it."""

    certificate: x509.Certificate
    key: PrivateKey

    @classmethod
    def load(cls, cert: Path, key: Path) -> Self:
        """Raises AuthorityError if either half is missing, KeyMismatch if they are not halves of one."""
        cert_pem, key_pem = read(cert), read(key)
        if cert_pem is None or key_pem is None:
            raise AuthorityError(_which_half(cert, key, cert_pem, key_pem))
        return cls.parse(KeyPair(cert_pem, key_pem), str(cert), str(key))

    @classmethod
    def parse(cls, pair: KeyPair, cert_name: str, key_name: str) -> Self:
        certificate = load_certificate(pair.cert, cert_name)
        key = load_private(pair.key, key_name)
        if not belong_together(key, public_key_of(certificate, cert_name)):
            raise KeyMismatch(f"{key_name} is not the private key of {cert_name}")
        if not is_ca(certificate):
            raise AuthorityError(f"{cert_name} is not a CA certificate (no basic constraint CA:true)")
        return cls(certificate, key)

    @classmethod
    def create(cls, common_name: str, now: datetime, lifetime: timedelta = CA_LIFETIME) -> Self:
        return cls.renew(common_name, new_ec_key(), now, lifetime)

    @classmethod
    def renew(cls, common_name: str, key: PrivateKey, now: datetime, lifetime: timedelta = CA_LIFETIME) -> Self:
        """A new certificate for `key`: what the old one signed still verifies against it."""
        public = key.public_key()
        name = subject_name(common_name, ())
        builder = (
            _builder(name, name, public, now - BACKDATE, now + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(["digital signature", "key encipherment", "cert sign"]), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            # kubeadm gives its CAs their name as SAN, too.
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
        )
        return cls(builder.sign(key, _hash_for(key)), key)

    @property
    def pair(self) -> KeyPair:
        return KeyPair(certificate_pem(self.certificate), private_pem(self.key))

    def issue(self, profile: Profile, now: datetime) -> KeyPair:
        """A new key and its certificate as `profile` describes them."""
        key = new_ec_key()
        builder = self._leaf(
            subject_name(profile.common_name, profile.organizations),
            key.public_key(),
            ["digital signature", *(usage.value for usage in profile.usages)],
            (now - BACKDATE, now + profile.lifetime),
        )
        names = general_names(profile.dns, profile.ips)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return KeyPair(self._sign(builder), private_pem(key))

    def sign(self, csr_pem: bytes, usages: Sequence[str], lifetime_seconds: float, now: datetime) -> bytes:
        """The certificate a CSR asks for, with Kubernetes' usage names; whether it may have it, the caller decides.

        PEM: the leaf, followed by our own certificate if we are an intermediate. Raises InvalidCSR for a malformed
        request or an unknown usage.
        """
        request = parse_csr(csr_pem)
        unknown = [usage for usage in usages if usage not in _KEY_USAGES and usage not in _EXTENDED_USAGES]
        if unknown:
            raise InvalidCSR(f"unrecognized usage values: {unknown}")
        lifetime = timedelta(seconds=lifetime_seconds)
        end = now + lifetime - (BACKDATE if lifetime >= SHORT_LIVED else timedelta(0))
        # Upstream signs for ten minutes at least. Below that (tests of rotation) five minutes would be most of the
        # life, and a client that rotates at 70 % of it would always be late.
        backdate = min(BACKDATE, lifetime / 2)
        builder = self._leaf(request.name, request.public_key, usages, (now - backdate, end))
        if request.has_sans:
            names: list[x509.GeneralName] = [*general_names(request.dns, request.ips)]
            names += [x509.RFC822Name(email) for email in request.emails]
            names += [x509.UniformResourceIdentifier(uri) for uri in request.uris]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not request.subject)
        return self._sign(builder)

    def has_signed(self, certificate: x509.Certificate) -> bool:
        return is_signed_by(certificate, self.certificate)

    def _leaf(
        self, subject: x509.Name, public: PublicKey, usages: Sequence[str], span: tuple[datetime, datetime]
    ) -> x509.CertificateBuilder:
        start, end = span
        end = min(end, self.certificate.not_valid_after_utc)
        builder = _builder(subject, self.certificate.subject, public, start, end)
        plain = [usage for usage in usages if usage in _KEY_USAGES]
        extended = [_EXTENDED_USAGES[usage] for usage in usages if usage in _EXTENDED_USAGES]
        if plain:
            builder = builder.add_extension(_key_usage(plain), critical=True)
        if extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(dict.fromkeys(extended))), critical=False)
        return builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True).add_extension(
            self._authority_key_identifier(), critical=False
        )

    def _authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            ours = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ours.value)

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        leaf = certificate_pem(builder.sign(self.key, _hash_for(self.key)))
        is_root = self.certificate.subject == self.certificate.issuer
        return leaf if is_root else leaf + certificate_pem(self.certificate)


def load_certificate(pem: bytes, where: str) -> x509.Certificate:
    """The first certificate of a PEM file. Raises InvalidCertificate."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise InvalidCertificate(f"{where}: not a certificate in PEM") from error


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def public_key_of(certificate: x509.Certificate, where: str) -> PublicKey:
    try:
        return as_public_key(certificate.public_key(), where)
    except ValueError as error:
        raise InvalidCertificate(f"{where}: unreadable public key") from error


def is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _builder(
    subject: x509.Name, issuer: x509.Name, public: PublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(start, end))
        .not_valid_after(end)
    )


def _key_usage(usages: Sequence[str]) -> x509.KeyUsage:
    flags = _NO_USAGE | {_KEY_USAGES[usage]: True for usage in usages}
    # X.509 defines the last two bits only beside key agreement.
    if flags["encipher_only"] or flags["decipher_only"]:
        flags["key_agreement"] = True
    return x509.KeyUsage(**flags)


def _hash_for(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _which_half(cert: Path, key: Path, cert_pem: bytes | None, key_pem: bytes | None) -> str:
    if cert_pem is None and key_pem is None:
        return f"no CA: neither {cert} nor {key} exists"
    present, absent = (key, cert) if cert_pem is None else (cert, key)
    return f"{present} exists without {absent}: put it back, or move {present} away to begin with a new CA"
