"""Quantities as validation and defaults need them.

My job: amounts that may be missing, null or no quantity at all. Reading and writing them is `wire.quantity`'s.
"""

from typing import Any

from wire import quantity
from wire.quantity import InvalidQuantity as BadQuantity

__all__ = ["BadQuantity", "canonical", "canonicalize", "is_whole", "parse"]


def parse(value: Any) -> int:
    """The value in billionths. JSON numbers are allowed, as upstream does; None is zero. Raises BadQuantity."""
    return 0 if value is None else quantity.nanos(str(value))


def is_whole(value: int) -> bool:
    """Whether a parsed value has no fraction."""
    return value % quantity.NANO == 0


def canonical(value: Any) -> str:
    """As upstream writes it: `1000m` is `1`, `1024Ki` is `1Mi`. What is no quantity stays as it is."""
    try:
        return quantity.canonical(str(value))
    except BadQuantity:
        return str(value)


def canonicalize(quantities: Any) -> None:
    """Every value of a resource list, in place."""
    if quantities:
        for name, value in quantities.items():
            if value is not None:
                quantities[name] = canonical(value)
