"""The agent's metrics, with upstream's names."""

from collections.abc import Callable

from konnectivity.metrics import Counter, Gauge, Histogram, render
from konnectivity.streammetrics import StreamMetrics


class Metrics:
    """What is counted as it happens; `text` adds what can be read off. Lives as long as the agent."""

    def __init__(self) -> None:
        self.dial_seconds = Histogram("agent_dial_duration_seconds", "Dial latency to the endpoint in seconds")
        self.connect_failures = Counter(
            "agent_server_connection_failure_count", "Failed connections to servers (deprecated)", ("direction",)
        )
        self.dial_failures = Counter("agent_endpoint_dial_failure_total", "Failed dials to endpoints", ("reason",))
        self.streams = StreamMetrics("agent")
        self.lease_lists = Counter("agent_lease_lists_total", "Lease lists", ("http_status_code", "reason"))
        self.lease_list_seconds = Histogram(
            "agent_lease_list_latency_seconds", "Latency of lease lists in seconds", labels=("http_status_code",)
        )

    def text(self, links: Callable[[], int], servers: Callable[[], int], connections: Callable[[], int]) -> str:
        return render(
            [
                self.dial_seconds,
                self.connect_failures,
                self.dial_failures,
                self.streams.packets,
                self.streams.errors,
                self.lease_lists,
                self.lease_list_seconds,
                Gauge("agent_open_server_connections", "Links to servers", links),
                Gauge("agent_known_server_count", "Servers believed to exist", servers),
                Gauge("agent_open_endpoint_connections", "Open connections to endpoints", connections),
            ]
        )
