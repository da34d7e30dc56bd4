"""Kubernetes quantities (`250m`, `64Mi`, `1e3`) as exact numbers.

My job: read and print them; pure. Neighbours: `node` (capacity), `pods.admission` (does it fit), `pods.downward`
(resourceFieldRef). Grammar: apimachinery `pkg/api/resource`.
"""

import math
import re
from decimal import Decimal

_SUFFIX = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_QUANTITY = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)$")


class InvalidQuantity(ValueError):
    """Not a quantity."""


def parse(text: str | int | float) -> Decimal:
    match = _QUANTITY.match(str(text).strip())
    if match is None:
        raise InvalidQuantity(f"quantities must match the regular expression, got {text!r}")
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _SUFFIX[suffix or ""]


def whole(text: str | int | float) -> int:
    """The value rounded up to an integer, as bytes and counts are."""
    return math.ceil(parse(text))


def milli(text: str | int | float) -> int:
    """Thousandths, rounded up, as CPU is."""
    return math.ceil(parse(text) * 1000)


def format_cpu(millicores: int) -> str:
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


def format_kibibytes(count: int) -> str:
    return f"{count // 1024}Ki"


def divided(value: Decimal, divisor: Decimal) -> int:
    """resourceFieldRef: the quotient rounded up."""
    return math.ceil(value / divisor)
