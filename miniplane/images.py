"""The cluster's images: imported once, read by every kubelet.

My job: the folder of root filesystems and its index. Kubelets read `index.json`:

    {"images": {"docker.io/library/busybox:1.36": {"rootfs": "<folder>", "config": {"Entrypoint": […], …}}}}

Rule: the index is replaced at once and names only folders that are complete.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from miniplane.errors import ImageError
from miniplane.imagearchive import ArchivedImage, ImageArchive
from miniplane.rootfs import RootFS
from miniplane.state import write_json

Index = dict[str, dict[str, Any]]

# So much of the configuration's digest names the folder: 64 bits, as docker's short ids have 48.
_FOLDER_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class ImageStore:
    """The images of one cluster."""

    directory: Path

    def index(self) -> Index:
        try:
            images = json.loads((self.directory / "index.json").read_text())["images"]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageError(f"{self.directory / 'index.json'}: not readable ({error})") from error
        return dict(images)

    def import_archive(self, archive: Path, tag: str | None = None) -> list[str]:
        """The names the archive's images have from now on. Raises ImageError; then nothing has changed."""
        with self._locked(), ImageArchive.open(archive) as opened:
            images = list(opened.images())
            named = [(_references(image, tag, archive, len(images)), image) for image in images]
            entries = {name: entry for names, image in named for name, entry in self._unpack(opened, image, names)}
            write_json(self.directory / "index.json", {"images": self.index() | entries})
            self._sweep()
        return sorted(entries)

    def remove(self, reference: str) -> str:
        """The full name of what was removed. Raises ImageError if there is no such image."""
        with self._locked():
            index = self.index()
            name = normalized(reference)
            if name not in index:
                raise ImageError(f"no image {reference!r}; there are {', '.join(sorted(index)) or 'none'}")
            del index[name]
            write_json(self.directory / "index.json", {"images": index})
            self._sweep()
        return name

    def _unpack(self, archive: ImageArchive, image: ArchivedImage, names: list[str]) -> Iterator[tuple[str, Any]]:
        folder = image.identity[:_FOLDER_CHARACTERS]
        if not (self.directory / folder).is_dir():
            staging = self.directory / f".import-{secrets.token_hex(4)}"
            try:
                staging.mkdir(mode=0o755)
                rootfs = RootFS(staging)
                for layer in image.layers:
                    with archive.blob(layer) as content:
                        rootfs.apply(content, layer)
                staging.rename(self.directory / folder)
            except OSError as error:
                raise ImageError(f"write {staging}: {error.strerror}") from error
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        for name in names:
            yield name, {"rootfs": folder, "config": dict(image.config)}

    def _sweep(self) -> None:
        """Folders no name leads to, and what an interrupted import left. A running container keeps what it has open."""
        used = {entry["rootfs"] for entry in self.index().values()}
        for folder in self.directory.iterdir():
            if folder.is_dir() and folder.name not in used:
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ImageError(f"write {self.directory}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def normalized(reference: str) -> str:
    """The full name (distribution/reference): `busybox` is `docker.io/library/busybox:latest`."""
    if not reference or any(character.isspace() for character in reference):
        raise ImageError(f"{reference!r} is no image name")
    name, at, digest = reference.partition("@")
    first, slash, rest = name.partition("/")
    has_domain = bool(slash) and ("." in first or ":" in first or first == "localhost")
    domain, path = (first, rest) if has_domain else ("docker.io", name)
    domain = "docker.io" if domain == "index.docker.io" else domain
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    if not at and ":" not in path.rpartition("/")[2]:
        path += ":latest"
    return f"{domain}/{path}{at}{digest}"


def _references(image: ArchivedImage, tag: str | None, archive: Path, count: int) -> list[str]:
    if tag is not None:
        if count != 1:
            raise ImageError(f"{archive} holds {count} images: --tag would give them all one name")
        return [normalized(tag)]
    if not image.references:
        raise ImageError(f"{archive} does not say what the image is called: give it a --tag")
    return [normalized(reference) for reference in image.references]


def print_images(store: ImageStore, as_json: bool) -> None:
    index = store.index()
    if as_json:
        print(json.dumps({"images": index}, indent=2))
        return
    if not index:
        print("no images imported; `miniplane image import FILE.tar` takes what `docker save` writes")
    for name, entry in sorted(index.items()):
        config = entry["config"]
        command = " ".join([*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])])
        print(f"{name}   {entry['rootfs']}   {command or '(no command)'}")
