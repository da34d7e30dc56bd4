"""The CRI log line: `<RFC 3339 time> <stdout|stderr> <tags> <content>`, LF at the end. Pure: bytes in, bytes out.

My job: cut a stream of output into such lines, and take them apart again. I own nothing; `writer` and `reader` use me.
Lines longer than 16 KiB become pieces tagged `P`, the last piece `F`; output that ends without LF is a `P` too
(containerd does both). Many lines that were read together share one time stamp.
"""

import re
import time
from dataclasses import dataclass

PIECE_BYTES = 16384
LINE = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d) (stdout|stderr) ([FP])(?::[^ \n]*)? ([^\n]*)(\n?)"
)


class Framer:
    """One stream of one container, cut into log lines. Holds at most one piece of an unfinished line."""

    def __init__(self, stream: str) -> None:
        self._full = f" {stream} F ".encode()
        self._partial = f" {stream} P ".encode()
        self._rest = b""

    def feed(self, data: bytes, timestamp: bytes) -> bytes:
        """The log lines that `data` completes."""
        end = data.rfind(b"\n")
        if end < 0:
            self._rest += data
            return self._spill(timestamp)
        body = self._rest + data[:end]
        self._rest = data[end + 1 :]
        head = timestamp + self._full
        if len(body) > PIECE_BYTES and max(map(len, lines := body.split(b"\n"))) > PIECE_BYTES:
            return b"".join(self._cut(line, timestamp) for line in lines) + self._spill(timestamp)
        framed = head + body.replace(b"\n", b"\n" + head) + b"\n"
        return framed + self._spill(timestamp) if len(self._rest) > PIECE_BYTES else framed

    def finish(self, timestamp: bytes) -> bytes:
        """The output is over: what has no LF is logged as it is."""
        rest, self._rest = self._rest, b""
        return timestamp + self._partial + rest + b"\n" if rest else b""

    def _spill(self, timestamp: bytes) -> bytes:
        pieces = []
        while len(self._rest) > PIECE_BYTES:
            pieces.append(timestamp + self._partial + self._rest[:PIECE_BYTES] + b"\n")
            self._rest = self._rest[PIECE_BYTES:]
        return b"".join(pieces)

    def _cut(self, line: bytes, timestamp: bytes) -> bytes:
        *pieces, last = [line[at : at + PIECE_BYTES] for at in range(0, len(line), PIECE_BYTES)] or [b""]
        head = timestamp + self._partial
        return b"".join(head + piece + b"\n" for piece in pieces) + timestamp + self._full + last + b"\n"


class Clock:
    """Time stamps of one log: nine digits, UTC, never going back (readers rely on the order)."""

    def __init__(self) -> None:
        self._last = 0
        self._second, self._text = -1, b""

    def stamp(self, now_ns: int) -> bytes:
        self._last = max(self._last, now_ns)
        second, nanoseconds = divmod(self._last, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        return self._text + b"%09dZ" % nanoseconds


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a log file, taken apart. `content` ends with LF unless it is a piece of a longer line."""

    time: bytes
    """Nine fraction digits, zone as in the file."""
    stream: str
    is_partial: bool
    content: bytes


def parse(line: bytes) -> Record | None:
    """One raw line, with or without its LF; None if it is not CRI."""
    match = LINE.fullmatch(line)
    if match is None:
        return None
    second, fraction, zone, stream, tag, content, newline = match.groups()
    stamp = second + (fraction or b".").ljust(10, b"0") + zone
    is_partial = tag == b"P"
    return Record(stamp, stream.decode(), is_partial, content if is_partial else content + newline)
