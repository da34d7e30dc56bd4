"""Service account tokens: ours verify, everybody else's do not."""

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs import keys
from certs.errors import InvalidKey, InvalidToken
from certs.jwt import MAX_TOKEN_BYTES, TokenSigner, TokenVerifier, unverified_claims

CLAIMS = {"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:default:x", "exp": 2000, "iat": 1000}


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def write_pair(folder: Path, key: keys.PrivateKey, name: str = "sa") -> tuple[Path, Path]:
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(keys.private_pem(key))
    public.write_bytes(keys.public_pem(key.public_key()))
    return private, public


@pytest.fixture(scope="module")
def rsa_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("rsa"), keys.new_rsa_key())


@pytest.fixture(scope="module", params=["RS256", "ES256"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    key: keys.PrivateKey = keys.new_rsa_key() if request.param == "RS256" else keys.new_ec_key()
    return write_pair(tmp_path_factory.mktemp(request.param), key)


def test_what_one_end_signs_the_other_verifies(pair: tuple[Path, Path]) -> None:
    private, public = pair
    assert TokenVerifier([public]).verify(TokenSigner(private).sign(CLAIMS)) == CLAIMS


def test_a_private_key_file_verifies_as_well(pair: tuple[Path, Path]) -> None:
    assert TokenVerifier([pair[0]]).verify(TokenSigner(pair[0]).sign(CLAIMS)) == CLAIMS


def test_the_key_id_is_kubernetes(rsa_pair: tuple[Path, Path]) -> None:
    header = json.loads(base64.urlsafe_b64decode(TokenSigner(rsa_pair[0]).sign({}).split(".")[0] + "=="))
    der = keys.public_der(keys.load_public(rsa_pair[1].read_bytes(), "sa.pub"))
    assert header == {"alg": "RS256", "kid": encode(hashlib.sha256(der).digest())}


def test_an_rsa_key_is_published_as_jwk(rsa_pair: tuple[Path, Path]) -> None:
    verifier = TokenVerifier([rsa_pair[1]])
    (jwk,) = verifier.jwks()["keys"]
    assert {key: jwk[key] for key in ("use", "kty", "alg", "e")} == {
        "use": "sig", "kty": "RSA", "alg": "RS256", "e": "AQAB",
    }  # fmt: skip
    assert len(base64.urlsafe_b64decode(jwk["n"] + "==")) == 256 and verifier.algorithms == ["RS256"]


def test_several_keys_verify_so_that_keys_can_be_rotated(pair: tuple[Path, Path], tmp_path: Path) -> None:
    _, newer = write_pair(tmp_path, keys.new_ec_key(), "newer")
    assert TokenVerifier([newer, pair[1]]).verify(TokenSigner(pair[0]).sign(CLAIMS)) == CLAIMS


def test_a_token_of_another_key_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    _, stranger = write_pair(tmp_path, keys.new_ec_key())
    with pytest.raises(InvalidToken, match="none of our keys"):
        TokenVerifier([stranger]).verify(TokenSigner(pair[0]).sign(CLAIMS))


def test_none_is_no_algorithm(pair: tuple[Path, Path]) -> None:
    for algorithm in ("none", "None", "NONE", ""):
        forged = f"{encode(json.dumps({'alg': algorithm}).encode())}.{encode(json.dumps(CLAIMS).encode())}."
        with pytest.raises(InvalidToken):
            TokenVerifier([pair[1]]).verify(forged)


def test_hs256_with_the_public_key_as_secret_is_refused(pair: tuple[Path, Path]) -> None:
    public = pair[1].read_bytes()
    signed = ".".join(encode(json.dumps(part).encode()) for part in ({"alg": "HS256"}, CLAIMS))
    for secret in (public, keys.public_der(keys.load_public(public, "sa.pub"))):
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        with pytest.raises(InvalidToken):
            TokenVerifier([pair[1]]).verify(f"{signed}.{encode(mac)}")


def test_the_other_algorithms_name_is_refused(pair: tuple[Path, Path]) -> None:
    header, payload, signature = TokenSigner(pair[0]).sign(CLAIMS).split(".")
    swapped = {"RS256": "ES256", "ES256": "RS256"}
    decoded = json.loads(base64.urlsafe_b64decode(header + "=="))
    decoded["alg"] = swapped[decoded["alg"]]
    with pytest.raises(InvalidToken):
        TokenVerifier([pair[1]]).verify(f"{encode(json.dumps(decoded).encode())}.{payload}.{signature}")


def test_changed_claims_are_refused(pair: tuple[Path, Path]) -> None:
    header, _, signature = TokenSigner(pair[0]).sign(CLAIMS).split(".")
    changed = encode(json.dumps(CLAIMS | {"sub": "system:serviceaccount:kube-system:admin"}).encode())
    with pytest.raises(InvalidToken):
        TokenVerifier([pair[1]]).verify(f"{header}.{changed}.{signature}")


def test_a_token_has_one_spelling(pair: tuple[Path, Path]) -> None:
    token = TokenSigner(pair[0]).sign(CLAIMS)
    for other in (token + "=", token + "A", f" {token}", token.replace(".", "..", 1), token + "\n"):
        with pytest.raises(InvalidToken):
            TokenVerifier([pair[1]]).verify(other)


def test_critical_headers_are_refused(pair: tuple[Path, Path]) -> None:
    _, payload, signature = TokenSigner(pair[0]).sign(CLAIMS).split(".")
    header = encode(b'{"alg":"RS256","crit":["b64"],"b64":false}')
    with pytest.raises(InvalidToken, match="critical"):
        TokenVerifier([pair[1]]).verify(f"{header}.{payload}.{signature}")


def test_an_oversized_token_is_refused_before_it_is_looked_at(pair: tuple[Path, Path]) -> None:
    with pytest.raises(InvalidToken, match="at most"):
        TokenVerifier([pair[1]]).verify("a" * (MAX_TOKEN_BYTES + 1))
    with pytest.raises(InvalidToken, match="at most"):
        unverified_claims("." * (MAX_TOKEN_BYTES + 1))


@pytest.mark.parametrize(("now", "good"), [(1500, True), (2060, True), (2061, False), (940, True), (939, False)])
def test_time_has_a_minute_of_leeway(pair: tuple[Path, Path], now: int, good: bool) -> None:
    token, verifier = TokenSigner(pair[0]).sign(CLAIMS), TokenVerifier([pair[1]])
    if good:
        assert verifier.verify(token, now) == CLAIMS
    else:
        with pytest.raises(InvalidToken, match=r"expired|not valid yet"):
            verifier.verify(token, now)


@given(st.one_of(st.text(max_size=200), st.lists(st.binary(max_size=60), min_size=3, max_size=3)))
def test_garbage_is_an_invalid_token_and_nothing_else(rsa_pair: tuple[Path, Path], garbage: str | list[bytes]) -> None:
    token = garbage if isinstance(garbage, str) else ".".join(encode(part) for part in garbage)
    with pytest.raises(InvalidToken):
        TokenVerifier([rsa_pair[1]]).verify(token)


def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    private, _ = write_pair(tmp_path, rsa.generate_private_key(65537, 1024))
    with pytest.raises(InvalidKey, match="1024 bits"):
        TokenSigner(private)


def test_a_certificate_is_no_key(issued: object, tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
    with pytest.raises(InvalidKey, match="not a public key"):
        TokenVerifier([tmp_path / "x.pem"])
