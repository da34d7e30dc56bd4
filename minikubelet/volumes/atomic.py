"""A directory whose files change all at once: the layout of upstream's AtomicWriter.

    key -> ..data/key        ..data -> ..2024_01_31_23_59_59.123456789        ..2024_…/key

My job: bring a volume's directory to a payload. I own the dot-dot names in it. Programs watch `..data`: it is replaced
by one rename, so they see the old or the new files, never some of each, and nothing at all when nothing changed.
"""

import contextlib
import os
import secrets
import shutil
import time
from pathlib import Path, PurePosixPath

from minikubelet.volumes.payload import Payload

DATA, NEW_DATA = "..data", "..data_tmp"


class UnsafePath(ValueError):
    """A key that would leave the volume or clash with its own names."""


def write(directory: Path, payload: Payload, group: int | None = None) -> bool:
    """Make `directory` show exactly `payload`; says whether anything changed. `group`: fsGroup, where we may."""
    for path in payload:
        _require_safe(path)
    current = _current(directory)
    if current is not None and _read(current) == {path: (file.data, file.mode) for path, file in payload.items()}:
        return False
    fresh = _write_version(directory, payload, group)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(directory / NEW_DATA)
    os.symlink(fresh.name, directory / NEW_DATA)
    os.rename(directory / NEW_DATA, directory / DATA)
    _show_names(directory, {PurePosixPath(path).parts[0] for path in payload})
    if current is not None:
        shutil.rmtree(current, ignore_errors=True)
    return True


def _require_safe(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or any(part == ".." for part in parts) or parts[0].startswith(".."):
        raise UnsafePath(f"invalid path {path!r}: must be relative and must not start with or contain '..'")
    if len(path) > 4096 or any(len(part) > 255 for part in parts):
        raise UnsafePath(f"invalid path {path[:64]!r}…: too long")


def _current(directory: Path) -> Path | None:
    try:
        return directory / os.readlink(directory / DATA)
    except FileNotFoundError:
        return None


def _read(version: Path) -> dict[str, tuple[bytes, int]]:
    found = {}
    for base, _, names in os.walk(version):
        for name in names:
            file = Path(base, name)
            mode = file.stat().st_mode & 0o777
            try:
                data = file.read_bytes()
            except PermissionError:  # a mode that shuts out even the owner
                return {}
            found[file.relative_to(version).as_posix()] = (data, mode)
    return found


def _write_version(directory: Path, payload: Payload, group: int | None) -> Path:
    stamp = time.strftime("%Y_%m_%d_%H_%M_%S", time.gmtime())
    version = directory / f"..{stamp}.{secrets.randbelow(10**9):09d}"
    version.mkdir(mode=0o755)
    for path, file in payload.items():
        target = version / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        target.write_bytes(file.data)
        if group is not None or file.owner is not None:
            with contextlib.suppress(PermissionError):
                os.chown(target, -1 if file.owner is None else file.owner, -1 if group is None else group)
        target.chmod(file.mode)  # after the content and the owner: both could change it
    return version


def _show_names(directory: Path, names: set[str]) -> None:
    for name in names:
        with contextlib.suppress(FileExistsError):
            os.symlink(f"{DATA}/{name}", directory / name)
    for entry in os.scandir(directory):
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in names:
            os.unlink(entry.path)
