"""Trust in a cluster one has never seen: signatures of cluster-info, and pins of its CA.

My job: the two proofs of `kubeadm join`: the detached JWS that only a holder of the token's secret can make, and the
hash of the CA's public key that the operator carried over by hand. Pure. The signer controller and the joining node
use the same functions, as the signature is verified by making it again.
"""

import base64
import hmac
import re
from hashlib import sha256
from typing import Final, cast

from cryptography import x509

from certs.errors import CertsError, InvalidCertificate
from certs.keys import PublicKey, public_der

TOKEN: Final = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
PIN: Final = re.compile(r"sha256:[0-9a-f]{64}")


class InvalidBootstrapToken(CertsError):
    """Not of a bootstrap token's form."""


def split_token(token: str) -> tuple[str, str]:
    """ID and secret. Raises InvalidBootstrapToken."""
    match = TOKEN.fullmatch(token)
    if match is None:
        raise InvalidBootstrapToken("a bootstrap token looks like abcdef.0123456789abcdef")
    return match[1], match[2]


def signature(content: str, token_id: str, token_secret: str) -> str:
    """The detached JWS of cluster-info's kubeconfig.

    Exactly these header bytes: kubeadm compares the whole string (`cluster-bootstrap/token/jws`).
    """
    header = _encode(f'{{"alg":"HS256","kid":"{token_id}"}}'.encode())
    signed = f"{header}.{_encode(content.encode())}".encode()
    return f"{header}..{_encode(hmac.new(token_secret.encode(), signed, sha256).digest())}"


def is_signed(content: str, given: str, token_id: str, token_secret: str) -> bool:
    return hmac.compare_digest(signature(content, token_id, token_secret).encode(), given.encode())


def pins(pem: bytes) -> list[str]:
    """`sha256:<hex>` over the public key (SPKI, RFC 7469) of each certificate. Raises InvalidCertificate."""
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InvalidCertificate(f"certificate authority: {error}") from error
    keys = [cast(PublicKey, certificate.public_key()) for certificate in found]
    return [f"sha256:{sha256(public_der(key)).hexdigest()}" for key in keys]


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")
