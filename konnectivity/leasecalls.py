"""Calls about leases, counted and timed as upstream does: by HTTP status code, and reason."""

import contextlib
import time
from collections.abc import Iterator

from konnectivity.metrics import Counter, Histogram
from wire.apiclient import APIError

NO_ANSWER = "0"  # the API server was not reached


@contextlib.contextmanager
def timed(calls: Counter, seconds: Histogram) -> Iterator[None]:
    """Count the call inside and how long it took, however it ends."""
    started, code, reason = time.monotonic(), NO_ANSWER, "Unknown"
    try:
        yield
        code, reason = "200", ""
    except APIError as error:
        code, reason = str(error.code), error.reason
        raise
    finally:
        calls.add(code, reason)
        seconds.observe(time.monotonic() - started, code)
