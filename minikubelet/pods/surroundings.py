"""What a pod's worker stands on: the node's services, by the shape it needs them in.

My job: name them in one place. I own nothing. Neighbours: `__main__` puts the real ones in, tests put fakes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from minikubelet.clock import Clock
from minikubelet.config import Config
from minikubelet.events import EventRecorder
from minikubelet.pods.addresses import PodAddresses
from minikubelet.pods.launch import ImageFacts
from minikubelet.pods.references import References
from minikubelet.pods.tokens import TokenRequests
from minikubelet.runtime.interface import Mount, Runtime
from wire.apiclient import Client
from wire.informer import Informer

JSON = dict[str, Any]


class NodeView(Protocol):
    """The own node, as pods need it."""

    @property
    def current(self) -> JSON: ...

    @property
    def allocatable(self) -> dict[str, str]: ...


class ImageMissing(Exception):
    """The image cannot be had; the text says why and what to do."""


class InvalidImageName(ImageMissing):
    """Not the name of an image."""


class Images(Protocol):
    """The images of this node."""

    async def find(self, name: str, *, has_command: bool) -> ImageFacts:
        """Raises ImageMissing or InvalidImageName."""
        ...


class PodVolumes(Protocol):
    """The volumes of one pod, from set_up to tear_down."""

    async def set_up(self, pod: JSON) -> None:
        """Make every volume's content. Raises VolumeError. May be called again."""
        ...

    async def refresh(self, pod: JSON) -> None:
        """Bring content that others own (ConfigMaps, Secrets, tokens, labels) up to date. Raises VolumeError."""
        ...

    def mounts(self, container: JSON, environment: Mapping[str, str]) -> tuple[Mount, ...]:
        """Raises VolumeError."""
        ...

    async def tear_down(self) -> None: ...


VolumesOf = Callable[[JSON, Path], PodVolumes]


@dataclass(frozen=True, slots=True)
class Surroundings:
    config: Config
    client: Client
    clock: Clock
    runtime: Runtime
    images: Images
    volumes_of: VolumesOf
    events: EventRecorder
    references: References
    tokens: TokenRequests
    addresses: PodAddresses
    services: Informer
    node: NodeView
    api_address: Callable[[dict[str, str]], dict[str, str]] = lambda services: {}
    """What the environment says instead of the API server's virtual IP, where that cannot be served."""
