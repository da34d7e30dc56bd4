"""The agent's metrics, with upstream's names."""

from collections.abc import Callable

from konnectivity.metrics import Counter, Gauge, Histogram, render


class Metrics:
    """What is counted as it happens; `text` adds what can be read off. Lives as long as the agent."""

    def __init__(self) -> None:
        self.dial_seconds = Histogram("agent_dial_duration_seconds", "Dial latency to the endpoint in seconds")
        self.connect_failures = Counter(
            "agent_server_connection_failure_count", "Failed connections to servers (deprecated)", ("direction",)
        )
        self.dial_failures = Counter("agent_endpoint_dial_failure_total", "Failed dials to endpoints", ("reason",))
        self.packets = Counter("agent_stream_packets_total", "Packets processed", ("segment", "packet_type"))
        self.stream_errors = Counter(
            "agent_stream_errors_total", "Errors on streams", ("segment", "code", "packet_type")
        )
        self.lease_lists = Counter("agent_lease_lists_total", "Lease lists", ("http_status_code",))

    def count_packet(self, direction: str, packet: str) -> None:
        self.packets.add(f"{direction}_agent", packet)

    def text(self, links: Callable[[], int], servers: Callable[[], int], connections: Callable[[], int]) -> str:
        return render(
            [
                self.dial_seconds,
                self.connect_failures,
                self.dial_failures,
                self.packets,
                self.stream_errors,
                self.lease_lists,
                Gauge("agent_open_server_connections", "Links to servers", links),
                Gauge("agent_known_server_count", "Servers believed to exist", servers),
                Gauge("agent_open_endpoint_connections", "Open connections to endpoints", connections),
            ]
        )
