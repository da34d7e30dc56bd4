"""Resources as numbers.

My job: adding up and comparing what pods ask for and nodes have. Pure. Neighbours: `wire.podresources` sums up a pod.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from wire import podresources
from wire.quantity import NANO, nanos

JSON = dict[str, Any]


def quantity(text: str | int | float) -> Fraction:
    """A Kubernetes quantity as an exact number."""
    return Fraction(nanos(str(text)), NANO)


@dataclass(frozen=True, slots=True)
class Amounts:
    """Resource name → amount."""

    values: Mapping[str, Fraction] = field(default_factory=dict)

    @classmethod
    def of(cls, quantities: Mapping[str, str]) -> "Amounts":
        return cls({name: quantity(text) for name, text in quantities.items()})

    def __add__(self, other: "Amounts") -> "Amounts":
        names = [*self.values, *(name for name in other.values if name not in self.values)]
        return Amounts(
            {name: self.values.get(name, Fraction(0)) + other.values.get(name, Fraction(0)) for name in names}
        )

    def beyond(self, limit: "Amounts") -> list[str]:
        """The resources of which there is not enough."""
        return [name for name, amount in self.values.items() if amount and amount > limit.values.get(name, Fraction(0))]


def request_of(pod: JSON) -> Amounts:
    """What a pod needs, itself included."""
    asked = {name: Fraction(amount, NANO) for name, amount in podresources.requests(pod).items()}
    return Amounts({"pods": Fraction(1)} | asked)
