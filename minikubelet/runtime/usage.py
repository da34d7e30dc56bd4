"""What a process tree uses, read from /proc: CPU time, resident memory, number of processes.

My job: figures for stats and for the memory limit, without cgroups, which need rights we may not have. I own nothing.
Rule: the tree is found from its first process downwards; what has left the host's /proc counts through its parent's
`cutime`/`cstime`.
"""

import os
from dataclasses import dataclass

TICK_NANOSECONDS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    cpu_nanoseconds: int
    rss_bytes: int
    processes: int


def children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        pass  # gone meanwhile
    return found


def tree(init: int) -> list[int]:
    """Every process below `init`, without itself: that one is ours, not the container's."""
    found = children(init)
    for pid in found:
        found += children(pid)
    return found


def measure(init: int) -> Usage:
    processes = tree(init)
    ticks = _cpu_ticks(init, reaped_only=True)
    rss = 0
    for pid in processes:
        ticks += _cpu_ticks(pid, reaped_only=False)
        rss += _rss_pages(pid)
    return Usage(ticks * TICK_NANOSECONDS, rss * PAGE_BYTES, len(processes))


def _cpu_ticks(pid: int, *, reaped_only: bool) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[13:15] if reaped_only else fields[11:15]))


def _rss_pages(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError):
        return 0
