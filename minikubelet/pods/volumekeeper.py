"""A pod's volumes kept current while its containers run.

My job: refresh them when something they show has changed, when a token gets old, and at every sync. I own no volume.
Neighbours: `worker` runs me and sets `dirty`; the volumes do the work.
"""

import asyncio

from minikubelet.clock import wait_until
from minikubelet.events import WARNING
from minikubelet.pods.context import PodContext
from minikubelet.volumes.errors import VolumeError

SOONEST = 0.05
AFTER_FAILURE = 1.0


class VolumeKeeper:
    """Lives as long as the pod's worker; `run` only while containers do."""

    def __init__(self, context: PodContext) -> None:
        self.dirty = asyncio.Event()
        self._context = context

    async def run(self) -> None:
        context = self._context
        while True:
            await wait_until(self.dirty, context.around.clock, self._until_next())
            self.dirty.clear()
            try:
                await context.volumes.refresh(context.with_addresses())
            except VolumeError as error:
                context.event(WARNING, error.event, str(error))
                await context.around.clock.sleep(AFTER_FAILURE)

    def _until_next(self) -> float:
        around = self._context.around
        frequency = around.config.kubelet.sync_frequency
        due = around.tokens.refresh_at(self._context.ref)
        if due is None:
            return frequency
        return min(frequency, max(due - around.clock.now().timestamp(), SOONEST))
