"""TLS bootstrapping: from a token to the node's own identity.

My job: if there is no kubeconfig with a certificate that is still good, get one with the bootstrap kubeconfig's
credentials (upstream certificate/bootstrap). I own the kubeconfig's file while I write it. Neighbours:
`rotatingcertificate` asks for the certificate, `kubelet` starts when I am done. Rule: the server's certificate is
verified from the first byte on, by the CA of the bootstrap kubeconfig.
"""

import logging

from certs import kubeconfig
from certs.errors import CertsError, KubeconfigError
from minikubelet.clock import Clock
from minikubelet.config import Config
from minikubelet.logline import kv
from minikubelet.rotatingcertificate import RotatingCertificate, Wanted
from minikubelet.version import USER_AGENT
from wire.apiclient import Client

log = logging.getLogger(__name__)


async def ensure_identity(config: Config, clock: Clock) -> None:
    """Returns when the kubeconfig exists and its certificate is good. Raises CertsError if that cannot be."""
    if not config.kubeconfig.exists() and config.bootstrap_kubeconfig is None:
        raise KubeconfigError(f"{config.kubeconfig}: no such kubeconfig, and no --bootstrap-kubeconfig to get one with")
    if config.bootstrap_kubeconfig is None or _is_good(config, clock):
        return
    certificate = RotatingCertificate(Wanted.client(config.node_name), config.cert_dir, clock)
    _write_kubeconfig(config, certificate)
    async with Client.from_kubeconfig(config.bootstrap_kubeconfig, USER_AGENT) as client:
        log.info("bootstrap.start %s", kv(server=client.server, node=config.node_name))
        await certificate.obtain(client)
    log.info("bootstrap.done %s", kv(kubeconfig=config.kubeconfig))


def _is_good(config: Config, clock: Clock) -> bool:
    if not config.kubeconfig.exists():
        return False
    try:
        credentials = kubeconfig.load(config.kubeconfig).credentials()
    except CertsError as error:
        log.warning("kubeconfig.unusable %s", kv(file=config.kubeconfig, error=error))
        return False
    if credentials.token:
        return True
    if credentials.client_cert is None:
        return False
    return client_certificate(config, clock) is None or RotatingCertificate(
        Wanted.client(config.node_name), config.cert_dir, clock).is_valid()


def client_certificate(config: Config, clock: Clock) -> RotatingCertificate | None:
    """The client certificate if it is one we can rotate: the file the kubeconfig names is ours."""
    certificate = RotatingCertificate(Wanted.client(config.node_name), config.cert_dir, clock)
    named = kubeconfig.load(config.kubeconfig).credentials().client_cert_file
    if named is None or named.absolute() != certificate.path.absolute():
        return None
    return certificate


def _write_kubeconfig(config: Config, certificate: RotatingCertificate) -> None:
    """The kubeconfig names the certificate's file before there is one, as upstream: only the file changes later."""
    assert config.bootstrap_kubeconfig is not None
    known = kubeconfig.load(config.bootstrap_kubeconfig).credentials()
    if known.ca is None:
        raise KubeconfigError(f"{config.bootstrap_kubeconfig}: no certificate authority to verify the server with")
    kubeconfig.write(config.kubeconfig, kubeconfig.Entry.with_files(
        "default-cluster", "default-auth", known.server, known.ca, certificate.path, certificate.path))
