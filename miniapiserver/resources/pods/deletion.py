"""How long a pod has to end.

My job: graceful deletion as a decision (kubernetes `podStrategy.CheckGracefulDelete`, apiserver `rest.BeforeDelete`).
I change nothing.
"""

from collections.abc import Mapping
from typing import Any

JSON = dict[str, Any]

_FINISHED = ("Succeeded", "Failed")
DEFAULT_GRACE = 30


def grace_for(pod: Mapping[str, Any], options: Mapping[str, Any]) -> int:
    """Seconds of grace a DELETE with these DeleteOptions gives: 0 means the pod goes at once.

    A pod nobody runs needs none; a pod that is already going may only be hurried.
    """
    spec, meta = pod.get("spec") or {}, pod.get("metadata") or {}
    if not spec.get("nodeName") or (pod.get("status") or {}).get("phase") in _FINISHED:
        return 0
    asked = options.get("gracePeriodSeconds")
    if asked is None:
        asked = spec.get("terminationGracePeriodSeconds")
    grace = DEFAULT_GRACE if asked is None else int(asked)
    if grace < 0:
        grace = 1  # "at once" was once written as a negative number
    if meta.get("deletionTimestamp") is None:
        return grace
    left = meta.get("deletionGracePeriodSeconds")
    if left is None or left < 0:
        return grace
    if options.get("gracePeriodSeconds") is None:
        return int(left)  # said nothing: stays as it is
    return min(grace, int(left))
