"""How long a container that ended must wait before it starts again.

My job: the first restart at once, then 10 s, doubling to the ceiling, forgotten after twice the ceiling without a
failure (upstream's flowcontrol.Backoff as the runtime manager uses it). Pure: monotonic seconds come in. Neighbours:
`containers` (crashes, image pulls).
"""

from dataclasses import dataclass

INITIAL = 10.0
CEILING = 300.0


@dataclass(slots=True)
class Backoff:
    """One container's (or image's) back-off. Lives as long as the container's supervisor."""

    ceiling: float = CEILING
    initial: float = INITIAL
    _delay: float = 0.0
    _updated_at: float = 0.0

    def wait_after(self, failed_at: float) -> float:
        """Seconds that must pass after `failed_at` before the next attempt."""
        return 0.0 if self._has_expired(failed_at) else self._delay

    def attempt(self, failed_at: float, now: float) -> None:
        """The attempt that follows the failure at `failed_at` is made now; the next failure waits longer."""
        if not self._delay or self._has_expired(failed_at):
            self._delay = min(self.initial, self.ceiling)
        else:
            self._delay = min(self._delay * 2, self.ceiling)
        self._updated_at = now

    def _has_expired(self, failed_at: float) -> bool:
        return failed_at - self._updated_at > 2 * self.ceiling


def as_go_duration(seconds: float) -> str:
    """`10s`, `1m20s`, `5m0s`: as upstream prints a back-off."""
    total = round(seconds)
    minutes, rest = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
