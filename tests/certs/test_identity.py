"""Who a client certificate is, and every way in which it is nobody."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs.authority import Authority
from certs.errors import InvalidCertificate, NoIdentity, UnverifiedCertificate
from certs.identity import UID_OID, CertificateIdentity, ClientCAs
from certs.requests import new_csr, new_key

NOW = datetime.now(UTC)


def unsigned(
    subject: list[x509.NameAttribute], issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(hours=1))
    )


class Signed:
    """A CA on disk, and certificates of it made without any of our rules."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.authority = Authority.create("kubernetes", NOW)
        self.path = folder / f"{name}.crt"
        self.path.write_bytes(self.authority.pair.cert)

    def leaf(self, subject: list[x509.NameAttribute]) -> x509.CertificateBuilder:
        return unsigned(subject, self.authority.certificate.subject, ec.generate_private_key(ec.SECP256R1()))

    def sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self.authority.key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.fixture
def ca(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


def name(common_name: str, *organizations: str) -> list[x509.NameAttribute]:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return [*groups, x509.NameAttribute(NameOID.COMMON_NAME, common_name)]


CLIENT = x509.ExtendedKeyUsage([x509.OID_CLIENT_AUTH])


def test_a_signed_request_is_its_common_name_and_organizations(ca: Signed) -> None:
    csr = new_csr(new_key(), "jane", ["dev", "ops"])
    pem = ca.authority.sign(csr, ["digital signature", "client auth"], 3600, NOW)
    certificate = x509.load_pem_x509_certificate(pem)
    identity = ClientCAs([ca.path]).authenticate(certificate.public_bytes(Encoding.DER))
    assert identity == CertificateIdentity("jane", ("dev", "ops"), "", certificate.fingerprint(hashes.SHA256()).hex())


def test_the_uid_attribute_is_the_uid(ca: Signed) -> None:
    subject = [*name("jane"), x509.NameAttribute(UID_OID, "u-1")]
    assert ClientCAs([ca.path]).authenticate(ca.sign(ca.leaf(subject))).uid == "u-1"


def test_two_uids_are_refused(ca: Signed) -> None:
    subject = [*name("jane"), x509.NameAttribute(UID_OID, "u-1"), x509.NameAttribute(UID_OID, "u-2")]
    with pytest.raises(UnverifiedCertificate, match="multiple"):
        ClientCAs([ca.path]).authenticate(ca.sign(ca.leaf(subject)))


def test_no_common_name_is_no_opinion(ca: Signed) -> None:
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters")]
    with pytest.raises(NoIdentity):
        ClientCAs([ca.path]).authenticate(ca.sign(ca.leaf(subject)))


def test_without_any_extended_usage_every_use_is_allowed_as_in_go(ca: Signed) -> None:
    assert ClientCAs([ca.path]).authenticate(ca.sign(ca.leaf(name("jane")))).user == "jane"


def test_a_serving_certificate_is_no_client(ca: Signed) -> None:
    builder = ca.leaf(name("system:node:n", "system:nodes"))
    serving = ca.sign(builder.add_extension(x509.ExtendedKeyUsage([x509.OID_SERVER_AUTH]), critical=False))
    with pytest.raises(UnverifiedCertificate, match="incompatible key usage"):
        ClientCAs([ca.path]).authenticate(serving)
    client = ca.sign(builder.add_extension(CLIENT, critical=False))
    assert ClientCAs([ca.path]).authenticate(client).user == "system:node:n"


def test_another_ca_of_the_same_name_is_refused(ca: Signed, tmp_path: Path) -> None:
    attacker = Signed(tmp_path, "attacker")
    forged = attacker.sign(attacker.leaf(name("kubernetes-admin", "system:masters")))
    with pytest.raises(UnverifiedCertificate, match="unknown authority"):
        ClientCAs([ca.path]).authenticate(forged)
    assert ClientCAs([ca.path, attacker.path]).authenticate(forged).groups == ("system:masters",)


def test_trustmes_certificate_is_refused(ca: Signed) -> None:
    pem = trustme.CA().issue_cert(common_name="kubernetes-admin").cert_chain_pems[0].bytes()
    with pytest.raises(UnverifiedCertificate, match="unknown authority"):
        ClientCAs([ca.path]).authenticate(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))


def test_a_self_signed_certificate_is_refused(ca: Signed) -> None:
    key, subject = ec.generate_private_key(ec.SECP256R1()), name("kubernetes-admin", "system:masters")
    der = unsigned(subject, x509.Name(subject), key).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(UnverifiedCertificate, match="unknown authority"):
        ClientCAs([ca.path]).authenticate(der)


@pytest.mark.parametrize(("hours", "words"), [(2, "is after"), (-2, "is before")])
def test_time_is_checked_at_each_use_not_once(ca: Signed, hours: int, words: str) -> None:
    clock = NOW.timestamp()
    cas = ClientCAs([ca.path], clock=lambda: clock)
    der = ca.sign(ca.leaf(name("jane")))
    assert cas.authenticate(der).user == "jane"
    clock += hours * 3600
    with pytest.raises(UnverifiedCertificate, match=words):
        cas.authenticate(der)


def test_an_unknown_critical_extension_is_refused_and_a_plain_one_is_not(ca: Signed) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    builder = ca.leaf(name("jane"))
    with pytest.raises(UnverifiedCertificate, match="critical"):
        ClientCAs([ca.path]).authenticate(ca.sign(builder.add_extension(unknown, critical=True)))
    assert ClientCAs([ca.path]).authenticate(ca.sign(builder.add_extension(unknown, critical=False))).user == "jane"


def test_a_leaf_cannot_sign_another(ca: Signed) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    middle = unsigned(name("middle"), ca.authority.certificate.subject, key)
    as_leaf, as_ca = (
        ca.sign(middle.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True))
        for is_ca in (False, True)
    )
    forged = unsigned(name("kubernetes-admin", "system:masters"), x509.Name(name("middle")), key)
    der = forged.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(UnverifiedCertificate, match="not authorized to sign"):
        ClientCAs([ca.path]).authenticate(der, [as_leaf])
    assert ClientCAs([ca.path]).authenticate(der, [as_ca]).user == "kubernetes-admin"


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"garbage" * 100])
def test_garbage_is_refused(ca: Signed, der: bytes) -> None:
    with pytest.raises(UnverifiedCertificate, match="malformed"):
        ClientCAs([ca.path]).authenticate(der)


def test_any_flipped_byte_is_refused_or_names_the_same_user(ca: Signed) -> None:
    der, cas = ca.sign(ca.leaf(name("jane", "dev"))), ClientCAs([ca.path])
    for position in range(0, len(der), 7):
        flipped = bytearray(der)
        flipped[position] ^= 0x01
        with pytest.raises(UnverifiedCertificate):
            cas.authenticate(bytes(flipped))


def test_a_changed_bundle_is_read_again_and_a_broken_one_is_not(ca: Signed, tmp_path: Path) -> None:
    other = Signed(tmp_path, "other")
    cas = ClientCAs([ca.path])
    der = ca.sign(ca.leaf(name("jane")))
    assert cas.authenticate(der).user == "jane"
    _replace(ca.path, b"half a cert", cas)
    assert cas.authenticate(der).user == "jane"
    _replace(ca.path, other.path.read_bytes(), cas)
    with pytest.raises(UnverifiedCertificate):
        cas.authenticate(der)


def _replace(path: Path, content: bytes, cas: ClientCAs) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(time.time_ns(), time.time_ns()))
    cas._checked_at = float("-inf")  # a second passes


def test_a_missing_bundle_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidCertificate, match="no such CA bundle"):
        ClientCAs([tmp_path / "absent.crt"])
