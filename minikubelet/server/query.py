"""Query parameters as Kubernetes reads them.

My job: booleans, integers, times, PodLogOptions. Pure. Rules: only the first value of a parameter counts; an absent
boolean is false, `0` and `false` are false, anything else is true.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from minikubelet.clock import parse_rfc3339
from minikubelet.logs.reader import LogOptions
from minikubelet.server.answers import HTTPError

UNDECODABLE = '{"message": "Unable to decode query."}'
INVALID = '{"message": "Invalid request."}'


def boolean(query: Mapping[str, str], name: str) -> bool:
    return name in query and query[name].lower() not in ("0", "false")


def integer(query: Mapping[str, str], name: str) -> int | None:
    """Raises HTTPError 400."""
    if name not in query or query[name] == "":
        return None
    text = query[name]
    digits = text[1:] if text[0] in "+-" else text
    if not (digits.isascii() and digits.isdigit()) or not -2**63 <= int(text) < 2**63:
        raise HTTPError(400, UNDECODABLE)
    return int(text)


def log_options(query: Mapping[str, str], now: datetime) -> LogOptions:
    """PodLogOptions, decoded and validated. Raises HTTPError 400 or 422."""
    tail = integer(query, "tailLines")
    if (legacy := query.get("tail")) not in (None, ""):
        tail = None if legacy == "all" else integer(query, "tail")
    seconds, limit = integer(query, "sinceSeconds"), integer(query, "limitBytes")
    since = _since_time(query)
    stream = query.get("stream") or "All"
    invalid = (
        (tail is not None and tail < 0) or (seconds is not None and seconds < 1) or (limit is not None and limit < 1)
        or (seconds is not None and since is not None) or stream not in ("All", "Stdout", "Stderr")
        or (stream != "All" and tail is not None)
    )
    if invalid:
        raise HTTPError(422, INVALID)
    if seconds is not None:
        since = _seconds_ago(now, seconds)
    return LogOptions(follow=boolean(query, "follow"), since=since, timestamps=boolean(query, "timestamps"),
                      tail_lines=tail, limit_bytes=limit, stream=None if stream == "All" else stream.lower())


def _since_time(query: Mapping[str, str]) -> datetime | None:
    text = query.get("sinceTime")
    if text in (None, "", "null"):
        return None
    try:
        moment = parse_rfc3339(str(text))
    except ValueError:
        raise HTTPError(400, UNDECODABLE) from None
    if moment.tzinfo is None:
        raise HTTPError(400, UNDECODABLE)
    return moment


def _seconds_ago(now: datetime, seconds: int) -> datetime:
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:
        return datetime(1970, 1, 1, tzinfo=UTC)
