"""A node joins a cluster knowing nothing but a token and the hash of the cluster's CA.

My job: `miniplane node join`: fetch cluster-info from a server nobody vouches for yet, believe it only if the token
signed it and the CA in it is the pinned one, fetch it again over verified TLS, write what a kubelet needs and become
that kubelet, which gets its certificates by TLS bootstrapping. As `kubeadm join` does it (`kubeadm/app/discovery`).
Rule: the token's secret goes nowhere before the server is verified.
"""

import json
import os
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from certs import discovery, kubeconfig
from certs.errors import CertsError
from certs.layout import write_private
from miniplane.apiclient import APIClient, Unreachable
from miniplane.errors import MiniplaneError, OptionsError
from miniplane.program import python

CLUSTER_INFO: Final = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
#: A signature of a token that was just made comes a moment later.
SIGNED_WITHIN: Final = 30.0
KUBELET_PORT: Final = 10250


class JoinError(MiniplaneError):
    """The cluster could not be believed, or not be reached."""


@dataclass(frozen=True, slots=True)
class Join:
    """What the operator gave us. `pins` empty only when verification was switched off by name."""

    host: str
    port: int
    token: str
    pins: tuple[str, ...]
    name: str
    node_ip: str
    directory: Path
    pod_cidr: str = ""
    labels: str = ""
    kubelet_port: int = KUBELET_PORT


@dataclass(frozen=True, slots=True)
class Discovered:
    """What cluster-info says, once believed."""

    server: str
    ca: bytes


def endpoint(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `https://HOST:PORT`. Raises OptionsError."""
    host, colon, port = text.removeprefix("https://").rstrip("/").rpartition(":")
    if not colon or not host or not port.isdigit():
        raise OptionsError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def checked_pins(pins: list[str], unsafe: bool) -> tuple[str, ...]:
    """Raises OptionsError: to join without a pin must be said out loud."""
    if not pins and not unsafe:
        raise OptionsError("--discovery-token-ca-cert-hash is needed; --discovery-token-unsafe-skip-ca-verification "
                           "joins whatever answers")
    for pin in pins:
        if not discovery.PIN.fullmatch(pin.lower()):
            raise OptionsError(f"--discovery-token-ca-cert-hash: {pin!r} is not sha256:<64 hex digits>")
    return tuple(pin.lower() for pin in pins)


def discover(join: Join) -> Discovered:
    """Raises JoinError."""
    token_id, token_secret = discovery.split_token(join.token)
    content = _signed(join, token_id, token_secret)
    found = _cluster(content)
    actual = discovery.pins(found.ca)
    if join.pins and not all(pin in join.pins for pin in actual):
        raise JoinError(f"the cluster's CA is {', '.join(actual)}, not {', '.join(join.pins)}: somebody else may be "
                        "answering")
    if _fetched(APIClient(join.host, join.port, _verified(found.ca))).get("kubeconfig") != content:
        raise JoinError("cluster-info changed between the first and the verified look")
    return found


def _signed(join: Join, token_id: str, token_secret: str) -> str:
    """cluster-info's kubeconfig, once the token's signature is there and right. Nobody vouches for the server yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    deadline = time.monotonic() + SIGNED_WITHIN
    while True:
        data = _fetched(APIClient(join.host, join.port, context))
        content, given = data.get("kubeconfig"), data.get(f"jws-kubeconfig-{token_id}")
        if content and given:
            if not discovery.is_signed(content, given, token_id, token_secret):
                raise JoinError(f"cluster-info is not signed by token {token_id}: wrong token, or somebody in between")
            return str(content)
        if time.monotonic() > deadline:
            raise JoinError(f"cluster-info has no signature of token {token_id}: it has expired, or may not sign")
        time.sleep(0.2)


def _fetched(client: APIClient) -> dict[str, str]:
    """Its data; empty when it is not there. Raises JoinError."""
    try:
        with client:
            answer = client.get(CLUSTER_INFO)
            found = answer.json() if answer.status == 200 else {}
    except (Unreachable, ValueError) as error:
        raise JoinError(f"fetch cluster-info: {error}") from error
    if answer.status not in (200, 404):
        raise JoinError(f"fetch cluster-info: the server answered {answer.status}")
    return found.get("data") or {}


def _cluster(content: str) -> Discovered:
    try:
        clusters = kubeconfig.parse(content.encode(), Path("cluster-info")).document.get("clusters") or []
        if len(clusters) != 1:
            raise JoinError("cluster-info does not name exactly one cluster")
        # The one cluster has no name, so a context cannot be made to point at it.
        document = {"clusters": clusters, "contexts": [{"name": "", "context": {"cluster": "", "user": ""}}],
                    "users": [{"name": "", "user": {}}]}
        found = kubeconfig.Kubeconfig(document, Path("/")).credentials()
    except CertsError as error:
        raise JoinError(f"cluster-info: {error}") from error
    if found.ca is None or not found.server.startswith("https://"):
        raise JoinError("cluster-info holds no CA, or no https server")
    return Discovered(found.server, found.ca)


def _verified(ca: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca.decode("ascii"))
    return context


def prepare(join: Join, found: Discovered) -> list[str]:
    """Write the node's files; the kubelet's command line."""
    directory = join.directory
    ca, config = directory / "pki" / "ca.crt", directory / "config.yaml"
    bootstrap = directory / "bootstrap-kubelet.conf"
    try:
        for folder in (directory, directory / "pki", directory / "manifests"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(ca, found.ca)
        kubeconfig.write(bootstrap, kubeconfig.Entry.with_token(
            "bootstrap", "kubelet-bootstrap", found.server, found.ca, join.token))
        write_private(config, (json.dumps(_configuration(join), indent=2) + "\n").encode())
    except (OSError, CertsError) as error:
        raise JoinError(f"write {directory}: {error}") from error
    optional = {"--pod-cidr": join.pod_cidr, "--node-labels": join.labels}
    return [*python("minikubelet"),
            f"--kubeconfig={directory / 'kubelet.conf'}", f"--bootstrap-kubeconfig={bootstrap}",
            f"--cert-dir={directory / 'pki'}", f"--config={config}", f"--hostname-override={join.name}",
            f"--node-ip={join.node_ip}", f"--address={join.node_ip}", f"--port={join.kubelet_port}",
            f"--root-dir={directory}", f"--client-ca-file={ca}", f"--pod-manifest-path={directory / 'manifests'}",
            *(f"{flag}={text}" for flag, text in optional.items() if text)]


def _configuration(join: Join) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "healthzBindAddress": join.node_ip if join.node_ip.startswith("127.") else "127.0.0.1",
        "rotateCertificates": True, "serverTLSBootstrap": True,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"}}


def become_kubelet(argv: list[str]) -> int:
    """This process is the kubelet from here on; it ends by SIGTERM or Ctrl-C like any other."""
    source = str(Path(__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    environment = dict(os.environ) | {"PYTHONPATH": f"{source}{os.pathsep}{inherited}" if inherited else source}
    sys.stdout.flush()
    os.execve(argv[0], argv, environment)
