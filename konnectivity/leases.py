"""When a server's Lease still counts. Pure; both ends must agree on it."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

DURATION = 30  # seconds


def micro_time(moment: datetime) -> str:
    """metav1.MicroTime."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def is_valid(lease: Mapping[str, Any], now: datetime) -> bool:
    """(renewTime or acquireTime) + leaseDurationSeconds is still to come."""
    spec = lease.get("spec") or {}
    since, seconds = spec.get("renewTime") or spec.get("acquireTime"), spec.get("leaseDurationSeconds")
    if not since or not seconds:
        return False
    try:
        return datetime.fromisoformat(since) + timedelta(seconds=int(seconds)) > now
    except (TypeError, ValueError):
        return False


def count_valid(leases: Iterable[Mapping[str, Any]], now: datetime) -> int:
    """How many servers there are; never below 1, as upstream."""
    return max(1, sum(1 for lease in leases if is_valid(lease, now)))
