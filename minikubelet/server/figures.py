"""What the containers use: /stats/summary and the metrics of the endpoint.

My job: one reading of the runtime's figures, turned into the Summary JSON or Prometheus text. I own the last CPU
sample per container, which a rate needs. Neighbours: the runtime's `Stats`, `endpoint`.
"""

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from minikubelet.clock import Clock, rfc3339
from minikubelet.machine import Machine
from minikubelet.pods.records import ContainerRecord, Running
from minikubelet.pods.worker import PodWorker
from minikubelet.pods.workers import PodWorkers
from minikubelet.runtime.interface import RuntimeFailure, Stats

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Sample:
    cpu_nanoseconds: int
    at: float


class Figures:
    """Lives as long as the server."""

    def __init__(self, workers: PodWorkers, node_name: str, machine: Machine, clock: Clock) -> None:
        self._workers, self._node_name, self._machine, self._clock = workers, node_name, machine, clock
        self._samples: dict[str, _Sample] = {}
        self._rates: dict[str, int] = {}
        self._started = clock.now()

    # Summary

    def summary(self, *, only_cpu_and_memory: bool) -> JSON:
        used = list(self._used())
        now = self._clock.now()
        node: JSON = {"nodeName": self._node_name, "startTime": rfc3339(self._started)}
        node |= self._cpu_memory(now, "node", sum(stats.cpu_nanoseconds for *_, stats in used),
                                 sum(stats.rss_bytes for *_, stats in used), self._machine.memory)
        if not only_cpu_and_memory:
            node["rlimit"] = {"time": rfc3339(now), "maxpid": 4194304, "curproc": sum(s.processes for *_, s in used)}
        return {"node": node, "pods": [self._pod(worker, now) for worker in self._workers if worker.uses_resources]}

    def _pod(self, worker: PodWorker, now: datetime) -> JSON:
        ref = worker.ref
        containers = [(record, stats) for owner, record, stats in self._used() if owner is worker]
        body: JSON = {"podRef": {"name": ref.name, "namespace": ref.namespace, "uid": ref.uid},
                      "startTime": worker.status().get("startTime"),
                      "containers": [self._container(record, stats, now) for record, stats in containers]}
        body |= self._cpu_memory(now, ref.uid, sum(stats.cpu_nanoseconds for _, stats in containers),
                                 sum(stats.rss_bytes for _, stats in containers), None)
        return body | {"process_stats": {"process_count": sum(stats.processes for _, stats in containers)}}

    def _container(self, record: ContainerRecord, stats: Stats, now: datetime) -> JSON:
        assert isinstance(record.state, Running)
        limit = ((record.spec.get("resources") or {}).get("limits") or {}).get("memory")
        body: JSON = {"name": record.name, "startTime": record.state.started_at}
        return body | self._cpu_memory(now, record.container_id, stats.cpu_nanoseconds, stats.rss_bytes,
                                       None if limit is None else self._machine.memory)

    def _cpu_memory(self, now: datetime, key: str, cpu: int, memory: int, available: int | None) -> JSON:
        stamp = rfc3339(now)
        usage: JSON = {"time": stamp, "usageBytes": memory, "workingSetBytes": memory, "rssBytes": memory}
        if available is not None:
            usage["availableBytes"] = max(available - memory, 0)
        return {"cpu": {"time": stamp, "usageNanoCores": self._rate(key, cpu), "usageCoreNanoSeconds": cpu},
                "memory": usage}

    def _rate(self, key: str, cpu: int) -> int:
        """Nanocores since the last reading that is at least a second old."""
        now, last = self._clock.monotonic(), self._samples.get(key)
        if last is None or now - last.at >= 1.0:
            if last is not None:
                self._rates[key] = max(int((cpu - last.cpu_nanoseconds) / (now - last.at)), 0)
            self._samples[key] = _Sample(cpu, now)
        return self._rates.get(key, 0)

    def _used(self) -> Iterator[tuple[PodWorker, ContainerRecord, Stats]]:
        for worker in self._workers:
            for supervisor in list(worker.supervisors.values()):
                if supervisor.container is None or not supervisor.record.is_running:
                    continue
                try:
                    yield worker, supervisor.record, supervisor.container.stats()
                except RuntimeFailure:
                    continue

    # Prometheus

    def kubelet_metrics(self) -> str:
        running = [worker for worker in self._workers if any(record.is_running for record in worker.records.values())]
        containers = sum(record.is_running for worker in running for record in worker.records.values())
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return _page(
            _family("kubelet_node_name", "gauge", "The node's name. The count is always 1.",
                    [({"node": self._node_name}, 1)]),
            _family("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox",
                    [({}, len(running))]),
            _family("kubelet_running_containers", "gauge", "Number of containers currently running",
                    [({"container_state": "running"}, containers)]),
            _family("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.",
                    [({}, usage.ru_utime + usage.ru_stime)]),
            _family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", [({}, _own_memory())]),
            _family("process_open_fds", "gauge", "Number of open file descriptors.",
                    [({}, len(os.listdir("/proc/self/fd")))]),
            _family("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.",
                    [({}, self._started.timestamp())]),
        )

    def cadvisor_metrics(self) -> str:
        used = list(self._used())

        def labels(worker: PodWorker, record: ContainerRecord) -> dict[str, str]:
            return {"container": record.name, "id": record.container_id, "image": str(record.spec.get("image", "")),
                    "name": record.container_id, "namespace": worker.ref.namespace, "pod": worker.ref.name}

        return _page(
            _family("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.",
                    [(labels(worker, record), stats.cpu_nanoseconds / 1e9) for worker, record, stats in used]),
            _family("container_memory_working_set_bytes", "gauge", "Current working set in bytes.",
                    [(labels(worker, record), stats.rss_bytes) for worker, record, stats in used]),
            _family("container_processes", "gauge", "Number of processes running inside the container.",
                    [(labels(worker, record), stats.processes) for worker, record, stats in used]),
        )

    def resource_metrics(self) -> str:
        used = list(self._used())
        rows = [({"container": record.name, "namespace": worker.ref.namespace, "pod": worker.ref.name}, record, stats)
                for worker, record, stats in used]
        return _page(
            _family("container_cpu_usage_seconds_total", "counter",
                    "Cumulative cpu time consumed by the container in core-seconds",
                    [(labels, stats.cpu_nanoseconds / 1e9) for labels, _, stats in rows]),
            _family("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes",
                    [(labels, stats.rss_bytes) for labels, _, stats in rows]),
            _family("node_cpu_usage_seconds_total", "counter",
                    "Cumulative cpu time consumed by the node in core-seconds",
                    [({}, sum(stats.cpu_nanoseconds for *_, stats in used) / 1e9)]),
            _family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes",
                    [({}, sum(stats.rss_bytes for *_, stats in used))]),
            _family("scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise",
                    [({}, 0)]),
        )

    def probe_metrics(self) -> str:
        samples: list[tuple[dict[str, str], float]] = []
        for worker in self._workers:
            for (container, kind, result), count in worker.context.probe_counts.items():
                samples.append(({"container": container, "namespace": worker.ref.namespace, "pod": worker.ref.name,
                                 "pod_uid": worker.ref.uid, "probe_type": kind, "result": result}, count))
        return _page(_family("prober_probe_total", "counter",
                             "Cumulative number of a liveness, readiness or startup probe for a container by result.",
                             samples))


def _own_memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _family(name: str, kind: str, words: str, samples: list[tuple[dict[str, str], float]]) -> list[str]:
    lines = [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _page(*families: list[str]) -> str:
    return "\n".join(line for family in families for line in family) + "\n"
