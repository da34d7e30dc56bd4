"""The two proofs of joining: what a token signs, and the pin of a CA."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.discovery import InvalidBootstrapToken, is_signed, pins, signature, split_token
from certs.errors import InvalidCertificate


def test_the_signature_is_kubeadms_to_the_byte() -> None:
    # kubernetes staging/src/k8s.io/cluster-bootstrap/token/jws/jws_test.go
    content = "Hello from the other side. I must have called a thousand times."
    assert signature(content, "joshua", "my voice is my passcode") == (
        "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8")


def test_a_signature_holds_for_one_content_one_token_and_one_secret() -> None:
    made = signature("content", "abcdef", "0123456789abcdef")
    assert is_signed("content", made, "abcdef", "0123456789abcdef")
    assert not is_signed("Content", made, "abcdef", "0123456789abcdef")
    assert not is_signed("content", made, "fedcba", "0123456789abcdef")
    assert not is_signed("content", made, "abcdef", "0123456789abcdeg")
    for forged in ("", "..", made[:-1], made.replace("..", "."), "é", made.split("..")[0] + ".."):
        assert not is_signed("content", forged, "abcdef", "0123456789abcdef")


def test_a_pin_is_the_hash_openssl_computes(tmp_path: Path) -> None:
    pem = Authority.create("kubernetes", datetime.now(UTC)).pair.cert
    (tmp_path / "ca.crt").write_bytes(pem)
    command = (f"openssl x509 -pubkey -noout -in {tmp_path}/ca.crt | openssl pkey -pubin -outform der | "
               "openssl dgst -sha256 -hex")
    expected = subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout.split()[-1]
    assert pins(pem) == [f"sha256:{expected}"]
    with pytest.raises(InvalidCertificate):
        pins(b"garbage")


@pytest.mark.parametrize("token", ["", "abcdef", "abcdef.", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde",
                                   "abcdef.0123456789abcdef\n", "abcdef:0123456789abcdef"])
def test_what_is_no_token_is_refused(token: str) -> None:
    assert split_token("abcdef.0123456789abcdef") == ("abcdef", "0123456789abcdef")
    with pytest.raises(InvalidBootstrapToken):
        split_token(token)
