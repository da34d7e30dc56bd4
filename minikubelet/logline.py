"""One line per event: `level time room event key=value`.

My job: the form of a log line, the same in every room of the kubelet. I own the root handler. Neighbours: every
module logs by `logging.getLogger(__name__)` and puts its facts through `kv`. Rule: never tokens, keys or bodies.
"""

import logging
import sys
import time


def kv(**fields: object) -> str:
    """`key=value` pairs; values with spaces or quotes are quoted, None is left out."""
    return " ".join(f"{key}={_quoted(value)}" for key, value in fields.items() if value is not None)


def _quoted(value: object) -> str:
    text = str(value)
    if text and not any(ch in text for ch in ' "=\n\t'):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


class LineFormatter(logging.Formatter):
    """Our line; a traceback, when there is one, follows on the next lines."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        room = record.name.removeprefix("minikubelet.")
        line = f"{record.levelname} {stamp} {room} {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
