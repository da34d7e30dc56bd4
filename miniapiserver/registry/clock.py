"""The time, injected.

My job: one place where wall-clock time enters the registry, so that tests can stand still.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`seconds()` since the epoch."""

    seconds: Callable[[], float] = time.time

    def rfc3339(self, offset: float = 0.0) -> str:
        """Now plus `offset` seconds, to the second."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.seconds() + offset))
