"""The APIServices of the group versions this server serves itself.

My job: one object per group version, as upstream's aggregator registers them at start (`pkg/controlplane/apiserver`,
the table of priorities). `bootstrap` writes them; discovery does not read them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

JSON = dict[str, Any]

STORAGE = "apiservices.apiregistration.k8s.io"
_LABELS = {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
#: Serves the others and is not one of them.
_AGGREGATOR = "apiregistration.k8s.io"
_VERSION = 15

#: group → how early it is listed
_GROUPS = {
    "": 18000, "apps": 17800, "events.k8s.io": 17750, "authentication.k8s.io": 17700, "authorization.k8s.io": 17600,
    "autoscaling": 17500, "batch": 17400, "certificates.k8s.io": 17300, "networking.k8s.io": 17200, "policy": 17100,
    "rbac.authorization.k8s.io": 17000, "storage.k8s.io": 16800, "apiextensions.k8s.io": 16700,
    "admissionregistration.k8s.io": 16700, "scheduling.k8s.io": 16600, "coordination.k8s.io": 16500,
    "node.k8s.io": 16300, "discovery.k8s.io": 16200, "resource.k8s.io": 16200, "flowcontrol.apiserver.k8s.io": 16100,
}
#: Versions that are not of the usual priority
_VERSIONS = {("", "v1"): 1, ("autoscaling", "v2"): 30, ("flowcontrol.apiserver.k8s.io", "v1"): 21,
             ("resource.k8s.io", "v1"): 20}


def local(served: Iterable[tuple[str, str]], now: str) -> Iterator[JSON]:
    """`served` are (group, version); `now` is since when they are available."""
    for group, version in served:
        if group == _AGGREGATOR:
            continue
        spec = {"group": group} if group else {}
        condition = {"type": "Available", "status": "True", "lastTransitionTime": now, "reason": "Local",
                     "message": "Local APIServices are always available"}
        yield {"metadata": {"name": f"{version}.{group}", "labels": _LABELS},
               "spec": spec | {"version": version, "groupPriorityMinimum": _GROUPS.get(group, 1000),
                               "versionPriority": _VERSIONS.get((group, version), _VERSION)},
               "status": {"conditions": [condition]}}
