"""Unpack layers, one over the other, into a folder that nothing in them can leave.

My job: the OCI layer rules (changesets: whiteouts, opaque folders) on a real file system, without root. Owners are not
kept, devices not made, set-user-id bits not set. Rule: no path of an archive is ever given to the operating system;
every one is walked from the root, symlinks read and not followed.
"""

import contextlib
import os
import shutil
import stat
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from miniplane.errors import ImageError

MAX_BYTES: Final = 32 * 2**30
MAX_ENTRIES: Final = 2_000_000
MAX_SYMLINKS: Final = 40
WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
_CHUNK: Final = 2**20


@dataclass(slots=True)
class RootFS:
    """A root filesystem being built. Lives while one image is imported."""

    root: Path
    left_bytes: int = MAX_BYTES
    left_entries: int = MAX_ENTRIES
    _this_layer: set[Path] = field(default_factory=set)

    def apply(self, layer: IO[bytes], name: str) -> None:
        """Raises ImageError for anything but a layer we can unpack whole."""
        self._this_layer = set()
        try:
            with tarfile.open(fileobj=layer) as tar:
                for member in tar:
                    self._add(tar, member)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            what = "compressed with zstd, which is not read here: save it with gzip" if _is_zstd(layer) else error
            raise ImageError(f"layer {name}: {what}") from error
        except (OSError, ValueError) as error:
            raise ImageError(f"layer {name}: {error}") from error

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self._count(member)
        parts = _parts(member.name)
        if not parts:
            return  # the root itself
        folder, name = self._folder(parts[:-1]), parts[-1]
        if name == OPAQUE:
            self._hide_lower(folder)
        elif name.startswith(WHITEOUT):
            _remove(folder / _plain(name.removeprefix(WHITEOUT)))
        else:
            self._place(tar, member, folder / name)
            self._this_layer.add(folder / name)

    def _count(self, member: tarfile.TarInfo) -> None:
        self.left_entries -= 1
        self.left_bytes -= max(0, member.size)
        if self.left_entries < 0 or self.left_bytes < 0:
            raise ImageError(f"more than {MAX_BYTES} bytes or {MAX_ENTRIES} files: not unpacked")

    def _place(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        if member.isdir():
            _make_folder(path, member.mode)
            return
        if member.isdev() and not member.isfifo():
            return  # /dev is the runtime's
        _remove(path)
        if member.issym():
            os.symlink(member.linkname, path)
        elif member.islnk():
            os.link(self._target(member.linkname), path, follow_symlinks=False)
        elif member.isfifo():
            os.mkfifo(path, member.mode & 0o777)
        elif member.isfile():
            _write(tar, member, path)

    def _target(self, linkname: str) -> Path:
        parts = _parts(linkname)
        target = self._folder(parts[:-1], make=False) / parts[-1] if parts else self.root
        if not os.path.lexists(target) or (target.is_dir() and not target.is_symlink()):
            raise ImageError(f"a hard link to {linkname!r}, which is no file of the image")
        return target

    def _hide_lower(self, folder: Path) -> None:
        """What lower layers put there goes; what this layer has put there already stays."""
        for entry in list(folder.iterdir()):
            if not any(kept == entry or entry in kept.parents for kept in self._this_layer):
                _remove(entry)

    def _folder(self, parts: list[str], make: bool = True) -> Path:
        """The folder `parts` lead to, with symlinks meaning what they mean inside the image. Made where missing."""
        pending, here, hops = list(reversed(parts)), self.root, 0
        while pending:
            part = pending.pop()
            if part == "..":
                here = here if here == self.root else here.parent
                continue
            entry = here / part
            if entry.is_symlink():
                hops += 1
                if hops > MAX_SYMLINKS:
                    raise ImageError(f"{'/'.join(parts)}: too many symbolic links")
                target = os.readlink(entry)
                here = self.root if target.startswith("/") else here
                pending += reversed([piece for piece in target.split("/") if piece not in ("", ".")])
                continue
            if not entry.is_dir():
                _make_parent(entry, make)
            here = entry
        return here


def _make_parent(path: Path, make: bool) -> None:
    if not make:
        raise ImageError(f"a hard link through {path.name!r}, which is no folder of the image")
    _remove(path)  # a file of a lower layer where this one has a folder
    path.mkdir(mode=0o755)


def _parts(name: str) -> list[str]:
    """A member's path as single names. `..` is refused: no image builder writes it, so it is an attack."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise ImageError(f"{name!r} points outside the image")
    return parts


def _plain(name: str) -> str:
    if name in ("", ".", ".."):
        raise ImageError(f"a whiteout of {name!r}")
    return name


def _make_folder(path: Path, mode: int) -> None:
    if path.is_symlink() or (os.path.lexists(path) and not path.is_dir()):
        _remove(path)
    if not path.exists():
        path.mkdir()
    path.chmod(mode & 0o777 | 0o700)  # ours to fill and to remove


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as target:
        if source is not None:
            shutil.copyfileobj(source, target, _CHUNK)
        # Without set-user-id: these files belong to whoever imported them, not to the image's root.
        os.fchmod(descriptor, member.mode & 0o777 | 0o400)
        os.utime(descriptor, (member.mtime, member.mtime))


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_zstd(layer: IO[bytes]) -> bool:
    layer.seek(0)
    return layer.read(4) == b"\x28\xb5\x2f\xfd"
