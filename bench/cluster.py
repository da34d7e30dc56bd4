"""A cluster to measure, and what its processes use.

My job: start one on free ports in a folder that goes away, and read CPU seconds and memory of its processes from /proc.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniplane.control import ask
from miniplane.launch import Cluster, down, up
from miniplane.state import StateDir

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    cluster: Cluster
    seconds: float

    @property
    def kubeconfig(self) -> Path:
        return self.cluster.kubeconfig

    def pids(self) -> dict[str, int]:
        """Process name → pid, the supervisor's own included."""
        status = ask(self.cluster.state, {"do": "status"})
        found = {str(entry["name"]): int(entry["pid"]) for entry in status["processes"] if entry.get("pid")}
        supervisor = status.get("supervisor")
        if isinstance(supervisor, dict) and supervisor.get("pid"):
            found["supervisor"] = int(supervisor["pid"])
        return found


@contextmanager
def running(nodes: int = 1, kubelet: Mapping[str, Any] | None = None) -> Iterator[Measured]:
    """`kubelet`: fields of its configuration file that differ from what `up` writes."""
    with tempfile.TemporaryDirectory(prefix="miniplane-bench-") as folder:
        state = StateDir.of(Path(folder) / "state")
        options = {"secure_port": 0, "nodes": nodes}
        started = time.perf_counter()
        try:
            cluster = up(state, options, report=lambda line: None)
            measured = Measured(cluster, time.perf_counter() - started)
            if kubelet:
                _configure_kubelets(state, kubelet)
                up(state, options, report=lambda line: None)
            yield measured
        finally:
            down(state)


def _configure_kubelets(state: StateDir, fields: Mapping[str, Any]) -> None:
    for file in state.path.glob("nodes/*/config.yaml"):
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))
        ask(state, {"do": "restart", "process": file.parent.name})


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def pss_megabytes(pid: int) -> float:
    """Memory with shared pages divided among those who share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
