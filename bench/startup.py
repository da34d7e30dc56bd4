"""`python -m bench.startup`: how long until a cluster is ready, how long until it is gone, what memory it takes.

Ready means a pod's log line read through API server and kubelet. First starts have an empty state directory, later ones
a used one. Memory is the sum of PSS over every process of the cluster, one second after ready. Kubernetes 1.36 with
etcd on a machine like the one these bounds were set on: 4.7 s until the API alone is ready, 587 MB. Option: `--runs 7`.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from miniplane.control import ask
from miniplane.processes import children
from miniplane.state import StateDir
from miniplane.status import pss

READY_BOUND, MEMORY_BOUND = 2.5, 200e6


def miniplane(word: str, state: StateDir, *flags: str) -> float:
    """Seconds the command takes, the interpreter's own start included."""
    command = [sys.executable, "-m", "miniplane", word, "--state-dir", str(state.path), *flags]
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def up(state: StateDir) -> float:
    return miniplane("up", state, "--secure-port", "0")


def memory(state: StateDir) -> float:
    """Bytes of PSS: the guardian, the supervisor, and everybody below it."""
    supervisor = int(ask(state, {"do": "status"})["pid"])
    guardian = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
    pids, total = [guardian], 0
    while pids:
        pid = pids.pop()
        total += pss(pid) or 0
        pids += children(pid)
    return float(total)


def one_run(folder: Path) -> dict[str, float]:
    state = StateDir.of(folder)
    figures = {"first up s": up(state)}
    time.sleep(1.0)  # garbage of the start is given back, caches are filled
    figures["memory MB"] = memory(state) / 1e6
    figures["down s"] = miniplane("down", state)
    figures["up s"] = up(state)
    miniplane("down", state)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    results: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(options.runs):
            results.append(one_run(Path(folder) / str(run)))
    medians = {name: statistics.median(result[name] for result in results) for name in results[0]}
    bounds: dict[str, Callable[[float], bool]] = {
        "first up s": lambda value: value <= READY_BOUND,
        "up s": lambda value: value <= READY_BOUND,
        "memory MB": lambda value: value <= MEMORY_BOUND / 1e6,
    }
    failed = [name for name, holds in bounds.items() if not holds(medians[name])]
    for name, median in medians.items():
        lowest, highest = min(result[name] for result in results), max(result[name] for result in results)
        print(
            f"{name:<12} {median:7.2f}   ({lowest:.2f} to {highest:.2f}){'   over its bound' if name in failed else ''}"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
