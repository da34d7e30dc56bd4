"""The process's configuration: flags over a KubeletConfiguration file, made once, passed down in pieces.

My job: argv in, one frozen `Config` out, or one clear line. I own nothing after start. Neighbours: `__main__` builds
me; `kubeletconfiguration` reads the file. Flags have the kubelet's names. Rule: a flag given wins over the file.
"""

import argparse
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from minikubelet.kubeletconfiguration import (
    Authentication,
    Authorization,
    InvalidConfiguration,
    KubeletConfiguration,
    load,
    with_flags,
)
from minikubelet.serviceproxy import settings as serviceproxy

S = TypeVar("S", Authentication, Authorization)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the process was told. Lives as long as the process."""

    node_name: str
    node_ip: str
    kubeconfig: Path
    bootstrap_kubeconfig: Path | None
    root_dir: Path
    cert_dir: Path
    image_dir: Path
    node_labels: Mapping[str, str]
    kubelet: KubeletConfiguration
    connections_socket: Path | None = None
    proxy: serviceproxy.ProxySettings = serviceproxy.NO_PROXY
    verbose: bool = False

    @property
    def log_dir(self) -> Path:
        return Path(self.kubelet.pod_logs_dir) if self.kubelet.pod_logs_dir else self.root_dir / "log" / "pods"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minikubelet", description="the node agent of miniplane", allow_abbrev=False)
    add = parser.add_argument
    add("--kubeconfig", type=Path, required=True, help="how to reach the API server; TLS bootstrap writes it if absent")
    add("--bootstrap-kubeconfig", type=Path, help="how to ask for a first client certificate")
    add("--config", type=Path, help="a KubeletConfiguration file")
    add("--hostname-override", default="", help="the node's name (default: the host's)")
    add("--node-ip", default="", help="the address other components reach this node at")
    add("--address", help="the address the HTTPS endpoint listens on")
    add("--port", type=int, help="the port of the HTTPS endpoint (default 10250)")
    add("--read-only-port", type=int, help="plain HTTP port without authentication, 0 is off")
    add("--healthz-port", type=int, help="plain HTTP /healthz, 0 is off (default 10248)")
    add("--healthz-bind-address", help="where /healthz listens (default 127.0.0.1)")
    add("--root-dir", type=Path, required=True, help="where pods, volumes and logs live")
    add("--cert-dir", type=Path, help="where certificates live (default: <root-dir>/pki)")
    add("--client-ca-file", help="CA that client certificates must be signed by")
    add("--tls-cert-file", help="serving certificate")
    add("--tls-private-key-file", help="its key")
    add("--pod-cidr", help="addresses of this node's pods")
    add("--pod-manifest-path", help="folder of static pods")
    add("--image-dir", type=Path, help="imported images (default: <root-dir>/images)")
    add("--node-labels", default="", help="labels to register with: a=b,c=d")
    add("--anonymous-auth", type=_boolean, help="accept requests without credentials")
    add("--authentication-token-webhook", type=_boolean, help="ask the API server about bearer tokens")
    add("--authorization-mode", choices=("AlwaysAllow", "Webhook"))
    add("--rotate-certificates", type=_boolean, nargs="?", const=True)
    add("--max-pods", type=int)
    add("--connections-socket", type=Path, help="unix socket to serve the ledger of connections on")
    serviceproxy.add_flags(parser)
    add("-v", "--verbose", action="store_true", help="also tell the details")
    return parser


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
    return words[text.lower()]


def parse_labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise InvalidConfiguration(f"--node-labels: {pair!r} is not key=value")
        labels[key.strip()] = value.strip()
    return labels


def parse(argv: Sequence[str]) -> Config:
    """Raises InvalidConfiguration; argparse itself ends the process on unknown flags."""
    flags = _parser().parse_args(argv)
    kubelet = _kubelet(flags)
    root_dir: Path = flags.root_dir.absolute()
    node_ip = _address(flags.node_ip, kubelet.address)
    return Config(
        node_name=(flags.hostname_override or socket.gethostname()).lower(),
        node_ip=node_ip,
        kubeconfig=flags.kubeconfig.absolute(),
        bootstrap_kubeconfig=flags.bootstrap_kubeconfig.absolute() if flags.bootstrap_kubeconfig else None,
        root_dir=root_dir,
        cert_dir=(flags.cert_dir or root_dir / "pki").absolute(),
        image_dir=(flags.image_dir or root_dir / "images").absolute(),
        node_labels=parse_labels(flags.node_labels),
        kubelet=kubelet,
        connections_socket=flags.connections_socket,
        proxy=serviceproxy.settings(flags, root_dir, node_ip),
        verbose=flags.verbose,
    )


def _kubelet(flags: argparse.Namespace) -> KubeletConfiguration:
    file = load(flags.config) if flags.config else KubeletConfiguration()
    authentication = _replaced(file.authentication, client_ca_file=flags.client_ca_file,
                               webhook_enabled=flags.authentication_token_webhook,
                               anonymous_enabled=flags.anonymous_auth)
    kubelet = with_flags(
        file, address=flags.address, port=flags.port, read_only_port=flags.read_only_port,
        healthz_port=flags.healthz_port, healthz_bind_address=flags.healthz_bind_address,
        tls_cert_file=flags.tls_cert_file, max_pods=flags.max_pods,
        tls_private_key_file=flags.tls_private_key_file, pod_cidr=flags.pod_cidr,
        static_pod_path=flags.pod_manifest_path, rotate_certificates=flags.rotate_certificates,
        authentication=authentication,
        authorization=_replaced(file.authorization, mode=flags.authorization_mode))
    if bool(kubelet.tls_cert_file) != bool(kubelet.tls_private_key_file):
        raise InvalidConfiguration("--tls-cert-file and --tls-private-key-file must be given together")
    if kubelet.pod_cidr:
        _network(kubelet.pod_cidr)
    return kubelet


def _replaced(value: S, **changes: object) -> S:
    given = {name: change for name, change in changes.items() if change is not None}
    return replace(value, **given)  # type: ignore[arg-type]


def _network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidConfiguration(f"--pod-cidr: {error}") from None


def _address(node_ip: str, listen: str) -> str:
    """The node's own address: as told, else where it listens, else what the host name means, else loopback."""
    candidates = [node_ip] if node_ip else [listen]
    for candidate in candidates:
        try:
            address = ipaddress.ip_address(candidate)
        except ValueError:
            raise InvalidConfiguration(f"--node-ip: {candidate!r} is not an IP address") from None
        if not address.is_unspecified:
            return str(address)
    try:
        return str(socket.gethostbyname(socket.gethostname()))
    except OSError:
        return "127.0.0.1"
