"""From an image's name to what it brings: files, program, environment.

My job: one decision. Imported image → its root filesystem; built-in image → its program; otherwise the container's own
command runs from the host's files; no command and no image → ErrImagePull with what to do about it. I own nothing; pod
workers call me at every start, so an image imported meanwhile is found.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from minikubelet.images import builtin
from minikubelet.images.reference import InvalidReference, parse
from minikubelet.images.store import ImageStore


class ImageError(Exception):
    """The container cannot start for its image. `reason` is the waiting reason; the text is its message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Source(Enum):
    IMPORTED = "imported"
    BUILTIN = "builtin"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Image:
    """What a name stands for on this node."""

    id: str
    """Normalised name, for containerStatuses[].image and imageID."""
    source: Source
    rootfs: Path | None = None
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""
    visible_host_paths: tuple[Path, ...] = ()


def find(store: ImageStore, name: str, *, has_command: bool) -> Image:
    """Raises ImageError (InvalidImageName, ErrImagePull)."""
    try:
        reference = parse(name)
    except InvalidReference as error:
        raise ImageError("InvalidImageName", f'failed to apply default image tag "{name}": {error}') from error
    stored = store.find(reference)
    if stored:
        return Image(
            str(reference),
            Source.IMPORTED,
            stored.rootfs,
            stored.entrypoint,
            stored.cmd,
            stored.env,
            stored.working_dir,
            stored.user,
        )
    known = builtin.find(reference)
    if known:
        return Image(
            str(reference), Source.BUILTIN, entrypoint=known.entrypoint, visible_host_paths=known.visible_host_paths
        )
    if has_command:
        return Image(str(reference), Source.HOST)
    raise ImageError("ErrImagePull", _advice(name, str(reference)))


def _advice(name: str, reference: str) -> str:
    return (
        f'failed to pull image "{name}": this node pulls nothing and {reference} has not been imported. Either import '
        f"it (`docker save {name} | miniplane image import -`), or set `command:` to run a program of this machine, "
        f"or use a built-in image ({', '.join(sorted(builtin.BUILTIN))})"
    )
