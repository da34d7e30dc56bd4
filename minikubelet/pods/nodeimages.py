"""This node's images, as pod workers ask for them.

My job: the images' answer in the workers' shape. I own nothing. Neighbours: `minikubelet.images` decides what a name
means.
"""

from collections.abc import Sequence
from typing import Any

from minikubelet.images.builtin import BUILTIN
from minikubelet.images.program import ImageError, find
from minikubelet.images.store import ImageStore
from minikubelet.images.users import UnknownUser, resolve
from minikubelet.pods.launch import ImageFacts
from minikubelet.pods.surroundings import ImageMissing, InvalidImageName

JSON = dict[str, Any]


class NodeImages:
    """Implements `surroundings.Images`. Lives as long as the kubelet."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    async def find(self, name: str, *, has_command: bool) -> ImageFacts:
        try:
            image = find(self._store, name, has_command=has_command)
            user = resolve(image.user, image.rootfs) if image.user else None
        except ImageError as error:
            kind = InvalidImageName if error.reason == "InvalidImageName" else ImageMissing
            raise kind(str(error)) from error
        except UnknownUser as error:
            raise ImageMissing(str(error)) from error
        return ImageFacts(image.id, image.rootfs, image.entrypoint, image.cmd, image.env, image.working_dir,
                          user.uid if user else None, user.gid if user else None, image.visible_host_paths)

    def listed(self) -> Sequence[JSON]:
        """For `status.images` of the node."""
        names = [*(image.reference for image in self._store.list()), *sorted(str(name) for name in BUILTIN)]
        return [{"names": [name], "sizeBytes": 0} for name in names]
