"""Values of query parameters, read as Go reads them.

My job: booleans, integers and times of option objects that arrive as a query, and the words of what is none.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from miniapiserver.errors import BadRequest

Query = Mapping[str, Sequence[str]]

_MAX_INT64 = 2**63 - 1


def text_value(query: Query, name: str) -> str:
    values = query.get(name)
    return values[0] if values else ""


def bool_value(query: Query, name: str) -> bool:
    """Present means true, unless it says `0` or `false`."""
    values = query.get(name) or ()
    return bool(values) and values[0].lower() not in ("0", "false")


def int_value(query: Query, name: str) -> int | None:
    values = query.get(name)
    if not values:
        return None
    text = values[0]
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    number = int(text)
    if not -_MAX_INT64 - 1 <= number <= _MAX_INT64:
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def time_value(query: Query, name: str) -> str | None:
    """An RFC 3339 time, as it came."""
    text = text_value(query, name)
    if not text or text == "null":
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or "T" not in text.upper():
        raise BadRequest(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}" as "2006"')
    return text
