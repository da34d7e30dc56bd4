"""A container's log file: appended, rotated by size, with a bell for those who follow it.

My job: bytes to disk and old files out of the way. A `LogFile` owns its descriptor from `open` to `close`; rotated
files belong to `tend`, which one worker of the runtime calls. Rule: a full disk costs log lines, never the container.
Defaults and names are the kubelet's (10Mi, 5 files, `0.log.20240131-235959`, gzip for all but the newest rotated one).
"""

import asyncio
import contextlib
import gzip
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

MAX_BYTES, MAX_FILES = 10 << 20, 5


class Feed:
    """Wakes followers. See runtime.interface.LogFeed."""

    def __init__(self) -> None:
        self.version = 0
        self.closed = False
        self._waiting: set[asyncio.Future[None]] = set()

    def publish(self) -> None:
        self.version += 1
        self._wake()

    def close(self) -> None:
        self.closed = True
        self._wake()

    async def changed(self, version: int) -> None:
        while self.version == version and not self.closed:
            ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(ready)
            try:
                await ready
            finally:
                self._waiting.discard(ready)

    def _wake(self) -> None:
        for ready in self._waiting:
            if not ready.done():
                ready.set_result(None)


class LogFile:
    """The file being written. `on_rotate` hears the path whenever there is something to `tend`."""

    def __init__(self, path: Path, on_rotate: Callable[[Path], None], max_bytes: int = MAX_BYTES) -> None:
        self.path, self.feed = path, Feed()
        self.lost_bytes = 0
        self._on_rotate, self._max_bytes = on_rotate, max_bytes
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._descriptor = self._open()
        self._size = os.fstat(self._descriptor).st_size

    def append(self, lines: bytes) -> None:
        """Whole lines only: rotation happens between two calls."""
        if not lines or self._descriptor < 0:
            return
        try:
            written = os.write(self._descriptor, lines)
        except OSError:
            written = 0
        self.lost_bytes += len(lines) - written
        self._size += written
        self.feed.publish()
        if self._size >= self._max_bytes:
            self._rotate()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.feed.close()

    def _open(self) -> int:
        # Not readable by others (CVE-2024-5321), and never through a link somebody put there.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self.path, flags, 0o640)

    def _rotate(self) -> None:
        """Rename and begin anew. A name taken within the same second means: grow on until the next."""
        rotated = self.path.with_name(f"{self.path.name}.{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
        if rotated.exists():
            return
        with contextlib.suppress(OSError):
            os.rename(self.path, rotated)
            fresh = self._open()
            os.close(self._descriptor)
            self._descriptor, self._size = fresh, 0
            self.feed.publish()
            self._on_rotate(self.path)


def tend(path: Path, max_files: int = MAX_FILES) -> None:
    """Delete what is too old, compress the rest but the newest. Blocking: meant for a thread."""
    rotated = sorted(path.parent.glob(path.name + ".*"))
    rotated = [file for file in rotated if not file.name.endswith(".tmp")]
    keep = max(max_files - 1, 0)
    excess, kept = (rotated[:-keep], rotated[-keep:]) if keep else (rotated, [])
    for file in excess:
        file.unlink(missing_ok=True)
    for file in kept[:-1]:
        if file.suffix != ".gz":
            _compress(file)


def _compress(file: Path) -> None:
    temporary = file.with_name(file.name + ".tmp")
    with contextlib.suppress(OSError):
        with open(file, "rb") as plain, gzip.open(temporary, "wb", compresslevel=1) as packed:
            shutil.copyfileobj(plain, packed, 1 << 18)
        os.rename(temporary, file.with_name(file.name + ".gz"))
        file.unlink()
