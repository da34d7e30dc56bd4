"""The time, injected.

My job: one place where wall-clock time enters the registry, so that tests can stand still.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

#: 9999-12-31T23:59:59Z
LAST_SECOND = 253_402_300_799.0


@dataclass(frozen=True, slots=True)
class Clock:
    """`seconds()` since the epoch."""

    seconds: Callable[[], float] = time.time

    def rfc3339(self, offset: float = 0.0) -> str:
        """Now plus `offset` seconds, to the second; never beyond the year 9999, where RFC 3339 ends."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(self.seconds() + offset, LAST_SECOND)))
