"""SSH keys in OpenSSH's formats: host keys, user keys, known_hosts lines.

My job: Ed25519 pairs that OpenSSH and asyncssh read. I own no files; `issuance` places them.
"""

import base64
import binascii
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from certs.errors import InvalidKey

SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class SSHKeyPair:
    """An OpenSSH private key file and the one-line public key beside it."""

    private: bytes
    public: str


def new_ssh_key(comment: str) -> SSHKeyPair:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return SSHKeyPair(private, f"{_public_line(key)} {comment}")


def public_line(private: bytes, where: str) -> str:
    """The public half of an OpenSSH private key, `ssh-ed25519 AAAA…`. Raises InvalidKey."""
    try:
        key = serialization.load_ssh_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidKey(f"{where}: not an unencrypted OpenSSH private key") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise InvalidKey(f"{where}: SSH keys here are Ed25519")
    return _public_line(key)


def _public_line(key: ed25519.Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode("ascii")  # fmt: skip


def known_hosts_line(host: str, port: int, public: str) -> str:
    """`host key` for port 22, `[host]:port key` otherwise (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    algorithm, key, *_ = public.split()
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error as error:
        raise InvalidKey(f"host key of {host} is not base64") from error
    pattern = host if port == SSH_PORT else f"[{host}]:{port}"
    return f"{pattern} {algorithm} {key}"
