"""The ledger as Prometheus metrics: connections into the nodes' network by path and by what protects them.

My job: three families, read from the ledger when the page is asked for; nothing is counted twice or kept here. An alert
on `miniplane_node_connections{protection!="verified",path="direct"} > 0` is the documentation's warning as a rule.
"""

from collections.abc import Callable, Iterable

from miniapiserver.metrics import Gauge, Labels, Metrics
from wire.connections import Ledger


def add_connection_metrics(metrics: Metrics, ledger: Ledger) -> None:
    def live() -> Iterable[tuple[Labels, float]]:
        for (path, protection), total in ledger.totals().items():
            yield (path, protection.value), total.live

    def ended() -> Iterable[tuple[Labels, float]]:
        for (path, protection), total in ledger.totals().items():
            yield (path, protection.value, "closed"), total.ended
            yield (path, protection.value, "failed"), total.failed

    def moved() -> Iterable[tuple[Labels, float]]:
        for (path, protection), total in ledger.totals().items():
            yield (path, protection.value, "received"), total.received
            yield (path, protection.value, "sent"), total.sent

    metrics.add(Gauge("miniplane_node_connections", "Connections into the nodes' network that stand now.",
                      ("path", "protection"), live))  # fmt: skip
    metrics.add(_counter("miniplane_node_connections_ended_total", "Those that have ended, and how.",
                         ("path", "protection", "state"), ended))  # fmt: skip
    metrics.add(_counter("miniplane_node_connection_bytes_total", "Bytes inside TLS that went over them.",
                         ("path", "protection", "direction"), moved))  # fmt: skip


def _counter(name: str, help_text: str, labels: Labels, source: Callable[[], Iterable[tuple[Labels, float]]]) -> Gauge:
    counter = Gauge(name, help_text, labels, source)
    counter.kind = "counter"
    return counter
