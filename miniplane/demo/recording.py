"""What a scene wrote, as an asciinema recording: version 2, one JSON header, then `[seconds, "o", text]` lines.

My job: the file. Pauses longer than MOST are cut, so that nobody watches a cluster start.
"""

import json
import time
from pathlib import Path
from typing import IO, Final, Self

from miniplane.errors import MiniplaneError

MOST: Final = 1.5


class Recording:
    """An open recording. `with` it."""

    def __init__(self, path: Path, columns: int, rows: int, title: str) -> None:
        try:
            self._file: IO[str] = path.open("w", encoding="utf-8")
        except OSError as error:
            raise MiniplaneError(f"--record {path}: {error.strerror}") from error
        header = {"version": 2, "width": columns, "height": rows, "timestamp": int(time.time()), "title": title,
                  "env": {"TERM": "xterm-256color", "SHELL": "/bin/sh"}}  # fmt: skip
        self._file.write(json.dumps(header) + "\n")
        self._last = time.monotonic()
        self._shown = 0.0

    def write(self, text: str) -> None:
        now = time.monotonic()
        self._shown += min(now - self._last, MOST)
        self._last = now
        # A terminal needs the carriage return that a tty's line discipline would have added.
        event = [round(self._shown, 6), "o", text.replace("\n", "\r\n")]
        self._file.write(json.dumps(event, ensure_ascii=False) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
