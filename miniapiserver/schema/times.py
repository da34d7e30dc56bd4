"""Times and durations as Go reads and prints them.

My job: RFC 3339 text to the canonical UTC forms of `metav1.Time` (whole seconds) and `metav1.MicroTime`, the same from
and to seconds and nanoseconds (protobuf), and Go's duration strings. Pure; raises InvalidTime and nothing else.
"""

import calendar
import re
from datetime import UTC, datetime, timedelta

_PLAIN = re.compile(r"(?!0000)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])"
                    r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ", re.ASCII)
_FULL = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_LAYOUTS = {False: "2006-01-02T15:04:05Z07:00", True: "2006-01-02T15:04:05.000000Z07:00"}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


class InvalidTime(ValueError):
    """Text that is no time or duration; its words are upstream's."""


def canonical(text: str, *, micro: bool = False) -> str:
    """The same instant in UTC, as upstream prints it."""
    if not micro and _PLAIN.fullmatch(text):
        return text
    seconds, nanos = parse(text, micro=micro)
    return render(seconds, nanos, micro=micro)


def parse(text: str, *, micro: bool = False) -> tuple[int, int]:
    """(seconds since the epoch, nanoseconds)."""
    match = _FULL.fullmatch(text)
    if match is None:
        raise InvalidTime(_cannot_parse(text, micro))
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, zone = match.group(7) or "", match.group(8)
    try:
        at = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        if zone != "Z":
            offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
            at = at - offset if zone[0] == "+" else at + offset
        return calendar.timegm(at.timetuple()), int(fraction.ljust(9, "0")[:9])
    except (ValueError, OverflowError) as error:
        field = "month" if not 1 <= month <= 12 else "day" if hour < 24 else "hour"
        raise InvalidTime(f'parsing time "{text}": {field} out of range') from error


def render(seconds: int, nanos: int = 0, *, micro: bool = False) -> str:
    """Raises InvalidTime outside the years 1 to 9999."""
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    except OverflowError as error:
        raise InvalidTime(f"time {seconds} is out of range") from error
    text = f"{at.year:04}" + at.strftime("-%m-%dT%H:%M:%S")
    return f"{text}.{nanos // 1000:06}Z" if micro else f"{text}Z"


def _cannot_parse(text: str, micro: bool) -> str:
    """Go's words, naming the first part of the layout that does not fit."""
    rest = text
    for part, pattern in (("2006", r"\d{4}"), ("-", "-"), ("01", r"\d\d"), ("-", "-"), ("02", r"\d\d"), ("T", "T"),
                          ("15", r"\d\d"), (":", ":"), ("04", r"\d\d"), (":", ":"), ("05", r"\d\d(?:[.,]\d+)?"),
                          ("Z07:00", r"Z|[+-]\d\d:\d\d")):
        match = re.match(pattern, rest, re.ASCII)
        if match is None:
            return f'parsing time "{text}" as "{_LAYOUTS[micro]}": cannot parse "{rest}" as "{part}"'
        rest = rest[match.end():]
    return f'parsing time "{text}": extra text: "{rest}"'


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration such as `1h2m3.5s`."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total, position = 0, 0
    for match in _DURATION.finditer(rest):
        if match.start() != position:
            break
        whole, _, fraction = match.group(1).partition(".")
        unit = _UNITS[match.group(2)]
        total += int(whole or "0") * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        position = match.end()
    if not rest or position != len(rest) or total >= 2**63:
        raise InvalidTime(f'time: invalid duration "{text}"')
    return sign * total


def render_duration(nanos: int) -> str:
    """Go's `Duration.String`."""
    if nanos == 0:
        return "0s"
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    if nanos < 10**9:
        for unit in ("ms", "µs", "ns"):
            if nanos >= _UNITS[unit]:
                return f"{sign}{_decimal(nanos, _UNITS[unit])}{unit}"
    minutes, seconds = divmod(nanos, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds, 10**9)}s"
    if hours:
        text = f"{hours}h{minutes}m{text}"
    elif minutes:
        text = f"{minutes}m{text}"
    return sign + text


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    digits = f"{rest:0{len(str(unit)) - 1}}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
