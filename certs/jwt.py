"""Service account tokens as JWTs: signed by one key, verified by several, never anything but RS256 and ES256.

My job: JWS compact serialization (RFC 7515) with Kubernetes' key ids. I own the keys read at start. Rule: the algorithm
follows from the key, not from the token's header; what a claim *means* is the authenticator's business.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from certs.errors import InvalidKey, InvalidToken
from certs.keys import PublicKey, load_private, load_public, public_der
from certs.layout import read

Claims = dict[str, Any]

# A bound token is about 1 kB; the API server's header limit is 1 MiB, and hashing that much for a stranger is too much.
MAX_TOKEN_BYTES: Final = 16 * 1024
# go-jose's default, which Kubernetes' validator uses.
LEEWAY_SECONDS: Final = 60
_P256_BYTES: Final = 32


def key_id(key: PublicKey) -> str:
    """Kubernetes' `kid`: SHA-256 of the PKIX DER (pkg/serviceaccount/jwt.go, keyIDFromPublicKey)."""
    return _encode(sha256(public_der(key)).digest())


@dataclass(frozen=True, slots=True)
class TokenSigner:
    """Signs with one private key. Lives as long as its server."""

    key_path: Path | str
    _key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(init=False)
    _header: str = field(init=False)

    def __post_init__(self) -> None:
        key = load_private(_content(self.key_path), str(self.key_path))
        header = {"alg": _algorithm(key.public_key(), str(self.key_path)), "kid": key_id(key.public_key())}
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_header", _encode(_json(header)))

    def sign(self, claims: Mapping[str, Any]) -> str:
        signed = f"{self._header}.{_encode(_json(claims))}"
        return f"{signed}.{_encode(_signature(self._key, signed.encode('ascii')))}"


@dataclass(frozen=True, slots=True)
class TokenVerifier:
    """Verifies with any of several public keys (or private ones, of which it keeps the public half)."""

    key_paths: Sequence[Path | str]
    _keys: dict[str, PublicKey] = field(init=False)

    def __post_init__(self) -> None:
        keys = [load_public(_content(path), str(path)) for path in self.key_paths]
        for key, path in zip(keys, self.key_paths, strict=True):
            _algorithm(key, str(path))
        object.__setattr__(self, "_keys", {key_id(key): key for key in keys})

    def verify(self, token: str, now: float | None = None) -> Claims:
        """The claims of a token one of our keys signed. Raises InvalidToken.

        With `now` (seconds since the epoch) `exp`, `nbf` and `iat` are checked, too, where they are present; without,
        time is the caller's to check.
        """
        header, payload, signature, signed = _split(token)
        for key in self._candidates(header):
            if header.get("alg") == _algorithm(key, "key") and _verifies(key, signature, signed):
                claims = _object(payload, "payload")
                if now is not None:
                    _check_time(claims, now)
                return claims
        raise InvalidToken("signature: none of our keys made it")

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The keys as `/openid/v1/jwks` publishes them (RFC 7517)."""
        return {"keys": [_jwk(kid, key) for kid, key in self._keys.items()]}

    @property
    def algorithms(self) -> list[str]:
        """For `id_token_signing_alg_values_supported`."""
        return sorted({_algorithm(key, "key") for key in self._keys.values()})

    def _candidates(self, header: Claims) -> list[PublicKey]:
        if "crit" in header:
            raise InvalidToken("header: critical extensions are not supported")
        kid = header.get("kid")
        if kid is None or kid == "":
            return list(self._keys.values())
        if not isinstance(kid, str):
            raise InvalidToken("header: kid is not a string")
        key = self._keys.get(kid)
        return [] if key is None else [key]


def unverified_claims(token: str) -> Claims:
    """What a token says, believed by nobody: only to ask whose it is (`iss`) before verifying. Raises InvalidToken."""
    _, payload, _, _ = _split(token)
    return _object(payload, "payload")


def _split(token: str) -> tuple[Claims, bytes, bytes, bytes]:
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidToken(f"{len(token)} bytes; at most {MAX_TOKEN_BYTES} are read")
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidToken("not three parts separated by dots")
    header, payload, signature = (_decode(part) for part in parts)
    return _object(header, "header"), payload, signature, f"{parts[0]}.{parts[1]}".encode("ascii")


def _algorithm(key: PublicKey, where: str) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < 2048:
            raise InvalidKey(f"{where}: RSA keys of {key.key_size} bits do not sign tokens here")
        return "RS256"
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return "ES256"
    raise InvalidKey(f"{where}: tokens are signed with RSA (RS256) or EC P-256 (ES256) keys")


def _signature(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(_P256_BYTES) + s.to_bytes(_P256_BYTES)


def _verifies(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
            return True
        if isinstance(key, ec.EllipticCurvePublicKey) and len(signature) == 2 * _P256_BYTES:
            r, s = int.from_bytes(signature[:_P256_BYTES]), int.from_bytes(signature[_P256_BYTES:])
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
            return True
    except InvalidSignature:
        return False
    return False


def _check_time(claims: Claims, now: float) -> None:
    for claim in ("exp", "nbf", "iat"):
        value = claims.get(claim, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidToken(f"{claim} is not a number")
    if "exp" in claims and now - LEEWAY_SECONDS > claims["exp"]:
        raise InvalidToken("token has expired")
    if now + LEEWAY_SECONDS < max(claims.get("nbf", 0), claims.get("iat", 0)):
        raise InvalidToken("token is not valid yet")


def _jwk(kid: str, key: PublicKey) -> dict[str, str]:
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        size = (numbers.e.bit_length() + 7) // 8
        return {
            "use": "sig",
            "kty": "RSA",
            "kid": kid,
            "alg": "RS256",
            "n": _encode(numbers.n.to_bytes(key.key_size // 8)),
            "e": _encode(numbers.e.to_bytes(size)),
        }
    assert isinstance(key, ec.EllipticCurvePublicKey)  # `_algorithm` let nothing else in
    point = key.public_numbers()
    x, y = point.x.to_bytes(_P256_BYTES), point.y.to_bytes(_P256_BYTES)
    return {"use": "sig", "kty": "EC", "kid": kid, "crv": "P-256", "alg": "ES256", "x": _encode(x), "y": _encode(y)}


def _object(content: bytes, part: str) -> Claims:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidToken(f"{part}: not JSON") from error
    if not isinstance(value, dict):
        raise InvalidToken(f"{part}: not a JSON object")
    return value


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _decode(part: str) -> bytes:
    """Strict: no padding, no other alphabet, no bits left over, so that a token has exactly one spelling."""
    try:
        content = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidToken("not base64url") from error
    if _encode(content) != part:
        raise InvalidToken("not base64url without padding")
    return content


def _content(path: Path | str) -> bytes:
    content = read(Path(path))
    if content is None:
        raise InvalidKey(f"{path}: no such key file")
    return content
