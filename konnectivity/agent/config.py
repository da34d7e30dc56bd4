"""The agent's flags: upstream's names and defaults."""

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from konnectivity.flags import BadConfiguration, flag, parse

IGNORED = {
    "enable-profiling": "no pprof here",
    "enable-contention-profiling": "no pprof here",
    "kube-api-content-type": "JSON is spoken",
    "xfr-channel-size": "buffers are bounded in bytes",
    "channel-size": "buffers are bounded in bytes",
    "warn-on-channel-limit": "deprecated upstream",
    "lease-label": "deprecated upstream",
    "logtostderr": "logs go to stderr",
    "alsologtostderr": "logs go to stderr",
}
IDENTIFIER_KEYS = frozenset(("ipv4", "ipv6", "host", "cidr", "default-route"))


@dataclass(frozen=True, slots=True)
class Config:
    agent_cert: str = flag("", "client certificate")
    agent_key: str = flag("", "its key")
    ca_cert: str = flag("", "CA of the servers' certificates; default: the system's")
    proxy_server_host: str = flag("127.0.0.1", "the servers' address (often a load balancer)")
    proxy_server_port: int = flag(8091, "the servers' agent port")
    alpn_proto: tuple[str, ...] = flag((), "ALPN protocols to offer before h2")
    health_server_host: str = flag("", "address of the health port")
    health_server_port: int = flag(8093, "port of /healthz, /readyz, /metrics")
    admin_server_port: int = flag(8094, "port of /metrics")
    admin_bind_address: str = flag("127.0.0.1", "address of the admin port")
    agent_id: str = flag("", "id of this agent; default: a random UUID")
    agent_identifiers: str = flag("", "what it reaches: ipv4=&ipv6=&host=&cidr=&default-route=true")
    sync_interval: float = flag(1.0, "wait between attempts to reach another server")
    sync_interval_cap: float = flag(10.0, "longest wait after failures")
    probe_interval: float = flag(1.0, "how often the number of links is looked at")
    keepalive_time: float = flag(3600.0, "idle time before a foreign server is pinged (ours: 3 s)")
    service_account_token_path: str = flag("", "token to present; read anew at each connect")
    sync_forever: bool = flag(False, "keep trying for more servers than are known")
    count_server_leases: bool = flag(False, "count servers by their leases")
    lease_namespace: str = flag("kube-system", "namespace of the leases")
    lease_label_selector: str = flag("k8s-app=konnectivity-server", "selector of the leases")
    server_count_source: str = flag("default", "default: leases if counted; max: the larger of both counts")
    kubeconfig: str = flag("", "how to reach the API server for leases")
    connections_socket: str = flag("", "UNIX socket to serve the ledger of connections on")


def load(arguments: Sequence[str] | None) -> Config:
    """Raises BadConfiguration."""
    config = parse(Config, "konnectivity.agent", "Konnectivity proxy agent", arguments, IGNORED)
    check(config)
    return config


def new_agent_id() -> str:
    return str(uuid.uuid4())


def check(config: Config) -> None:
    unknown = {key for key, _ in parse_qsl(config.agent_identifiers, keep_blank_values=True)} - IDENTIFIER_KEYS
    if unknown:
        raise BadConfiguration(f"--agent-identifiers: unknown {sorted(unknown)}; known are {sorted(IDENTIFIER_KEYS)}")
    if bool(config.agent_cert) != bool(config.agent_key):
        raise BadConfiguration("--agent-cert and --agent-key go together")
    if config.server_count_source not in ("default", "max"):
        raise BadConfiguration(f"--server-count-source must be default or max, not {config.server_count_source!r}")
    if config.count_server_leases and not config.kubeconfig:
        raise BadConfiguration("--count-server-leases needs --kubeconfig")
    if config.sync_interval <= 0 or config.sync_interval_cap < config.sync_interval:
        raise BadConfiguration("--sync-interval must be positive and not above --sync-interval-cap")
    for path in (config.ca_cert, config.agent_cert, config.agent_key, config.service_account_token_path):
        if path and not os.path.exists(path):
            raise BadConfiguration(f"{path}: no such file")
