"""Quantities: `100m`, `1.5Gi`, `1e3`.

My job: read a quantity exactly and print it in Kubernetes' canonical form (apimachinery `resource.Quantity`): the
largest suffix of its own family that leaves a whole number. Pure; raises InvalidQuantity and nothing else.
"""

import math
import re
from functools import lru_cache

_PATTERN = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
                      r"(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?[0-9]{1,3}|)")
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SUFFIX = {power: suffix for suffix, power in _DECIMAL.items()}
_BINARY_SUFFIX = {power: suffix for suffix, power in _BINARY.items()} | {0: ""}
NANO = 10**9
#: Upstream keeps no more than this, and rounds up what is finer than a nano.
_LIMIT = (2**63 - 1) * NANO


class InvalidQuantity(ValueError):
    """Text that is no quantity; its words are upstream's."""

    def __init__(self) -> None:
        super().__init__("quantities must match the regular expression "
                         "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[int, str]:
    """(value in nanos, suffix). Finer than a nano is rounded away from zero, as upstream does."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise InvalidQuantity
    sign, number, suffix = match.groups()
    whole, _, fraction = number.partition(".")
    mantissa = int((whole or "0") + fraction)
    if suffix in _BINARY:
        numerator, denominator = mantissa * 1024 ** _BINARY[suffix] * NANO, 10 ** len(fraction)
    else:
        exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
        power = exponent + 9 - len(fraction)
        numerator, denominator = (mantissa * 10**power, 1) if power >= 0 else (mantissa, 10**-power)
    nanos = min(-(-numerator // denominator), _LIMIT)
    return (-nanos if sign == "-" else nanos), suffix


def nanos(text: str) -> int:
    """The value in billionths, exactly comparable. Raises InvalidQuantity."""
    return _parse(text)[0]


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """The same quantity as upstream prints it. Raises InvalidQuantity."""
    amount, suffix = _parse(text)
    if amount == 0:
        return "0"
    if suffix in _BINARY and abs(amount) >= 1024 * NANO and amount % NANO == 0:
        return binary(amount // NANO)
    return decimal(amount) if suffix in _DECIMAL or suffix in _BINARY else _exponent(amount)


def binary(whole: int) -> str:
    """A whole number, not zero, in powers of 1024."""
    whole, power = _reduced(whole, 1024, 6)
    return f"{whole}{_BINARY_SUFFIX[power]}"


def decimal(amount: int) -> str:
    """Billionths, not zero, in powers of 1000."""
    amount, thousands = _reduced(amount, 1000, 9)
    return f"{amount}{_SUFFIX[3 * thousands - 9]}"


def _exponent(amount: int) -> str:
    amount, thousands = _reduced(amount, 1000)
    power = 3 * thousands - 9
    return f"{amount}e{power}" if power else str(amount)


def _reduced(amount: int, base: int, most: float = math.inf) -> tuple[int, int]:
    """`amount`, not zero, without the factors `base` it has, but for those beyond `most`; and how many they were."""
    count = 0
    while count < most and amount % base == 0:
        amount //= base
        count += 1
    return amount, count
