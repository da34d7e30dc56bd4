"""Imported images: `<image dir>/index.json` and the root filesystems beside it. Reading only.

My job: name in, root filesystem and config out. I own nothing on disk; `miniplane image import` writes it:
`{"images": {"docker.io/library/busybox:latest": {"rootfs": "<directory>", "config": {"Entrypoint": …, "Cmd": …,
"Env": …, "WorkingDir": …, "User": …}}}}`. The index is read again when it changed.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from minikubelet.images.reference import Reference

INDEX = "index.json"


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One imported image."""

    reference: str
    rootfs: Path
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""


class ImageStore:
    """The images of one node. A missing directory is an empty store."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory.resolve() if directory else None
        self._seen: tuple[int, int, int] | None = None
        self._images: dict[str, StoredImage] = {}

    def find(self, reference: Reference) -> StoredImage | None:
        self._refresh()
        return self._images.get(str(reference))

    def list(self) -> list[StoredImage]:
        self._refresh()
        return list(self._images.values())

    def _refresh(self) -> None:
        if self._directory is None:
            return
        try:
            status = (self._directory / INDEX).stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._images = self._read(orjson.loads((self._directory / INDEX).read_bytes()))
                self._seen = seen
        except FileNotFoundError:
            self._images, self._seen = {}, None
        except orjson.JSONDecodeError:
            return  # being written by a tool that does not replace it: what we know stays true

    def _read(self, index: Any) -> dict[str, StoredImage]:
        found = {}
        for name, entry in (index.get("images") or {}).items():
            with contextlib.suppress(KeyError, TypeError, ValueError):
                found[name] = self._image(name, entry)
        return found

    def _image(self, name: str, entry: dict[str, Any]) -> StoredImage:
        assert self._directory is not None
        rootfs = (self._directory / entry["rootfs"]).resolve()
        if not rootfs.is_relative_to(self._directory):
            raise ValueError(f"image {name}: root filesystem outside the image directory")
        config = entry.get("config") or {}
        env = tuple((key, value) for key, _, value in (item.partition("=") for item in config.get("Env") or ()))
        return StoredImage(
            name,
            rootfs,
            tuple(config.get("Entrypoint") or ()),
            tuple(config.get("Cmd") or ()),
            env,
            config.get("WorkingDir") or "",
            config.get("User") or "",
        )
