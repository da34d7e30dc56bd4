"""Words on a terminal: colour only where it is one, columns that line up.

My job: paint and measure. `NO_COLOR` (no-color.org) and anything that is no terminal mean plain text; a colour never
carries what a word or sign beside it does not say.
"""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Final

_CODES: Final = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "dim": "2", "bold": "1", "reverse": "7"}
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours, or none."""

    is_on: bool

    @classmethod
    def for_stream(cls, stream: IO[str] | None = None) -> "Paint":
        stream = stream or sys.stdout
        return cls(stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")

    def __call__(self, text: str, *styles: str) -> str:
        if not self.is_on or not styles or not text:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def plain(text: str) -> str:
    return _ESCAPES.sub("", text)


def width(text: str) -> int:
    return len(plain(text))


def padded(text: str, columns: int) -> str:
    return text + " " * max(0, columns - width(text))


def table(rows: Sequence[Sequence[str]], gap: int = 3) -> list[str]:
    """Lines with the columns of `rows` under each other."""
    widths = [max(width(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        (" " * gap).join(padded(cell, columns) for cell, columns in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def byte_count(count: int) -> str:
    """`1.2 kB`: powers of ten, three digits at most."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return ""
