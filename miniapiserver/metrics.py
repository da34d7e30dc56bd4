"""Numbers the API server keeps about itself, in Prometheus' text format.

My job: counters, gauges and histograms cheap enough for every request, and the page `/metrics`. I own the values;
filters, storage and the path to the nodes add to them. Names are upstream's where upstream has the metric.
"""

import bisect
import resource
import time
from collections.abc import Callable, Iterable

Labels = tuple[str, ...]

#: Upstream's buckets of `apiserver_request_duration_seconds`, thinned to what a page can bear.
DURATION_BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 15.0, 30.0, 60.0)


class Counter:
    def __init__(self, name: str, help_text: str, labels: Labels) -> None:
        self.name, self.help, self.labels, self.kind = name, help_text, labels, "counter"
        self.values: dict[Labels, float] = {}

    def add(self, values: Labels, amount: float = 1.0) -> None:
        self.values[values] = self.values.get(values, 0.0) + amount

    def lines(self) -> Iterable[str]:
        for values, amount in self.values.items():
            yield f"{self.name}{_labels(self.labels, values)} {amount:g}"


class Gauge(Counter):
    """Set, or read from `source` when the page is asked for."""

    def __init__(self, name: str, help_text: str, labels: Labels = (),
                 source: Callable[[], Iterable[tuple[Labels, float]]] | None = None) -> None:
        super().__init__(name, help_text, labels)
        self.kind = "gauge"
        self._source = source

    def set(self, values: Labels, amount: float) -> None:
        self.values[values] = amount

    def lines(self) -> Iterable[str]:
        if self._source is not None:
            self.values = dict(self._source())
        return super().lines()


class Histogram:
    def __init__(self, name: str, help_text: str, labels: Labels,
                 buckets: tuple[float, ...] = DURATION_BUCKETS) -> None:
        self.name, self.help, self.labels, self.kind, self.buckets = name, help_text, labels, "histogram", buckets
        self._counts: dict[Labels, list[float]] = {}

    def observe(self, values: Labels, seconds: float) -> None:
        counts = self._counts.get(values)
        if counts is None:
            counts = self._counts[values] = [0.0] * (len(self.buckets) + 2)
        counts[bisect.bisect_left(self.buckets, seconds)] += 1
        counts[-1] += seconds

    def lines(self) -> Iterable[str]:
        for values, counts in self._counts.items():
            running = 0.0
            for limit, count in zip((*self.buckets, float("inf")), counts[:-1], strict=True):
                running += count
                edge = "+Inf" if limit == float("inf") else f"{limit:g}"
                yield f"{self.name}_bucket{_labels((*self.labels, 'le'), (*values, edge))} {running:g}"
            yield f"{self.name}_sum{_labels(self.labels, values)} {counts[-1]:g}"
            yield f"{self.name}_count{_labels(self.labels, values)} {running:g}"


def _labels(names: Labels, values: Labels) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Metrics:
    """Lives as long as the server."""

    def __init__(self) -> None:
        self.requests = Counter("apiserver_request_total", "Requests by verb, resource and code.",
                                ("verb", "group", "version", "resource", "subresource", "scope", "code"))
        self.durations = Histogram("apiserver_request_duration_seconds", "Response latency of requests that end.",
                                   ("verb", "group", "version", "resource", "subresource", "scope"))
        self.inflight = Gauge("apiserver_current_inflight_requests", "Requests being served now.", ("request_kind",))
        self.long_running = Gauge("apiserver_longrunning_requests", "Watches and streams being served now.",
                                  ("verb", "resource", "subresource"))
        self._started = time.time()
        self._all: list[Counter | Histogram] = [self.requests, self.durations, self.inflight, self.long_running,
                                                Gauge("process_start_time_seconds", "When this process started.",
                                                      source=lambda: [((), self._started)]),
                                                Gauge("process_cpu_seconds_total", "CPU time used.", source=_cpu),
                                                Gauge("process_resident_memory_bytes", "Largest resident size.",
                                                      source=_memory)]

    def add(self, metric: Counter | Histogram) -> None:
        """Let somebody else's metric appear on the page."""
        self._all.append(metric)

    def page(self) -> str:
        lines: list[str] = []
        for metric in self._all:
            lines += (f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *metric.lines())
        return "\n".join(lines) + "\n"


def _cpu() -> Iterable[tuple[Labels, float]]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return [((), usage.ru_utime + usage.ru_stime)]


def _memory() -> Iterable[tuple[Labels, float]]:
    return [((), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0)]
