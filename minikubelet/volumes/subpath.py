"""subPath: a part of a volume as a mount source, never anything outside it.

My job: follow the volume's own links (a ConfigMap key is one), refuse to leave the volume, and hand out a path without
any link left; the runtime opens it with links forbidden, so a container that puts one there afterwards gets an error,
not the host's files (CVE-2017-1002101, CVE-2021-25741).
"""

import os
from pathlib import Path, PurePosixPath

from minikubelet.volumes.errors import SubPathFailed

NEW_DIRECTORY_MODE = 0o750


def resolve(volume: Path, sub_path: str, *, mount_name: str, container: str) -> Path:
    """What is missing is made a directory, with the mode of the volume. Raises SubPathFailed."""
    complaint = f'failed to prepare subPath for volumeMount "{mount_name}" of container "{container}"'
    parts = PurePosixPath(sub_path).parts
    if sub_path.startswith("/") or ".." in parts:
        raise SubPathFailed(f"{complaint}: subPath {sub_path!r} must be relative and must not contain '..'")
    base = volume.resolve()
    try:
        target = Path(os.path.realpath(base / sub_path))
        _require_inside(base, target, complaint)
        if not target.exists():
            target.mkdir(parents=True, mode=_mode(base), exist_ok=True)
            target = Path(os.path.realpath(target))
            _require_inside(base, target, complaint)
    except OSError as error:
        raise SubPathFailed(f"{complaint}: {error.strerror}") from error
    return target


def _require_inside(base: Path, target: Path, complaint: str) -> None:
    if not target.is_relative_to(base):
        raise SubPathFailed(f"{complaint}: subpath is outside of the volume")


def _mode(base: Path) -> int:
    return base.stat().st_mode & 0o777 or NEW_DIRECTORY_MODE
