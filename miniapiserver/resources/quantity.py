"""Quantities: `100m`, `1Gi`, `2e3`.

My job: to read them exactly, to compare them, and to write them as upstream does (apimachinery `api/resource`).
A quantity is a Fraction here; text that is none raises BadQuantity.
"""

import re
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Any

_PATTERN = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(?:([eE][+-]?\d+)|([KMGTPE]i)|([numkMGTPE]?))").fullmatch
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = {exponent: suffix for suffix, exponent in _BINARY.items()}
_NANO = Fraction(1, 10**9)
_LIMIT = Fraction(2**63 - 1)

#: apimachinery's `ErrFormatWrong`
FORMAT_WORDS = ("quantities must match the regular expression "
                "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")


class BadQuantity(ValueError):
    """Text that is no quantity."""


@lru_cache(maxsize=4096)
def _read(text: str) -> tuple[Fraction, str]:
    match = _PATTERN(text)
    if match is None:
        raise BadQuantity(FORMAT_WORDS)
    sign, digits, exponent, binary, decimal = match.groups()
    value, form = Fraction(digits), "decimal"
    if exponent:
        if abs(power := int(exponent[1:])) > 1000:
            raise BadQuantity(FORMAT_WORDS)
        value, form = value * Fraction(10) ** power, "exponent"
    elif binary:
        value, form = value * 1024 ** _BINARY[binary], "binary"
    else:
        value *= Fraction(10) ** _DECIMAL[decimal or ""]
    if value % _NANO:  # finer than nano is rounded up, away from zero
        value = ceil(value / _NANO) * _NANO
    value = min(value, _LIMIT)
    return (-value if sign == "-" else value), form


def parse(value: Any) -> Fraction:
    """The exact value. JSON numbers are allowed, as upstream does; None is zero."""
    return Fraction(0) if value is None else _read(str(value))[0]


def _decimal(value: Fraction, form: str) -> str:
    if not value:
        return "0"
    exponent, mantissa = -9, int(value / _NANO)
    while mantissa % 1000 == 0 and exponent < 18:
        mantissa, exponent = mantissa // 1000, exponent + 3
    if form == "exponent":
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{_DECIMAL_SUFFIX[exponent]}"


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    value, form = _read(text)
    if form != "binary" or -1024 < value < 1024 or value.denominator != 1:
        return _decimal(value, form)
    mantissa, exponent = value.numerator, 0
    while mantissa % 1024 == 0 and exponent < 6:
        mantissa, exponent = mantissa // 1024, exponent + 1
    return f"{mantissa}{_BINARY_SUFFIX[exponent]}" if exponent else str(mantissa)


def canonical(value: Any) -> str:
    """As upstream writes it: `1000m` is `1`, `1024Ki` is `1Mi`. What is no quantity stays as it is."""
    try:
        return _canonical(str(value))
    except BadQuantity:
        return str(value)


def canonicalize(quantities: Any) -> None:
    """Every value of a resource list, in place."""
    if quantities:
        for name, value in quantities.items():
            if value is not None:
                quantities[name] = canonical(value)
