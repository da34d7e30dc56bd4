"""What a container said last.

My job: the termination message of a container that ended: its file, or under FallbackToLogsOnError the end of its
log. Owns nothing. Limits are upstream's: 4096 bytes of the file, 2048 bytes or 80 lines of the log.
"""

from pathlib import Path
from typing import Any

from minikubelet.runtime.interface import ContainerSpec

JSON = dict[str, Any]

MAX_FILE = 4096
MAX_LOG_BYTES, MAX_LOG_LINES = 2048, 80


def termination_message(container: JSON, started: ContainerSpec, exit_code: int) -> str:
    message = _file_text(started.termination_message_file)
    if not message and exit_code and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        return _log_end(started.log_path)
    return message


def _file_text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE).decode("utf-8", "replace")
    except OSError:
        return ""


def _log_end(path: Path | None) -> str:
    """The last lines' content, without the CRI prefix."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - 64 * 1024, 0))
            lines = file.read().split(b"\n")
    except OSError:
        return ""
    contents = [parts[3] for line in lines if len(parts := line.split(b" ", 3)) == 4]
    if not contents:
        return ""
    return (b"\n".join(contents[-MAX_LOG_LINES:]) + b"\n")[-MAX_LOG_BYTES:].decode("utf-8", "replace")
