"""Counters, gauges and histograms in Prometheus' text form, under upstream's names.

Job: count and render. Neighbours: `server.metrics` and `agent.metrics` name them, `health` serves them. Rule: a gauge
that can be derived is derived (`Gauge(read=...)`), so that nothing has to be kept in step.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

PREFIX = "konnectivity_network_proxy_"
# Upstream's buckets of the dial histograms.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
Labels = tuple[str, ...]
Reading = Callable[[], "float | Mapping[Labels, float]"]


class Counter:
    """Only grows. Without label names it has the one value."""

    kind = "counter"

    def __init__(self, name: str, about: str, labels: Sequence[str] = ()) -> None:
        self.name, self.about, self.labels = PREFIX + name, about, tuple(labels)
        self.values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, amount: float = 1.0) -> None:
        self.values[labels] = self.values.get(labels, 0.0) + amount

    def render(self) -> list[str]:
        return [_line(self.name, self.labels, values, value) for values, value in sorted(self.values.items())]


class Gauge:
    """Read when it is asked for."""

    kind = "gauge"

    def __init__(self, name: str, about: str, read: Reading, labels: Sequence[str] = ()) -> None:
        self.name, self.about, self.labels, self._read = PREFIX + name, about, tuple(labels), read

    def render(self) -> list[str]:
        reading = self._read()
        if isinstance(reading, Mapping):
            return [_line(self.name, self.labels, values, value) for values, value in sorted(reading.items())]
        return [_line(self.name, (), (), reading)]


class Histogram:
    """Without label names it has the one series, which is rendered even while it is empty."""

    kind = "histogram"

    def __init__(
        self, name: str, about: str, bounds: Sequence[float] = SECONDS, labels: Sequence[str] = ()
    ) -> None:
        self.name, self.about, self.bounds, self.labels = PREFIX + name, about, tuple(bounds), tuple(labels)
        self.series: dict[Labels, Series] = {} if labels else {(): Series(self.bounds)}

    def observe(self, value: float, *labels: str) -> None:
        series = self.series.get(labels)
        if series is None:
            series = self.series[labels] = Series(self.bounds)
        series.observe(value)

    def render(self) -> list[str]:
        return [line for labels, series in sorted(self.series.items()) for line in self._render(labels, series)]

    def _render(self, labels: Labels, series: "Series") -> list[str]:
        lines, running = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), series.counts, strict=True):
            running += count
            lines.append(_line(self.name + "_bucket", (*self.labels, "le"), (*labels, bound), running))
        lines.append(_line(self.name + "_sum", self.labels, labels, series.total))
        lines.append(_line(self.name + "_count", self.labels, labels, running))
        return lines


class Series:
    """One histogram's observations under one set of labels."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Metric = Counter | Gauge | Histogram


def render(metrics: Sequence[Metric]) -> str:
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.about}", f"# TYPE {metric.name} {metric.kind}", *metric.render()]
    return "\n".join(lines) + "\n"


def _line(name: str, names: Labels, values: Labels, value: float) -> str:
    pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in zip(names, values, strict=True))
    number = int(value) if float(value).is_integer() else value
    return f"{name}{{{pairs}}} {number}" if pairs else f"{name} {number}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
