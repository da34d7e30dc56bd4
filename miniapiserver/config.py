"""The API server's configuration: kube-apiserver's flag names, one frozen value.

My job: flags in, a checked Config out, or ConfigError with one clear line. I read no file but those a flag names.
`__main__` makes the Config, `server` hands its pieces down.
"""

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

AUTHORIZATION_MODES = ("AlwaysAllow", "AlwaysDeny", "RBAC", "Node", "Webhook")


class ConfigError(Exception):
    """A flag, or what it names, cannot be used."""


@dataclass(frozen=True, slots=True)
class Config:
    """Times are seconds. Paths are None when the flag was not given."""

    bind_address: str = "0.0.0.0"
    advertise_address: str = ""
    secure_port: int = 6443
    insecure_port: int = 0
    tls_cert_file: Path | None = None
    tls_private_key_file: Path | None = None
    client_ca_file: Path | None = None
    requestheader_client_ca_file: Path | None = None
    requestheader_allowed_names: tuple[str, ...] = ()
    requestheader_username_headers: tuple[str, ...] = ("X-Remote-User",)
    requestheader_uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    requestheader_group_headers: tuple[str, ...] = ("X-Remote-Group",)
    requestheader_extra_headers_prefix: tuple[str, ...] = ("X-Remote-Extra-",)
    kubelet_certificate_authority: Path | None = None
    kubelet_client_certificate: Path | None = None
    kubelet_client_key: Path | None = None
    kubelet_preferred_address_types: tuple[str, ...] = (
        "Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP")
    authorization_mode: tuple[str, ...] = ("AlwaysAllow",)
    authorization_webhook_config_file: Path | None = None
    authentication_config: Path | None = None
    anonymous_auth: bool | None = None
    token_auth_file: Path | None = None
    enable_bootstrap_token_auth: bool = False
    bootstrap_token_file: Path | None = None
    service_account_issuer: tuple[str, ...] = ("https://kubernetes.default.svc",)
    service_account_key_file: tuple[Path, ...] = ()
    service_account_signing_key_file: Path | None = None
    api_audiences: tuple[str, ...] = ()
    service_cluster_ip_range: str = "10.0.0.0/24"
    service_node_port_range: str = "30000-32767"
    enable_admission_plugins: tuple[str, ...] = ()
    disable_admission_plugins: tuple[str, ...] = ()
    storage_path: Path | None = None
    etcd_servers: tuple[str, ...] = ()
    etcd_cafile: Path | None = None
    etcd_certfile: Path | None = None
    etcd_keyfile: Path | None = None
    egress_selector_config_file: Path | None = None
    ssh_user: str = ""
    ssh_keyfile: Path | None = None
    ssh_known_hosts: Path | None = None
    ssh_port: int = 22
    audit_log_path: str = ""
    audit_policy_file: Path | None = None
    proxy_allow_cidrs: tuple[str, ...] = ()
    connections_socket: Path | None = None
    request_timeout: float = 60.0
    event_ttl: float = 3600.0

    @property
    def exempt_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """Where proxied endpoints may live although the addresses are loopback or link-local."""
        return tuple(ipaddress.ip_network(cidr) for cidr in self.proxy_allow_cidrs)

    @property
    def audiences(self) -> tuple[str, ...]:
        return self.api_audiences or self.service_account_issuer[:1]

    @property
    def external_address(self) -> str:
        return self.advertise_address or ("127.0.0.1" if self.bind_address == "0.0.0.0" else self.bind_address)

    def __post_init__(self) -> None:
        for mode in self.authorization_mode:
            if mode not in AUTHORIZATION_MODES:
                raise ConfigError(f"--authorization-mode: {mode!r} is not one of {', '.join(AUTHORIZATION_MODES)}")
        if bool(self.kubelet_client_certificate) != bool(self.kubelet_client_key):
            raise ConfigError("--kubelet-client-certificate and --kubelet-client-key go together")
        if not self.tls_cert_file or not self.tls_private_key_file:
            raise ConfigError("--tls-cert-file and --tls-private-key-file are required")
        if bool(self.storage_path) == bool(self.etcd_servers):
            raise ConfigError("give exactly one of --storage-path (SQLite) and --etcd-servers")
        for cidr in (*self.proxy_allow_cidrs, self.service_cluster_ip_range):
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                raise ConfigError(f"{cidr}: {error}") from error
        if not 0 <= self.insecure_port < 65536:
            raise ConfigError(f"--insecure-port: {self.insecure_port} is not a port; 0 is off")
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            for path in value if isinstance(value, tuple) else (value,):
                if isinstance(path, Path) and name not in ("storage_path", "connections_socket") and not path.exists():
                    raise ConfigError(f"--{name.replace('_', '-')}: no such file: {path}")


def node_ports(text: str) -> range:
    """`30000-32767` as a range. Raises ConfigError."""
    low, dash, high = text.partition("-")
    if not (dash and low.isdigit() and high.isdigit() and 0 < int(low) <= int(high) < 65536):
        raise ConfigError(f"--service-node-port-range: {text!r} is not LOW-HIGH")
    return range(int(low), int(high) + 1)


def _flag(parser: argparse.ArgumentParser, name: str, kind: object, default: object) -> None:
    option = "--" + name.replace("_", "-")
    if kind in (bool, bool | None):
        parser.add_argument(option, type=lambda text: text.lower() in ("true", "1", "t"), nargs="?", const=True,
                            default=default)
    elif kind in (int, float):
        parser.add_argument(option, type=int if kind is int else _seconds, default=default)
    elif kind == Path | None:
        parser.add_argument(option, type=Path, default=default)
    elif kind == tuple[Path, ...]:
        parser.add_argument(option, type=Path, action="append", default=None)
    elif kind == tuple[str, ...]:
        parser.add_argument(option, type=lambda text: [word for word in text.split(",") if word], action="extend",
                            default=None)
    else:
        parser.add_argument(option, default=default)


def _seconds(text: str) -> float:
    """Go's duration words (`1h`, `40s`, `300ms`) or plain seconds."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    for unit, factor in units.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit():
            return float(number) * factor
    return float(text)


def parse(argv: Sequence[str]) -> Config:
    """Raises ConfigError; argparse itself ends the process on unknown flags."""
    parser = argparse.ArgumentParser("miniapiserver", description="The Kubernetes API server of miniplane.",
                                     epilog="Deprecated: the --ssh flags (tunnels through the nodes' sshd); use "
                                            "--egress-selector-config-file with Konnectivity.")
    for field in fields(Config):
        _flag(parser, field.name, field.type, field.default)
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value
                             for key, value in vars(parser.parse_args(argv)).items() if value is not None}
    return Config(**given)
