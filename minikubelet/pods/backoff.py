"""How long a container that ended must wait before it starts again.

My job: 10 s, doubling to the ceiling, forgotten after a run of twice the ceiling (upstream's flowcontrol.Backoff).
Pure: `now` comes in as monotonic seconds. Neighbours: `containers` (crashes) and `images` pulls.
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
    _since: float = 0.0

    @property
    def delay(self) -> float:
        return self._delay

    def next_delay(self, now: float, ran_since: float | None = None) -> float:
        """Seconds to wait before the next attempt; counts this failure. A run since `ran_since` that outlasted
        twice the ceiling starts the count anew."""
        quiet_since = self._since if ran_since is None else ran_since
        if self._delay and now - quiet_since > 2 * self.ceiling:
            self._delay = 0.0
        self._delay = min(self._delay * 2, self.ceiling) if self._delay else min(self.initial, self.ceiling)
        self._since = now
        return self._delay

    def reset(self) -> None:
        self._delay = 0.0


def as_go_duration(seconds: float) -> str:
    """`10s`, `1m20s`, `5m0s`: as upstream prints a back-off."""
    total = round(seconds)
    minutes, rest = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
