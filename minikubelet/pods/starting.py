"""From a container's spec to a running process, or to the reason why there is none yet.

My job: image, environment, mounts, then the runtime; each obstacle becomes a waiting state and an event in upstream's
words and is tried again. I own the image back-off of one container. Neighbours: `containers` calls me for each start.
"""

import asyncio
import contextlib
import secrets
from typing import Any

from minikubelet.clock import rfc3339, wait_until
from minikubelet.events import NORMAL, WARNING
from minikubelet.pods.backoff import Backoff
from minikubelet.pods.context import PodContext
from minikubelet.pods.environment import ConfigError
from minikubelet.pods.launch import ImageFacts, container_spec
from minikubelet.pods.records import ContainerRecord, Running, Terminated, Waiting
from minikubelet.pods.surroundings import ImageMissing, InvalidImageName
from minikubelet.quantity import InvalidQuantity
from minikubelet.runtime.interface import Container, ContainerSpec, RuntimeFailure
from minikubelet.volumes.errors import VolumeError

JSON = dict[str, Any]

RETRY = 10.0
"""How soon a missing ConfigMap or volume is looked for again, if nobody tells us before."""
FIRST_WORD = 2.0
"""How long ErrImagePull is shown before it becomes ImagePullBackOff."""
NEVER_STARTED_AT = "1970-01-01T00:00:00Z"


class _Obstacle(Exception):
    """Why the container cannot be started now, and how long to wait."""

    def __init__(self, reason: str, message: str, retry: float = RETRY) -> None:
        super().__init__(message)
        self.reason, self.message, self.retry = reason, message, retry


class ContainerStarter:
    """The starts of one container. `nudge` ends a wait early: the spec or something it refers to has changed."""

    def __init__(self, context: PodContext, record: ContainerRecord) -> None:
        self._context, self._record = context, record
        self._pulls = Backoff()
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        self._nudged.set()

    async def pause(self, seconds: float) -> None:
        """Wait, but not longer than until somebody nudges."""
        self._nudged.clear()
        await wait_until(self._nudged, self._context.around.clock, seconds)

    async def start(self, target_id: str | None = None) -> Container | None:
        """The running container; None if the runtime could not start it (the record then says why)."""
        while True:
            try:
                image = await self._image()
                spec = await self._spec(image, target_id)
                break
            except _Obstacle as obstacle:
                await self._hold(obstacle)
        return await self._launch(spec, image)

    async def _hold(self, obstacle: _Obstacle) -> None:
        self._wait_for(Waiting(obstacle.reason, obstacle.message))
        word = obstacle.message if obstacle.reason == "CreateContainerConfigError" else obstacle.reason
        self._context.event(WARNING, "Failed", f"Error: {word}", self._record)
        if obstacle.reason != "ErrImagePull":
            await self.pause(obstacle.retry)
            return
        await self.pause(min(FIRST_WORD, obstacle.retry))
        image = self._record.spec.get("image", "")
        self._wait_for(Waiting("ImagePullBackOff",
                               f'Back-off pulling image "{image}": ErrImagePull: {obstacle.message}'))
        self._context.event(NORMAL, "BackOff", f'Back-off pulling image "{image}"', self._record)
        self._context.event(WARNING, "Failed", "Error: ImagePullBackOff", self._record)
        if obstacle.retry > FIRST_WORD and not self._nudged.is_set():
            await self.pause(obstacle.retry - FIRST_WORD)

    def _wait_for(self, state: Waiting) -> None:
        record = self._record
        if isinstance(record.state, Terminated):
            record.last = record.state
        record.state, record.ready, record.started = state, False, False
        self._context.changed()

    async def _image(self) -> ImageFacts:
        spec, event = self._record.spec, self._context.event
        name, policy = str(spec.get("image") or ""), spec.get("imagePullPolicy")
        clock = self._context.around.clock
        try:
            image = await self._context.around.images.find(name, has_command=bool(spec.get("command")))
        except InvalidImageName as error:
            event(WARNING, "InspectFailed", f'Failed to apply default image tag "{name}": {error}', self._record)
            raise _Obstacle("InvalidImageName", f'Failed to apply default image tag "{name}": {error}') from error
        except ImageMissing as error:
            if policy == "Never":
                message = f'Container image "{name}" is not present with pull policy of Never'
                event(WARNING, "ErrImageNeverPull", message, self._record)
                raise _Obstacle("ErrImageNeverPull", message) from error
            event(NORMAL, "Pulling", f'Pulling image "{name}"', self._record)
            event(WARNING, "Failed", f'Failed to pull image "{name}": {error}', self._record)
            now = clock.monotonic()
            self._pulls.attempt(now, now)
            raise _Obstacle("ErrImagePull", str(error), self._pulls.wait_after(now)) from error
        event(NORMAL, "Pulled",
              f'Container image "{name}" already present on machine and can be accessed by the pod', self._record)
        return image

    async def _spec(self, image: ImageFacts, target_id: str | None) -> ContainerSpec:
        context, record = self._context, self._record
        try:
            environment = await context.environment(record.spec)
            mounts = context.volumes.mounts(record.spec, environment)
            return container_spec(context.pod, record.spec, record.attempts, image, environment, mounts,
                                  context.place, target_id)
        except (ConfigError, VolumeError, InvalidQuantity) as error:
            raise _Obstacle("CreateContainerConfigError", str(error)) from error

    async def _launch(self, spec: ContainerSpec, image: ImageFacts) -> Container | None:
        context, record = self._context, self._record
        assert context.sandbox is not None
        record.restart_count, record.image_id = record.attempts, image.id
        record.attempts += 1
        if isinstance(record.state, Terminated):
            record.last = record.state
        try:
            _make_room(spec)
            container = await context.around.runtime.start(spec, context.sandbox)
        except (RuntimeFailure, OSError) as error:
            self._failed(str(error))
            return None
        context.event(NORMAL, "Created", "Container created", record)
        context.event(NORMAL, "Started", "Container started", record)
        record.state, record.container_id = Running(rfc3339(container.started_at)), container.id
        context.changed()
        return container

    def _failed(self, message: str) -> None:
        """The runtime refused: as containerd has it, exit code 128 and reason StartError."""
        record = self._record
        record.container_id = f"miniplane://{secrets.token_hex(32)}"
        record.state = Terminated(128, "StartError", message, NEVER_STARTED_AT,
                                  rfc3339(self._context.around.clock.now()), record.container_id)
        self._context.event(NORMAL, "Created", "Container created", record)
        self._context.event(WARNING, "Failed", f"Error: {message}", record)
        self._context.changed()


def _make_room(spec: ContainerSpec) -> None:
    """Folders for log and termination message; of earlier logs only the previous one is kept, as upstream."""
    for path in (spec.log_path, spec.termination_message_file):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    if spec.log_path is not None and spec.attempt >= 2:
        for old in spec.log_path.parent.glob(f"{spec.attempt - 2}.log*"):
            with contextlib.suppress(OSError):
                old.unlink()
