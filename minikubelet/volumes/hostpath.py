"""hostPath volumes: the types and their checks (upstream `pkg/volume/hostpath`).

My job: a path of the host, checked or made as its type says, without links. I own nothing: hostPath volumes are never
cleaned up. Note that the container shares it as the person who runs the kubelet.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

CHECKS: dict[str, tuple[str, Callable[[int], bool]]] = {
    "Directory": ("directory", stat.S_ISDIR),
    "File": ("file", stat.S_ISREG),
    "Socket": ("socket file", stat.S_ISSOCK),
    "CharDevice": ("character device", stat.S_ISCHR),
    "BlockDevice": ("block device", stat.S_ISBLK),
}
MAKES = {"DirectoryOrCreate": "Directory", "FileOrCreate": "File"}


class WrongType(ValueError):
    """The text is upstream's."""


def resolve(path: str, kind: str) -> Path:
    """Raises WrongType or OSError. With no type, what is missing becomes a directory, as engines do at mount time."""
    target = Path(path)
    if kind == "FileOrCreate" and not target.exists():
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    elif kind in ("DirectoryOrCreate", "") and not target.exists():
        target.mkdir(parents=True, mode=0o755, exist_ok=True)
    wanted = MAKES.get(kind, kind)
    if wanted:
        if wanted not in CHECKS:
            raise WrongType(f"{kind} is an invalid volume type")
        word, is_kind = CHECKS[wanted]
        if not target.exists() or not is_kind(target.stat().st_mode):
            raise WrongType(f"hostPath type check failed: {path} is not a {word}")
    return target.resolve(strict=True)
