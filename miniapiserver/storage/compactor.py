"""Keeps storage from growing for ever.

My job: every minute note the current revision, and compact to the one that was current `keep` seconds ago, as
kube-apiserver does every five minutes. I own no data. Clients that fall further behind are told 410 and list again.
"""

import asyncio
import logging
from collections import deque

from miniapiserver.storage.interface import Storage, StorageError

KEEP = 300.0
INTERVAL = 60.0

log = logging.getLogger(__name__)


class Compactor:
    """`run` lives in the server's task group until it is cancelled."""

    def __init__(self, storage: Storage, *, keep: float = KEEP, interval: float = INTERVAL) -> None:
        self._storage = storage
        self._interval = interval
        self._noted: deque[int] = deque(maxlen=max(1, round(keep / interval)))

    async def run(self) -> None:
        while True:
            try:
                await self.step()
            except StorageError as error:  # the next step tries again; nothing depends on this one
                log.warning('storage.compact reason="%s"', error)
            await asyncio.sleep(self._interval)

    async def step(self) -> None:
        """Note the present; forget what lies before the oldest note once there are enough of them."""
        current = await self._storage.current_revision()
        if len(self._noted) == self._noted.maxlen:
            await self._storage.compact(self._noted[0])
        self._noted.append(current)
