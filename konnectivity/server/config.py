"""The server's flags: upstream's names, and upstream's defaults but for the ones said here.

`--backend-dial-timeout` is on (10 s): upstream's default of 0 lets pending dials pile up for ever
(kubernetes-sigs/apiserver-network-proxy#855). `--health-bind-address` and `--agent-bind-address` are empty as upstream:
all addresses.
"""

import ssl
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from konnectivity.flags import BadConfiguration, flag, parse

IGNORED = {
    "enable-profiling": "no pprof here",
    "enable-contention-profiling": "no pprof here",
    "kubeconfig-qps": "one TokenReview per agent needs no limit",
    "kubeconfig-burst": "one TokenReview per agent needs no limit",
    "kube-api-content-type": "JSON is spoken",
    "xfr-channel-size": "buffers are bounded in bytes",
    "warn-on-channel-limit": "deprecated upstream",
    "logtostderr": "logs go to stderr",
    "alsologtostderr": "logs go to stderr",
    "log-file-max-size": "logs go to stderr",
}
TLS_VERSIONS = {
    "": ssl.TLSVersion.TLSv1_2,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}


@dataclass(frozen=True, slots=True)
class Config:
    mode: str = flag("grpc", "how the API server connects: grpc or http-connect")
    uds_name: str = flag("", "front on this UNIX socket instead of TCP")
    delete_existing_uds_file: bool = flag(True, "remove a stale socket file first")
    server_port: int = flag(8090, "front port (0 with --uds-name)")
    server_bind_address: str = flag("", "front address")
    server_cert: str = flag("", "certificate of the front port")
    server_key: str = flag("", "key of the front port")
    server_ca_cert: str = flag("", "CA of the API server's client certificates")
    agent_port: int = flag(8091, "port for agents")
    agent_bind_address: str = flag("", "address for agents")
    cluster_cert: str = flag("", "certificate of the agent port")
    cluster_key: str = flag("", "key of the agent port")
    cluster_ca_cert: str = flag("", "CA of the agents' client certificates")
    admin_port: int = flag(8095, "port of /metrics")
    admin_bind_address: str = flag("127.0.0.1", "address of the admin port")
    health_port: int = flag(8092, "port of /healthz, /readyz, /metrics")
    health_bind_address: str = flag("", "address of the health port")
    keepalive_time: float = flag(3600.0, "idle time before a foreign agent is pinged (ours: 3 s)")
    frontend_keepalive_time: float = flag(3600.0, "idle time before a gRPC front is pinged")
    server_id: str = flag("", "id among several servers; default: a random UUID")
    server_count: int = flag(1, "how many servers there are, told to agents")
    agent_namespace: str = flag("", "namespace of the agents' service account (token authentication)")
    agent_service_account: str = flag("", "the agents' service account (token authentication)")
    authentication_audience: str = flag("", "audience of the agents' tokens, usually system:konnectivity-server")
    kubeconfig: str = flag("", "how to reach the API server for TokenReviews and leases")
    proxy_strategies: tuple[str, ...] = flag(("default",), "default, destHost, defaultRoute; in order")
    cipher_suites: tuple[str, ...] = flag((), "cipher suites of TLS 1.2 (OpenSSL's names)")
    tls_min_version: str = flag("", "VersionTLS12 or VersionTLS13")
    enable_lease_controller: bool = flag(False, "publish a lease for this server")
    lease_namespace: str = flag("kube-system", "namespace of the leases")
    lease_label: str = flag("k8s-app=konnectivity-server", "label of the leases, key=value")
    graceful_shutdown_timeout: float = flag(0.0, "how long connections may end after SIGTERM")
    backend_dial_timeout: float = flag(10.0, "longest wait for an agent's answer to a dial; 0: for ever")

    @property
    def has_token_authentication(self) -> bool:
        return bool(self.agent_namespace)

    @property
    def minimum_tls(self) -> ssl.TLSVersion:
        return TLS_VERSIONS[self.tls_min_version]


def load(arguments: Sequence[str] | None) -> Config:
    """Raises BadConfiguration."""
    config = parse(Config, "konnectivity.server", "Konnectivity proxy server", arguments, IGNORED)
    check(config)
    return config


def new_server_id() -> str:
    return str(uuid.uuid4())


def check(config: Config) -> None:
    """Refuse what cannot work, or would work less safely than it reads. Raises BadConfiguration."""
    if config.mode not in ("grpc", "http-connect"):
        raise BadConfiguration(f"--mode must be grpc or http-connect, not {config.mode!r}")
    if config.tls_min_version not in TLS_VERSIONS:
        raise BadConfiguration(f"--tls-min-version: {config.tls_min_version!r}; use VersionTLS12 or VersionTLS13")
    if config.server_count < 1:
        raise BadConfiguration("--server-count must be at least 1")
    _check_front(config)
    _check_agents(config)
    if config.enable_lease_controller and not config.kubeconfig:
        raise BadConfiguration("--enable-lease-controller needs --kubeconfig")
    if "=" not in config.lease_label:
        raise BadConfiguration(f"--lease-label must be key=value, not {config.lease_label!r}")


def _check_front(config: Config) -> None:
    files = (config.server_cert, config.server_key, config.server_ca_cert)
    if config.uds_name:
        if config.server_port != 0:
            raise BadConfiguration("--server-port must be 0 with --uds-name")
        if any(files):
            raise BadConfiguration("--server-cert, --server-key and --server-ca-cert do not go with --uds-name")
    elif not all(files):
        # Without the CA anybody could reach every address the agents can.
        raise BadConfiguration("a TCP front needs --server-cert, --server-key and --server-ca-cert")


def _check_agents(config: Config) -> None:
    if not config.cluster_cert or not config.cluster_key:
        raise BadConfiguration("the agent port needs --cluster-cert and --cluster-key")
    token = (config.agent_namespace, config.agent_service_account, config.authentication_audience)
    if any(token):
        if not all(token):
            raise BadConfiguration(
                "token authentication needs --agent-namespace, --agent-service-account and --authentication-audience"
            )
        if config.cluster_ca_cert:
            raise BadConfiguration("--cluster-ca-cert does not go with token authentication")
        if not config.kubeconfig:
            raise BadConfiguration("token authentication needs --kubeconfig")
    elif not config.cluster_ca_cert:
        # Upstream starts without either; an open agent port lets anybody be the cluster.
        raise BadConfiguration("agents must be authenticated: --cluster-ca-cert, or a token (--agent-namespace ...)")
