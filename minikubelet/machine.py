"""What the machine has: processors, memory, disk, its identities.

My job: read them from the kernel once or when asked. I own nothing. Neighbours: `nodestatus` reports them. Rule: the
cgroup this process lives in bounds what the machine has; a figure that cannot be read is left at a safe value.
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}
LOW_MEMORY = 100 * 2**20
LOW_DISK = 256 * 2**20
"""Upstream evicts at 10 % free; on a developer's nearly full disk that would make every node useless."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change while the process runs. Sizes in bytes."""

    cpu_millis: int
    memory: int
    disk: int
    architecture: str
    kernel_version: str
    os_image: str
    boot_id: str
    machine_id: str


@dataclass(frozen=True, slots=True)
class Pressure:
    """What is scarce now."""

    memory: bool
    disk: bool
    pids: bool


def inspect(root_dir: Path) -> Machine:
    boot_id = _text("/proc/sys/kernel/random/boot_id")
    return Machine(
        cpu_millis=_cpu_millis(),
        memory=_memory(),
        disk=_disk(root_dir)[0],
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        kernel_version=platform.release(),
        os_image=_os_image(),
        boot_id=boot_id,
        machine_id=_text("/etc/machine-id") or boot_id.replace("-", ""),
    )


def pressure(root_dir: Path) -> Pressure:
    available = _meminfo().get("MemAvailable")
    return Pressure(
        memory=available is not None and available < LOW_MEMORY,
        disk=_disk(root_dir)[1] < LOW_DISK,
        pids=_processes() > 0.95 * (_number("/proc/sys/kernel/pid_max") or 2**22),
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _cpu_millis() -> int:
    available = len(os.sched_getaffinity(0)) * 1000
    quota, _, period = _text("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        available = min(available, int(quota) * 1000 // int(period))
    return max(available, 1)


def _meminfo() -> dict[str, int]:
    figures = {}
    for line in _text("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()
        if number and number[0].isdigit():
            figures[name] = int(number[0]) * 1024
    return figures


def _memory() -> int:
    total = _meminfo().get("MemTotal", 2**30)
    limit = _number("/sys/fs/cgroup/memory.max")
    return min(total, limit) if limit else total


def _disk(path: Path) -> tuple[int, int]:
    """(size, free) of the file system below `path`."""
    try:
        figures = os.statvfs(path)
    except OSError:
        return 0, 2**63
    return figures.f_blocks * figures.f_frsize, figures.f_bavail * figures.f_frsize


def _processes() -> int:
    words = _text("/proc/loadavg").split()
    return int(words[3].partition("/")[2]) if len(words) > 3 else 0


def _os_image() -> str:
    for line in _text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()
