"""Kubernetes quantities (`250m`, `64Mi`, `1e3`) as exact numbers.

My job: numbers as the kubelet wants them; `wire.quantity` reads them. Pure. Neighbours: `node` (capacity),
`pods.admission` (does it fit), `pods.downward` (resourceFieldRef).
"""

import math
from decimal import Decimal

from wire.quantity import NANO, InvalidQuantity, nanos

__all__ = ["InvalidQuantity", "divided", "format_cpu", "format_kibibytes", "milli", "parse", "rounded_up", "whole"]

ONE, MILLI = NANO, NANO // 1000  # in billionths


def parse(text: str | int | float) -> Decimal:
    return Decimal(_billionths(text)).scaleb(-9)


def whole(text: str | int | float) -> int:
    """The value rounded up to an integer, as bytes and counts are."""
    return rounded_up(_billionths(text), ONE)


def milli(text: str | int | float) -> int:
    """Thousandths, rounded up, as CPU is."""
    return rounded_up(_billionths(text), MILLI)


def rounded_up(billionths: int, unit: int) -> int:
    return -(-billionths // unit)


def _billionths(text: str | int | float) -> int:
    return nanos(str(text).strip())


def format_cpu(millicores: int) -> str:
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


def format_kibibytes(count: int) -> str:
    return f"{count // 1024}Ki"


def divided(value: Decimal, divisor: Decimal) -> int:
    """resourceFieldRef: the quotient rounded up."""
    return math.ceil(value / divisor)
