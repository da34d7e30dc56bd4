"""What an object counts for in a ResourceQuota.

My job: usage per resource name, which quotas an object falls under, and amounts as text. The API server charges at
admission and the controller counts again later; both must come to the same number, so the rules live below both
(`pkg/quota/v1/evaluator/core`). Pure. Amounts are billionths. Neighbours: `podresources` adds up a pod.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from wire import podresources
from wire.quantity import NANO, binary, decimal, nanos

JSON = Mapping[str, Any]
Usage = podresources.Amounts
add = podresources.add

ONE = NANO

#: Core resources that may be counted by their plain name.
PLAIN_COUNTS = frozenset(("services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps",
                          "persistentvolumeclaims"))
COMPUTE = ("cpu", "memory", "ephemeral-storage")
#: A quota on one of these makes every container say what it wants; upstream calls it a mistake that has to stay.
DEMANDED = frozenset(("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"))
CLASS_INFIX = ".storageclass.storage.k8s.io/"
FINISHED = ("Succeeded", "Failed")


def usage(plural: str, group: str, obj: JSON) -> Usage:
    """Resource name → amount."""
    found = {f"count/{plural}.{group}" if group else f"count/{plural}": ONE}
    if group:
        return found
    if plural in PLAIN_COUNTS:
        found[plural] = ONE
    if plural == "pods":
        found |= _pod(obj)
    elif plural == "services":
        found |= _service(obj)
    elif plural == "persistentvolumeclaims":
        found |= _claim(obj)
    return found


def concerns(plural: str, group: str, names: Iterable[str]) -> set[str]:
    """Those of a quota's resource names that objects of this kind can use up."""
    count = f"count/{plural}.{group}" if group else f"count/{plural}"
    return {name for name in names if name == count or (not group and _is_of(plural, name))}


def _is_of(plural: str, name: str) -> bool:
    if plural == "pods":
        bare = name.removeprefix("requests.").removeprefix("limits.")
        extended = name.startswith("requests.") and "/" in name
        return name == "pods" or bare in COMPUTE or bare.startswith("hugepages-") or extended
    if plural == "persistentvolumeclaims":
        return name in (plural, "requests.storage") or CLASS_INFIX in name
    return (name == plural and plural in PLAIN_COUNTS) or (plural == "services" and name.startswith("services."))


def missing(pod: JSON, names: Iterable[str]) -> str:
    """`cpu for: a,b; memory for: a`: what containers must say because a quota limits it; "" if they do."""
    lacking: dict[str, list[str]] = {}
    for container in _containers(pod):
        given = _compute(podresources.container_requests(container), podresources.container_limits(container))
        for name in sorted(DEMANDED & set(names) - given.keys()):
            lacking.setdefault(name, []).append(container["name"])
    return "; ".join(f"{name} for: {','.join(sorted(set(lacking[name])))}" for name in sorted(lacking))


def in_scope(quota: JSON, plural: str, obj: JSON) -> bool:
    """Whether the object falls under every scope of the quota. Scopes are about pods only."""
    spec = quota.get("spec") or {}
    asked = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    asked += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return not asked or (plural == "pods" and all(_matches(expression, obj) for expression in asked))


def _matches(expression: JSON, pod: JSON) -> bool:
    spec, scope = pod.get("spec") or {}, expression.get("scopeName")
    terminating = (spec.get("activeDeadlineSeconds") or -1) >= 0
    if scope == "PriorityClass":
        return _by_operator(expression, spec.get("priorityClassName") or "")
    answers = {"Terminating": terminating, "NotTerminating": not terminating,
               "BestEffort": _is_best_effort(pod), "NotBestEffort": not _is_best_effort(pod),
               "CrossNamespacePodAffinity": _crosses_namespaces(spec.get("affinity") or {})}
    return answers.get(str(scope), False)


def _by_operator(expression: JSON, value: str) -> bool:
    values = expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return bool(value) and value in values
        case "NotIn":
            return value not in values
        case "DoesNotExist":
            return not value
    return bool(value)


def _is_best_effort(pod: JSON) -> bool:
    for container in _containers(pod):
        resources = container.get("resources") or {}
        if any(name in COMPUTE[:2] for part in ("requests", "limits") for name in resources.get(part) or ()):
            return False
    return True


def _crosses_namespaces(affinity: JSON) -> bool:
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        terms = [*(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()),
                 *(item.get("podAffinityTerm") or {}
                   for item in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ())]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


def _pod(pod: JSON) -> Usage:
    """Pods that have ended use nothing but their place in storage."""
    if (pod.get("status") or {}).get("phase") in FINISHED:
        return {}
    return {"pods": ONE} | _compute(podresources.requests(pod), podresources.limits(pod))


def _compute(requests: Usage, limits: Usage) -> Usage:
    found: Usage = {}
    for name, amount in requests.items():
        if name in COMPUTE or name.startswith("hugepages-"):
            found[name] = amount
        found[f"requests.{name}"] = amount
    return found | {f"limits.{name}": amount for name, amount in limits.items() if name in COMPUTE}


def _service(service: JSON) -> Usage:
    spec = service.get("spec") or {}
    kind, ports = spec.get("type", "ClusterIP"), spec.get("ports") or ()
    if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
        count = sum(1 for port in ports if port.get("nodePort"))
    else:
        count = len(ports) if kind in ("NodePort", "LoadBalancer") else 0
    return {"services.nodeports": count * ONE, "services.loadbalancers": ONE if kind == "LoadBalancer" else 0}


def _claim(claim: JSON) -> Usage:
    spec = claim.get("spec") or {}
    found: Usage = {}
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is not None:
        found["requests.storage"] = nanos(str(storage))
    if chosen := spec.get("storageClassName"):
        found[f"{chosen}{CLASS_INFIX}persistentvolumeclaims"] = ONE
        if storage is not None:
            found[f"{chosen}{CLASS_INFIX}requests.storage"] = nanos(str(storage))
    return found


def _containers(pod: JSON) -> list[Any]:
    spec = pod.get("spec") or {}
    return [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]


def text(name: str, amount: int) -> str:
    """An amount as a canonical quantity: bytes in powers of 1024 where that is exact, everything else decimal."""
    if amount == 0:
        return "0"
    is_bytes = any(word in name for word in ("memory", "storage", "hugepages"))
    if is_bytes and amount % (1024 * ONE) == 0:
        return binary(amount // ONE)
    return decimal(amount)
