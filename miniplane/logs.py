"""`miniplane logs`: what the cluster's processes said.

My job: read log files, whole or their end, and follow them as they grow or are begun anew.
"""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from miniplane.errors import MiniplaneError
from miniplane.state import StateDir

POLL_SECONDS: Final = 0.1


def show(state: StateDir, process: str | None, follow: bool, tail: int | None) -> int:
    files = _files(state, process)
    prefixed = len(files) > 1
    for path in files:
        for line in _last_lines(path, tail):
            _print(path, line, prefixed)
    if follow:
        _follow([_Follower.at_end(path) for path in files], prefixed)
    return 0


def _files(state: StateDir, process: str | None) -> list[Path]:
    there = sorted(state.logs.glob("*.log"))
    if not there:
        raise MiniplaneError(f"no logs in {state.logs}: `miniplane up` writes the first")
    if process is None:
        return there
    path = state.log(process)
    if path not in there:
        raise MiniplaneError(f"no log of {process!r}; there are {', '.join(file.stem for file in there)}")
    return [path]


def _last_lines(path: Path, count: int | None) -> list[str]:
    lines = path.read_text(errors="replace").splitlines()
    return lines if count is None else lines[-count:] if count else []


def _print(path: Path, line: str, prefixed: bool) -> None:
    print(f"{path.stem}: {line}" if prefixed else line)


@dataclass(slots=True)
class _Follower:
    path: Path
    file: IO[str]
    rest: str = ""

    @classmethod
    def at_end(cls, path: Path) -> "_Follower":
        file = open(path, errors="replace")  # noqa: SIM115 - open as long as we follow
        file.seek(0, 2)
        return cls(path, file)

    def new_lines(self) -> Iterator[str]:
        yield from self._read()
        if self._was_replaced():
            self.file.close()
            self.file = open(self.path, errors="replace")  # noqa: SIM115
            yield from self._read()

    def _read(self) -> Iterator[str]:
        *lines, self.rest = (self.rest + self.file.read()).split("\n")
        yield from lines

    def _was_replaced(self) -> bool:
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return False

    @property
    def _inode(self) -> int:
        return os.fstat(self.file.fileno()).st_ino


def _follow(followers: list[_Follower], prefixed: bool) -> None:
    """Until interrupted. Log files have no event that the standard library can wait for."""
    while True:
        for follower in followers:
            for line in follower.new_lines():
                _print(follower.path, line, prefixed)
        sys.stdout.flush()
        time.sleep(POLL_SECONDS)
