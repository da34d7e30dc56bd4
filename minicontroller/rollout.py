"""The arithmetic of a rolling update.

My job: how large the new and each old ReplicaSet may be next, so that never more than `most` pods exist and never
fewer than `least_available` are available (`deployment/rolling.go`, `deployment/util`). Pure numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Budget:
    wanted: int
    surge: int
    unavailable: int

    @property
    def most(self) -> int:
        return self.wanted + self.surge if self.wanted else 0

    @property
    def least_available(self) -> int:
        return self.wanted - self.unavailable

    @classmethod
    def of(cls, wanted: int, rolling: dict[str, Any]) -> "Budget":
        """From `rollingUpdate`; percentages round up for the surge and down for what may be missing."""
        surge = _resolved(rolling.get("maxSurge", "25%"), wanted, math.ceil)
        unavailable = _resolved(rolling.get("maxUnavailable", "25%"), wanted, math.floor)
        if not surge and not unavailable:
            unavailable = 1  # else nothing could ever move
        return cls(wanted, surge, min(unavailable, wanted))


def _resolved(value: int | str, wanted: int, rounding: Any) -> int:
    if isinstance(value, str):
        return int(rounding(int(value.rstrip("%") or 0) * wanted / 100))
    return value


@dataclass(frozen=True, slots=True)
class Sizes:
    replicas: int
    available: int


def next_sizes(budget: Budget, new: Sizes, old: Sequence[Sizes]) -> tuple[int, list[int]]:
    """(size of the new set, sizes of the old ones in the same order)."""
    return _grown(budget, new, old), _shrunk(budget, new, old)


def _grown(budget: Budget, new: Sizes, old: Sequence[Sizes]) -> int:
    if new.replicas >= budget.wanted:
        return budget.wanted
    total = new.replicas + sum(item.replicas for item in old)
    room = max(budget.most - total, 0)
    return min(new.replicas + room, budget.wanted)


def _shrunk(budget: Budget, new: Sizes, old: Sequence[Sizes]) -> list[int]:
    """First the old pods that are not available anyway, then available ones as far as availability allows."""
    sizes = [item.replicas for item in old]
    total = new.replicas + sum(sizes)
    new_unavailable = max(new.replicas - new.available, 0)
    spare = total - budget.least_available - new_unavailable
    for index, item in enumerate(old):
        dead = min(max(item.replicas - item.available, 0), max(spare, 0))
        sizes[index] -= dead
        spare -= dead
    spare = min(spare, new.available + sum(min(item.available, item.replicas) for item in old) - budget.least_available)
    for index in range(len(sizes)):
        gone = min(sizes[index], max(spare, 0))
        sizes[index] -= gone
        spare -= gone
    return sizes
