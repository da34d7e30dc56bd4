"""JSON Merge Patch, RFC 7386.

My job: lay an object over a copy of another: null deletes, objects merge, everything else replaces. Pure; cannot fail.
"""

from typing import Any

from miniapiserver.patch.document import copy

JSON = dict[str, Any]


def apply(obj: JSON, patch: JSON) -> JSON:
    """The patched copy."""
    merged: JSON = _merge(copy(obj), copy(patch))
    return merged


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = _merge(target.get(key), value)
    return target
