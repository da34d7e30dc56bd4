"""Resources as numbers.

My job: quantities, what a pod asks for, and comparing the two. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

JSON = dict[str, Any]

SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}


def quantity(text: str | int | float) -> Fraction:
    """A Kubernetes quantity as an exact number."""
    words = str(text).strip()
    suffix = next((end for end in ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei") if words.endswith(end)), "")
    if not suffix and words[-1:] in "numkMGTPE" and not words[-1:].isdigit() and words:
        suffix = words[-1]
    return Fraction(words.removesuffix(suffix) or "0") * SUFFIXES[suffix]


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

    def at_least(self, other: "Amounts") -> "Amounts":
        names = {**self.values, **other.values}
        return Amounts(
            {name: max(self.values.get(name, Fraction(0)), other.values.get(name, Fraction(0))) for name in names}
        )

    def beyond(self, limit: "Amounts") -> list[str]:
        """The resources of which there is not enough."""
        return [name for name, amount in self.values.items() if amount and amount > limit.values.get(name, Fraction(0))]


def request_of(pod: JSON) -> Amounts:
    """What a pod needs: its containers together, or its largest init container, whichever is more, plus overhead."""
    spec = pod["spec"]
    total = Amounts({"pods": Fraction(1)})
    for container in spec.get("containers") or []:
        total = total + _requests(container)
    largest = Amounts()
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            total = total + _requests(container)
        else:
            largest = largest.at_least(_requests(container))
    return total.at_least(largest) + Amounts.of(spec.get("overhead") or {})


def _requests(container: JSON) -> Amounts:
    return Amounts.of((container.get("resources") or {}).get("requests") or {})
