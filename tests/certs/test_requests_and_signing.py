"""A CSR there, a certificate back, with Kubernetes' usages and lifetimes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from certs.authority import Authority, certificate_pem
from certs.errors import AuthorityError, InvalidCSR, KeyMismatch
from certs.requests import MAX_CSR_BYTES, new_csr, new_key, parse_csr

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
CLIENT = ["digital signature", "client auth"]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("kubernetes", NOW)


def sign(authority: Authority, csr: bytes, usages: list[str] = CLIENT, seconds: float = 3600) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.sign(csr, usages, seconds, NOW))


def test_a_request_is_read_as_it_was_written() -> None:
    request = parse_csr(new_csr(new_key(), "system:node:n", ["system:nodes"], ["n"], ["10.0.0.1", "::1"]))
    assert (request.common_name, request.organizations) == ("system:node:n", ("system:nodes",))
    assert (request.dns, request.ips, request.emails, request.uris) == (("n",), ("10.0.0.1", "::1"), (), ())
    assert request.has_sans and request.key_type == "EC secp256r1"


def test_a_signed_certificate_is_as_kubernetes_signer_makes_it(authority: Authority) -> None:
    certificate = sign(authority, new_csr(new_key(), "system:node:n", ["system:nodes"]))
    extensions = {extension.oid for extension in certificate.extensions}
    assert extensions == {
        x509.OID_BASIC_CONSTRAINTS, x509.OID_KEY_USAGE, x509.OID_EXTENDED_KEY_USAGE, x509.OID_AUTHORITY_KEY_IDENTIFIER,
    }  # fmt: skip
    assert certificate.subject.rfc4514_string() == "CN=system:node:n,O=system:nodes"
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and not usage.key_encipherment and not usage.key_cert_sign


def test_names_are_those_of_the_request(authority: Authority) -> None:
    certificate = sign(authority, new_csr(new_key(), "x", [], ["a.example"], ["10.1.2.3"]))
    sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sans.get_values_for_type(x509.DNSName) == ["a.example"]


@pytest.mark.parametrize(("seconds", "shorter"), [(600, 0), (28799, 0), (28800, 300), (86400, 300)])
def test_backdating_shortens_only_long_lives(authority: Authority, seconds: int, shorter: int) -> None:
    certificate = sign(authority, new_csr(new_key(), "x"), seconds=seconds)
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == NOW + timedelta(seconds=seconds - shorter)


def test_no_certificate_outlives_its_ca() -> None:
    authority = Authority.create("short", NOW, timedelta(hours=1))
    assert sign(authority, new_csr(new_key(), "x"), seconds=86400).not_valid_after_utc == NOW + timedelta(hours=1)


def test_a_request_for_a_ca_gets_a_leaf(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil")])
    )
    csr = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = sign(authority, csr.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_an_unknown_usage_is_refused(authority: Authority) -> None:
    with pytest.raises(InvalidCSR, match="unrecognized usage values"):
        authority.sign(new_csr(new_key(), "x"), ["client auth", "world domination"], 3600, NOW)


def test_an_intermediate_sends_itself_along(authority: Authority) -> None:
    root = Authority.create("root", NOW)
    middle = Authority.create("middle", NOW)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(middle.certificate.subject)
        .issuer_name(root.certificate.subject)
        .public_key(middle.certificate.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root.key, hashes.SHA256())
    )
    chain = Authority(certificate, middle.key).sign(new_csr(new_key(), "x"), CLIENT, 3600, NOW)
    assert [len(x509.load_pem_x509_certificates(chain)), chain.endswith(certificate_pem(certificate))] == [2, True]


def test_a_request_signed_by_another_key_is_refused() -> None:
    csr = x509.load_pem_x509_csr(new_csr(new_key(), "system:node:victim"))
    der = bytearray(csr.public_bytes(Encoding.DER))
    der[-1] ^= 1
    import base64

    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(bytes(der))
    with pytest.raises(InvalidCSR):
        parse_csr(pem + b"-----END CERTIFICATE REQUEST-----\n")


def test_an_oversized_request_is_refused() -> None:
    with pytest.raises(InvalidCSR, match="at most"):
        parse_csr(b"a" * (MAX_CSR_BYTES + 1))


@given(st.binary(max_size=400))
def test_garbage_is_an_invalid_csr_and_nothing_else(garbage: bytes) -> None:
    import base64

    wrapped = b"-----BEGIN CERTIFICATE REQUEST-----\n%s-----END CERTIFICATE REQUEST-----\n" % base64.encodebytes(
        garbage
    )
    for content in (garbage, wrapped):
        with pytest.raises(InvalidCSR):
            parse_csr(content)


@given(st.integers(min_value=0, max_value=2000), st.integers(min_value=1, max_value=255))
def test_a_flipped_byte_is_an_invalid_csr_and_nothing_else(position: int, flip: int) -> None:
    pem = bytearray(_CSR)
    pem[position % len(pem)] ^= flip
    try:
        request = parse_csr(bytes(pem))
    except InvalidCSR:
        return
    assert request.common_name == "system:node:n"  # only white space or case of the frame was hit


_CSR = new_csr(new_key(), "system:node:n", ["system:nodes"], ["n"], ["10.0.0.1"])


def test_a_loaded_ca_signs_like_the_one_that_was_made(authority: Authority, tmp_path: Path) -> None:
    cert, key = tmp_path / "ca.crt", tmp_path / "ca.key"
    cert.write_bytes(authority.pair.cert)
    key.write_bytes(authority.pair.key)
    assert authority.has_signed(sign(Authority.load(cert, key), new_csr(new_key(), "x")))
    with pytest.raises(AuthorityError, match=r"absent\.key"):
        Authority.load(cert, tmp_path / "absent.key")
    key.write_bytes(new_key())
    with pytest.raises(KeyMismatch):
        Authority.load(cert, key)
