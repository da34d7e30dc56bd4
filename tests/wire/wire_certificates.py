"""Certificates as files for the wire tests."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """A CA with one server certificate for 127.0.0.1 and localhost, and one client certificate, as files."""

    ca: str
    cert: str
    key: str
    client_cert: str
    client_key: str
    authority: trustme.CA
    folder: Path


def write_pair(folder: Path, name: str, issued: trustme.LeafCert) -> tuple[str, str]:
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return str(cert), str(key)
