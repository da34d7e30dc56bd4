"""Private and public keys as PEM, and the question whether two belong together.

My job: the one place that makes, reads and compares keys. I own no files. EC P-256 for everything that authenticates
a connection; RSA 2048 for service account tokens, whose RS256 every OIDC library reads.
"""

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from certs.errors import InvalidKey

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_PRIVATE_TYPES: Final = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)
_PUBLIC_TYPES: Final = (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey)


def new_ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def new_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_pem(key: PrivateKey) -> bytes:
    """PEM as kubeadm and client-go write it: `EC PRIVATE KEY`, `RSA PRIVATE KEY`, else PKCS#8."""
    traditional = isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    form = serialization.PrivateFormat.TraditionalOpenSSL if traditional else serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def public_pem(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_der(key: PublicKey) -> bytes:
    """The PKIX DER: what Kubernetes hashes for a key's id and kubeadm for a CA pin."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_private(pem: bytes, where: str) -> PrivateKey:
    """Raises InvalidKey, naming `where` it came from."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidKey(f"{where}: not an unencrypted private key in PEM") from error
    if not isinstance(key, _PRIVATE_TYPES):
        raise InvalidKey(f"{where}: keys of type {type(key).__name__} are not used here")
    return key


def load_public(pem: bytes, where: str) -> PublicKey:
    """A public key, or the public half of a private one: kube-apiserver's key flags take either."""
    if b"PRIVATE KEY-----" in pem:
        return load_private(pem, where).public_key()
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidKey(f"{where}: not a public key in PEM") from error
    return as_public_key(key, where)


def as_public_key(key: object, where: str) -> PublicKey:
    if not isinstance(key, _PUBLIC_TYPES):
        raise InvalidKey(f"{where}: keys of type {type(key).__name__} are not used here")
    return key


def belong_together(private: PrivateKey, public: PublicKey) -> bool:
    return public_der(private.public_key()) == public_der(public)
