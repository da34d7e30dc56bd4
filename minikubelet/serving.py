"""The certificate the HTTPS endpoint shows.

My job: the files it is read from: those given by flag, else a self-signed pair in the certificate folder (upstream
`initializeTLS`). Neighbours: `certs` makes and writes certificates; `servingcertificate` asks the API server for one.
"""

from datetime import datetime
from pathlib import Path

from certs.authority import Authority
from certs.layout import FilePair, Staging
from certs.requests import new_csr, new_key
from minikubelet.config import Config
from minikubelet.kubeletconfiguration import InvalidConfiguration

YEAR = 365 * 24 * 3600
USAGES = ("digital signature", "key encipherment", "server auth")


def serving_files(config: Config, now: datetime) -> FilePair:
    """Raises InvalidConfiguration, or CertsError when the certificate folder cannot be written."""
    kubelet = config.kubelet
    if kubelet.tls_cert_file:
        given = FilePair(Path(kubelet.tls_cert_file), Path(kubelet.tls_private_key_file))
        for flag, path in (("--tls-cert-file", given.cert), ("--tls-private-key-file", given.key)):
            if not path.is_file():
                raise InvalidConfiguration(f"{flag}: {path}: no such file")
        return given
    pair = FilePair(config.cert_dir / "kubelet.crt", config.cert_dir / "kubelet.key")
    if not (pair.cert.exists() and pair.key.exists()):
        _write_self_signed(pair, config, now)
    return pair


def _write_self_signed(pair: FilePair, config: Config, now: datetime) -> None:
    """As upstream: a throw-away CA that signs exactly this and is forgotten. Nobody can verify it by a cluster's CA."""
    authority = Authority.create(f"{config.node_name}-ca@{int(now.timestamp())}", now)
    key = new_key()
    request = new_csr(key, f"{config.node_name}@{int(now.timestamp())}", dns=[config.node_name], ips=[config.node_ip])
    staging = Staging()
    staging.add(pair.cert, authority.sign(request, USAGES, YEAR, now), 0o644)
    staging.add(pair.key, key, 0o600)
    staging.commit()
