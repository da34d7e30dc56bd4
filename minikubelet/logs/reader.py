"""Reading a container's log: tail, since, time stamps, limit, follow, across rotation.

My job: `read` yields what `kubectl logs` prints, in blocks. I own the descriptor I opened until the generator is
closed. The HTTPS server is my user. Algorithm and order of the options: docs of `kubectl logs` as the kubelet does it
(tail counts raw lines, then since drops, then the limit cuts).

Rule: a path is opened component by component without following links, so that who may write in a log directory cannot
make us read another file. Speed: blocks of well-formed lines are rewritten by one regular expression each; only odd
blocks (pieces, foreign time formats, garbage) are parsed line by line.
"""

import asyncio
import os
import re
import stat
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from minikubelet.logs import cri
from minikubelet.runtime.interface import LogFeed

BLOCK = 1 << 18
TAIL_BLOCK = 1 << 16
FULL_LINE = re.compile(rb"^[0-9T:.+-]{19,35}Z? std(?:out|err) F(?::[^ \n]*)? ", re.MULTILINE)
STAMPED_LINE = re.compile(rb"^([0-9T:-]{19}\.\d{9}Z )std(?:out|err) F(?::[^ \n]*)? ", re.MULTILINE)
RUN_LINES = 32
OWN_STAMP = re.compile(rb"[0-9T:-]{19}\.\d{9}Z ")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """PodLogOptions, decided: `since` is the later of sinceTime and now - sinceSeconds."""

    follow: bool = False
    since: datetime | None = None
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    stream: str | None = None
    """"stdout" or "stderr"; None: both."""


@dataclass(slots=True)
class Selection:
    """The options applied to one block of whole lines after another. Knows only whether a line is being continued."""

    options: LogOptions
    since: bytes = b""
    continues: bool = field(default=False)

    def __post_init__(self) -> None:
        if self.options.since is not None:
            moment = self.options.since.astimezone(UTC)
            self.since = moment.strftime("%Y-%m-%dT%H:%M:%S.").encode() + b"%06d000Z" % moment.microsecond

    def apply(self, block: bytes) -> bytes:
        if not self.continues and not self.options.stream and not self._has_pieces(block):
            fast = self._bulk(block)
            if fast is not None:
                return fast
        return b"".join(map(self._line, block.splitlines(keepends=True) if b"\r" not in block else _lines(block)))

    @staticmethod
    def _has_pieces(block: bytes) -> bool:
        return b" stdout P" in block or b" stderr P" in block

    def _bulk(self, block: bytes) -> bytes | None:
        """None: this block needs a look at every line."""
        if self.since and not self._all_since(block):
            return None
        stamped = self.options.timestamps
        pattern, replacement = (STAMPED_LINE, rb"\1") if stamped else (FULL_LINE, b"")
        done, start = [], 0
        while start < len(block) and (head := STAMPED_LINE.match(block, start)):
            run = _run(block, start, head.group())
            if run is None:
                break
            start, lines = run
            done.append(lines.replace(b"\n" + head.group(), b"\n" + head.group(1) if stamped else b"\n")[1:])
        if start:
            block = block[start:]
        rewritten, count = pattern.subn(replacement, block)
        if count != block.count(b"\n") + (not block.endswith(b"\n") and block != b""):
            return None
        return b"".join((*done, rewritten))

    def _all_since(self, block: bytes) -> bool:
        """Our writer's stamps never go back, so the first line decides."""
        return OWN_STAMP.match(block) is not None and block[:30] >= self.since

    def _line(self, line: bytes) -> bytes:
        record = cri.parse(line)
        if record is None:
            return b""
        starts, self.continues = not self.continues, record.is_partial
        if self.since and _is_before(record.time, self.since):
            return b""
        if self.options.stream and record.stream != self.options.stream:
            return b""
        return record.time + b" " + record.content if self.options.timestamps and starts else record.content


def _run(block: bytes, start: int, head: bytes) -> tuple[int, bytes] | None:
    """The lines from `start` that all begin with `head` (they were read together), each after its LF, and where they
    end. None if they are too few for this to pay, or others are among them."""
    mark = b"\n" + head
    last = block.rfind(mark, start)
    if last < 0:
        return None
    end = block.find(b"\n", last + 1) + 1 or len(block)
    run = b"\n" + block[start:end]
    lines = run.count(mark)
    is_pure = lines == run.count(b"\n") - run.endswith(b"\n")
    return (end, run) if is_pure and lines >= RUN_LINES else None


def _lines(block: bytes) -> list[bytes]:
    """Like splitlines, for LF alone."""
    *whole, rest = block.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


def _is_before(stamp: bytes, since: bytes) -> bool:
    if stamp.endswith(b"Z"):
        return stamp < since
    second, nanoseconds, zone = stamp[:19].decode(), stamp[20:29], stamp[29:].decode()
    moment = datetime.fromisoformat(second + zone).astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.").encode() + nanoseconds + b"Z" < since


def open_beneath(root: Path, relative: str) -> int:
    """A regular file under `root`, no link followed on the way. Raises OSError."""
    *directories, name = relative.split("/")
    current = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in directories:
            if part in ("", ".", ".."):
                raise PermissionError(f"{relative}: not a plain path")
            following = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = following
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=current)
    finally:
        os.close(current)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PermissionError(f"{relative}: not a regular file")
    return descriptor


def tail_offset(descriptor: int, lines: int, size: int) -> int:
    """Where the last `lines` raw lines begin. An unterminated last line comes on top."""
    if lines == 0:
        return size
    missing, position = lines + 1, size
    while position > 0:
        start = max(position - TAIL_BLOCK, 0)
        block = os.pread(descriptor, position - start, start)
        count = block.count(b"\n")
        if count >= missing:
            at = len(block)
            for _ in range(missing):
                at = block.rindex(b"\n", 0, at)
            return start + at + 1
        missing -= count
        position = start
    return 0


async def read(
    root: Path, relative: str, options: LogOptions, feed: LogFeed | None = None
) -> AsyncGenerator[bytes, None]:
    """The log at `root/relative`. With follow it goes on until `feed` is closed (at once without one). Raises OSError
    if the file cannot be opened; the generator must be closed by its user (`contextlib.aclosing`)."""
    remaining = options.limit_bytes
    async with aclosing(_selected(root, relative, options, feed)) as blocks:
        async for block in blocks:
            if remaining is not None:
                block = block[:remaining]
                remaining -= len(block)
            if block:
                yield block
            if remaining == 0:
                return


async def _selected(
    root: Path, relative: str, options: LogOptions, feed: LogFeed | None
) -> AsyncGenerator[bytes, None]:
    file = _File(root, relative)
    selection = Selection(options)
    try:
        end = None
        if options.tail_lines is not None:
            size = os.fstat(file.descriptor).st_size
            file.position = tail_offset(file.descriptor, options.tail_lines, size)
            end = None if options.follow else size
        while True:
            version = feed.version if feed else 0
            is_over = not options.follow or feed is None or feed.closed
            async for block in file.blocks(end):
                yield selection.apply(block)
            if file.has_been_rotated() and options.follow:
                async for block in file.blocks(None):  # written between our last read and the rename
                    yield selection.apply(block)
                file.reopen()
                continue
            if is_over or feed is None:
                yield selection.apply(file.rest)
                return
            await feed.changed(version)
    finally:
        os.close(file.descriptor)


class _File:
    """The open file, read in blocks that end with a line. `rest` is what came after the last LF."""

    def __init__(self, root: Path, relative: str) -> None:
        self._open: Callable[[], int] = lambda: open_beneath(root, relative)
        self._path = root / relative
        self.descriptor, self.position, self.rest = self._open(), 0, b""

    async def blocks(self, end: int | None) -> AsyncGenerator[bytes, None]:
        while end is None or self.position < end:
            wanted = BLOCK if end is None else min(BLOCK, end - self.position)
            data = os.pread(self.descriptor, wanted, self.position)
            if not data:
                return
            self.position += len(data)
            cut = data.rfind(b"\n") + 1
            if cut == 0:
                self.rest += data
                continue
            block, self.rest = self.rest + data[:cut], data[cut:]
            yield block
            await asyncio.sleep(0)  # one block of one reader at a time: others have their turn

    def has_been_rotated(self) -> bool:
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False  # between rename and create, or deleted: nothing to go on with
        here = os.fstat(self.descriptor)
        return (there.st_ino, there.st_dev) != (here.st_ino, here.st_dev)

    def reopen(self) -> None:
        fresh = self._open()
        os.close(self.descriptor)
        self.descriptor, self.position, self.rest = fresh, 0, b""
