"""Processes as Linux sees them: spawn one that dies with us, reap whatever ends, kill what was recorded.

My job: the calls around fork and wait that the standard library has no words for. I own the SIGCHLD handler of the
process that makes a `Reaper`. Rule: a pid is believed only together with its start time, since pids are used again.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, Self

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be confused with a later one of the same pid."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        stat = _stat(pid)
        return None if stat is None else cls(pid, stat.start_time)

    @property
    def is_alive(self) -> bool:
        stat = _stat(self.pid)
        return stat is not None and stat.start_time == self.start_time and stat.state != "Z"

    def send(self, number: int) -> None:
        """Signal the process group it leads, or itself alone if it leads none; nothing if it has gone."""
        if not self.is_alive:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    start_time: int


def _stat(pid: int) -> _Stat | None:
    """Fields 3, 4 and 22 of /proc/<pid>/stat. The name before them may hold spaces and parentheses."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[1]), int(fields[19]))


def children(pid: int) -> list[int]:
    """Every living child of `pid`, whichever thread forked it."""
    found = []
    for entry in _pids():
        stat = _stat(entry)
        if stat is not None and stat.parent == pid and stat.state != "Z":
            found.append(entry)
    return found


def _pids() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def adopt_orphans() -> None:
    """From now on, descendants that lose their parent become our children instead of init's."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def die_with_parent(parent: int, number: int) -> None:
    """In a fresh fork: let the kernel send us `number` when `parent` ends."""
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended between fork and prctl
        os.kill(os.getpid(), number)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one process."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    log: IO[bytes]


def spawn(launch: Launch) -> "subprocess.Popen[bytes]":
    """A process in its own session that the kernel kills when this one dies, however it dies. Raises OSError."""
    return subprocess.Popen(
        launch.argv,
        env=dict(launch.environment),
        cwd=launch.directory,
        stdin=subprocess.DEVNULL,
        stdout=launch.log,
        stderr=launch.log,
        start_new_session=True,
        preexec_fn=partial(
            die_with_parent, os.getpid(), signal.SIGKILL
        ),  # safe: one thread, so nothing another could have locked
    )


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended."""

    code: int

    @property
    def words(self) -> str:
        if self.code >= 0:
            return f"exit code {self.code}"
        try:
            return f"killed by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"killed by signal {-self.code}"


class Reaper:
    """The one place that waits for children: ours are told to their owner, adopted orphans just buried.

    Lives as long as the event loop. Two waiters for one process would steal each other's statuses; hence no
    asyncio.subprocess beside this.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[subprocess.Popen[bytes], asyncio.Future[Exit]]] = {}

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        return self

    def __exit__(self, *_: Any) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    def watch(self, process: "subprocess.Popen[bytes]") -> asyncio.Future[Exit]:
        """Call at once after `spawn`, before anything is awaited."""
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._waiting[process.pid] = (process, future)
        return future

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process, future = self._waiting.pop(pid, (None, None))
            if process is None or future is None:
                continue
            process.returncode = os.waitstatus_to_exitcode(status)
            if not future.done():
                future.set_result(Exit(process.returncode))
