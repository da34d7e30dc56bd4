"""From a container's image, command and args to the program that will run.

My job: one decision. Imported image → its root filesystem; built-in image → its program; otherwise the command runs
from the host's files; no command and no image → ErrImagePull with what to do about it. I own nothing; pod workers call
me at every start, so an image imported meanwhile is found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minikubelet.images import builtin
from minikubelet.images.reference import InvalidReference, parse
from minikubelet.images.store import ImageStore


class ImageError(Exception):
    """The container cannot start for its image. `reason` is the waiting reason; the text is its message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Program:
    """What to run and where its files come from."""

    argv: tuple[str, ...]
    image: str
    """Normalised name, for containerStatuses[].image and imageID."""
    source: str
    """"imported", "builtin" or "host"."""
    rootfs: Path | None = None
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""
    visible_host_paths: tuple[Path, ...] = ()


def decide(store: ImageStore, image: str, command: Sequence[str], args: Sequence[str], *, policy: str = "") -> Program:
    """`command` and `args` with $(VAR) already replaced. Raises ImageError."""
    try:
        reference = parse(image)
    except InvalidReference as error:
        raise ImageError("InvalidImageName", f'failed to apply default image tag "{image}": {error}') from error
    stored = store.find(reference)
    if stored:
        argv = _argv(stored.entrypoint, stored.cmd, command, args)
        if not argv:
            raise ImageError("CreateContainerError", "no command specified")
        return Program(
            argv, str(reference), "imported", stored.rootfs, stored.env, stored.working_dir, stored.user
        )
    known = builtin.find(reference)
    if known:
        argv = _argv(known.entrypoint, (), command, args)
        return Program(argv, str(reference), "builtin", visible_host_paths=known.visible_host_paths)
    if command:
        return Program((*command, *args), str(reference), "host")
    if policy == "Never":
        raise ImageError("ErrImageNeverPull", f'Container image "{image}" is not present with pull policy of Never')
    raise ImageError("ErrImagePull", _advice(image, str(reference)))


def _argv(
    entrypoint: tuple[str, ...], cmd: tuple[str, ...], command: Sequence[str], args: Sequence[str]
) -> tuple[str, ...]:
    """Docker's and Kubernetes' rule: a command replaces both, args replace Cmd alone."""
    if command:
        return (*command, *args)
    return (*entrypoint, *(args or cmd))


def _advice(image: str, reference: str) -> str:
    return (
        f'failed to pull image "{image}": this node pulls nothing and {reference} has not been imported. Either import '
        f"it (`docker save {image} | miniplane image import -`), or set `command:` to run a program of this machine, "
        f"or use a built-in image ({', '.join(sorted(builtin.BUILTIN))})"
    )
