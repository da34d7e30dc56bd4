"""The service proxy's part of the kubelet's flags.

My job: flags in, one frozen value out. I own nothing. Neighbours: `minikubelet.config` calls both functions. Names
and ports are kube-proxy's, with `proxy` before them where the kubelet has a flag of that name.
"""

import argparse
import enum
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from minikubelet.kubeletconfiguration import InvalidConfiguration

HEALTHZ_PORT = 10256
METRICS_PORT = 10249
KUBECONFIG = "kube-proxy.conf"


class Mode(enum.Enum):
    """Who redirects."""

    USERSPACE = "userspace"
    NFTABLES = "nftables"
    NONE = "none"
    """Somebody else does: another proxy, or nobody."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """What the service proxy was told. Addresses are None where nothing shall listen."""

    mode: Mode = Mode.NONE
    kubeconfig: Path | None = None
    """None: the kubelet's own identity is used."""
    healthz: tuple[str, int] | None = None
    metrics: tuple[str, int] | None = None


NO_PROXY = ProxySettings()


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--proxy-mode", choices=[mode.value for mode in Mode], default=Mode.USERSPACE.value,
        help="how Services are redirected: nftables needs root, none leaves it to others")
    add("--proxy-kubeconfig", type=Path,
        help=f"the service proxy's identity (default: <root-dir>/{KUBECONFIG} if there is one, else the kubelet's)")
    add("--proxy-healthz-bind-address", default="", metavar="IP:PORT",
        help=f"where the proxy's /healthz is (default: loopback, port {HEALTHZ_PORT}); port 0 is off")
    add("--proxy-metrics-bind-address", default="", metavar="IP:PORT",
        help=f"where the proxy's /metrics is (default: loopback, port {METRICS_PORT}); port 0 is off")


def settings(flags: argparse.Namespace, root_dir: Path, node_ip: str) -> ProxySettings:
    """Raises InvalidConfiguration."""
    # Each node of the local profile has a loopback address of its own, where the usual ports are free.
    loopback = node_ip if ipaddress.ip_address(node_ip).is_loopback else "127.0.0.1"
    return ProxySettings(
        Mode(flags.proxy_mode), flags.proxy_kubeconfig.absolute() if flags.proxy_kubeconfig else _present(root_dir),
        _bind_address("--proxy-healthz-bind-address", flags.proxy_healthz_bind_address, loopback, HEALTHZ_PORT),
        _bind_address("--proxy-metrics-bind-address", flags.proxy_metrics_bind_address, loopback, METRICS_PORT))


def _present(root_dir: Path) -> Path | None:
    path = root_dir / KUBECONFIG
    return path if path.exists() else None


def _bind_address(flag: str, text: str, host: str, port: int) -> tuple[str, int] | None:
    if not text:
        return host, port
    given, separator, number = text.rpartition(":")
    try:
        address = str(ipaddress.ip_address(given.strip("[]"))) if separator else host
        chosen = int(number)
    except ValueError:
        raise InvalidConfiguration(f"{flag}: {text!r} is not IP:PORT") from None
    if not 0 <= chosen <= 65535:
        raise InvalidConfiguration(f"{flag}: {chosen} is not a port")
    return (address, chosen) if chosen else None
