"""Certificate signing requests: made by who wants an identity, read by who signs.

My job: PKCS#10 in and out. I own no files and decide nothing; `authority` signs, the signer's rules are its caller's.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs.errors import InvalidCSR, InvalidKey
from certs.keys import PublicKey, as_public_key, load_private, new_ec_key, private_pem

# A request with a 16k RSA key and a hundred names fits in a tenth of this.
MAX_CSR_BYTES: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What a CSR asks for; its signature has been verified. Lives while someone decides about it."""

    common_name: str
    organizations: tuple[str, ...]
    dns: tuple[str, ...]
    ips: tuple[str, ...]
    emails: tuple[str, ...]
    uris: tuple[str, ...]
    subject: str
    key_type: str
    name: x509.Name
    public_key: PublicKey

    @property
    def has_sans(self) -> bool:
        return bool(self.dns or self.ips or self.emails or self.uris)


def new_key() -> bytes:
    """A new EC P-256 private key in PEM."""
    return private_pem(new_ec_key())


def new_csr(
    key_pem: bytes,
    common_name: str,
    organizations: Sequence[str] = (),
    dns: Sequence[str] = (),
    ips: Sequence[str] = (),
) -> bytes:
    key = load_private(key_pem, "key of the signing request")
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject_name(common_name, organizations))
    names = general_names(dns, ips)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


def parse_csr(pem: bytes) -> CertificateRequest:
    """Raises InvalidCSR for anything but one well-formed, self-signed request with a key of a known type."""
    if len(pem) > MAX_CSR_BYTES:
        raise InvalidCSR(f"signing request of {len(pem)} bytes; at most {MAX_CSR_BYTES} are read")
    try:
        csr = x509.load_pem_x509_csr(pem)
        if not csr.is_signature_valid:
            raise InvalidCSR("signature of the signing request does not match its key")
        return _describe(csr)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.DuplicateExtension) as error:
        raise InvalidCSR(f"not a certificate signing request: {error}") from error
    except (InvalidKey, x509.UnsupportedGeneralNameType) as error:
        raise InvalidCSR(f"signing request asks for what is not signed here: {error}") from error


def _describe(csr: x509.CertificateSigningRequest) -> CertificateRequest:
    sans = _sans(csr)
    public_key = as_public_key(csr.public_key(), "signing request")
    return CertificateRequest(
        common_name=common_name_of(csr.subject),
        organizations=organizations_of(csr.subject),
        dns=tuple(sans.get_values_for_type(x509.DNSName)),
        ips=tuple(str(ip) for ip in sans.get_values_for_type(x509.IPAddress)),
        emails=tuple(sans.get_values_for_type(x509.RFC822Name)),
        uris=tuple(sans.get_values_for_type(x509.UniformResourceIdentifier)),
        subject=csr.subject.rfc4514_string(),
        key_type=_key_type(public_key),
        name=csr.subject,
        public_key=public_key,
    )


def _sans(csr: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName:
    try:
        return csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _key_type(key: PublicKey) -> str:
    match key:
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"EC {key.curve.name}"
        case _:
            return "Ed25519"


def subject_name(common_name: str, organizations: Sequence[str]) -> x509.Name:
    """Organizations first, as Go's pkix.Name is serialized: one RDN holds them all, sorted by DER."""
    common = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    if not organizations:
        return x509.Name([common])
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in dict.fromkeys(organizations)]
    return x509.Name([x509.RelativeDistinguishedName(attributes), common])


def general_names(dns: Sequence[str], ips: Sequence[str]) -> list[x509.GeneralName]:
    return [*(x509.DNSName(name) for name in dns), *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips)]


def common_name_of(name: x509.Name) -> str:
    """The last CN, as Go's pkix.Name.FillFromRDNSequence leaves it; empty if there is none."""
    values = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(values[-1].value) if values else ""


def organizations_of(name: x509.Name) -> tuple[str, ...]:
    return tuple(str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
