"""The server's metrics, with upstream's names.

Job: hold the counters and describe the derived gauges. Neighbours: everyone in the server counts here.
"""

from collections.abc import Callable, Mapping

from konnectivity.metrics import Counter, Gauge, Histogram, Metric, render
from konnectivity.server.backends import Backends
from konnectivity.server.dials import Backend
from konnectivity.streammetrics import StreamMetrics

LEASE_CALL = ("http_status_code", "reason")
WRITES = (0.000001, 0.00001, 0.0001, 0.005, 0.025, 0.1, 0.5, 2.5, 12.5)
LIFETIMES = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86400.0)


class Metrics:
    """What is counted as it happens. Lives as long as the server."""

    def __init__(self) -> None:
        self.dial_seconds = Histogram("server_dial_duration_seconds", "Dial latency to the endpoint in seconds")
        self.connection_seconds = Histogram("server_connection_duration_seconds", "Connection lifetimes", LIFETIMES)
        self.dial_failures = Counter("server_dial_failure_count", "Dial failures by reason", ("reason",))
        self.front_write_seconds = Histogram(
            "server_frontend_write_duration_seconds", "Time until a front can take more after a write", WRITES
        )
        self.streams = StreamMetrics("server")
        self.full_channels = Counter(
            "server_full_receive_channels", "Connections closed because a peer flooded them", ("service_method",)
        )
        self.leases_culled = Counter("server_culled_leases_count", "Expired leases removed")
        self.lease_deletes = Counter("server_lease_delete_total", "Lease deletions", LEASE_CALL)
        self.lease_lists = Counter("server_lease_list_total", "Lease lists", LEASE_CALL)
        self.lease_delete_seconds = Histogram(
            "server_lease_delete_latency_seconds", "Latency of lease deletions in seconds", labels=LEASE_CALL[:1]
        )
        self.lease_list_seconds = Histogram(
            "server_lease_list_latency_seconds", "Latency of lease lists in seconds", labels=LEASE_CALL[:1]
        )

    def text(self, backends: Backends[Backend], fronts: Callable[[], Mapping[str, int]]) -> str:
        return render([*_counted(self), *_derived(backends, fronts)])


def _counted(metrics: Metrics) -> list[Metric]:
    return [
        metrics.dial_seconds,
        metrics.connection_seconds,
        metrics.dial_failures,
        metrics.front_write_seconds,
        metrics.streams.packets,
        metrics.streams.errors,
        metrics.full_channels,
        metrics.leases_culled,
        metrics.lease_deletes,
        metrics.lease_lists,
        metrics.lease_delete_seconds,
        metrics.lease_list_seconds,
    ]


def _derived(backends: Backends[Backend], fronts: Callable[[], Mapping[str, int]]) -> list[Metric]:
    def streams() -> dict[tuple[str, ...], float]:
        return {("Connect",): len(backends), ("Proxy",): fronts().get("grpc", 0)}

    def ready() -> dict[tuple[str, ...], float]:
        return {(name,): backends.ready(name) for name in backends.strategies}

    return [
        Gauge("server_grpc_connections", "Open gRPC calls by method", streams, ("service_method",)),
        Gauge("server_http_connections", "Open HTTP CONNECT connections", lambda: fronts().get("http-connect", 0)),
        Gauge("server_ready_backend_connections", "Connected agents (deprecated)", lambda: len(backends)),
        Gauge("server_ready_backends", "Connected agents by strategy", ready, ("proxy_strategy",)),
        Gauge(
            "server_pending_backend_dials",
            "Dials without an answer yet",
            lambda: sum(backend.pending_dials for backend in backends),
        ),
        Gauge("server_established_connections", "Established connections", lambda: sum(b.load for b in backends)),
    ]
