"""The FlowSchemas and PriorityLevelConfigurations every cluster starts with.

My job: upstream's suggested and mandatory objects as data (apiserver `pkg/apis/flowcontrol/bootstrap`). They describe
how Kubernetes shares its server between clients; this server queues nobody, and shows them to those who ask.
`bootstrap` writes them.
"""

from collections.abc import Iterator
from typing import Any

JSON = dict[str, Any]

FLOW_SCHEMAS = "flowschemas.flowcontrol.apiserver.k8s.io"
PRIORITY_LEVELS = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"

_AUTO_UPDATE = {"apf.kubernetes.io/autoupdate-spec": "true"}
_EVERYBODY = ("system:unauthenticated", "system:authenticated")
_ALL = ["*"]

#: name → shares, percent that may be lent, and (queues, hand size, queue length) unless it rejects
_LIMITED: dict[str, tuple[int, int, tuple[int, int, int] | None]] = {
    "system": (30, 33, (64, 6, 50)),
    "node-high": (40, 25, (64, 6, 50)),
    "leader-election": (10, 0, (16, 4, 50)),
    "workload-high": (40, 50, (128, 6, 50)),
    "workload-low": (100, 90, (128, 6, 50)),
    "global-default": (20, 50, (128, 6, 50)),
    "catch-all": (5, 0, None),
}


def priority_levels() -> Iterator[JSON]:
    yield _object("exempt", {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}, {})
    for name, (shares, lendable, queuing) in _LIMITED.items():
        response: JSON = {"type": "Reject"}
        if queuing is not None:
            response = {"type": "Queue",
                        "queuing": dict(zip(("queues", "handSize", "queueLengthLimit"), queuing, strict=True))}
        limited = {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}
        yield _object(name, {"type": "Limited", "limited": limited}, {})


def flow_schemas(now: str) -> Iterator[JSON]:
    """`now` is when each of them was seen to have its priority level."""
    for name, level, precedence, method, subjects, rules in _schemas():
        spec: JSON = {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
                      "rules": [{"subjects": subjects} | rules]}
        if method:
            spec["distinguisherMethod"] = {"type": method}
        words = f'This FlowSchema references the PriorityLevelConfiguration object named "{level}" and it exists'
        yield _object(name, spec, {"conditions": [
            {"type": "Dangling", "status": "False", "lastTransitionTime": now, "reason": "Found", "message": words}]})


def _schemas() -> Iterator[tuple[str, str, int, str, list[JSON], JSON]]:
    accounts = [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}]
    everybody, nodes = _groups(*_EVERYBODY), _groups("system:nodes")
    managers = _users("system:kube-controller-manager")
    schedulers = _users("system:kube-scheduler")
    leases = ("coordination.k8s.io", ["leases"])
    yield "exempt", "exempt", 1, "", _groups("system:masters"), _anything()
    yield "probes", "exempt", 2, "", everybody, {
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}
    yield ("system-leader-election", "leader-election", 100, "ByUser", managers + schedulers + accounts,
           {"resourceRules": [_rule(["get", "create", "update"], *leases)]})
    yield "system-node-high", "node-high", 400, "ByUser", nodes, {"resourceRules": [
        _rule(_ALL, "", ["nodes", "nodes/status"]) | {"clusterScope": True}, _rule(_ALL, *leases)]}
    yield "system-nodes", "system", 500, "ByUser", nodes, _anything()
    yield "kube-controller-manager", "workload-high", 800, "ByNamespace", managers, _anything()
    yield "kube-scheduler", "workload-high", 800, "ByNamespace", schedulers, _anything()
    yield "kube-system-service-accounts", "workload-high", 900, "ByNamespace", accounts, _anything()
    yield "service-accounts", "workload-low", 9000, "ByUser", _groups("system:serviceaccounts"), _anything()
    yield "global-default", "global-default", 9900, "ByUser", everybody, _anything()
    yield "catch-all", "catch-all", 10000, "ByUser", everybody, _anything()


def _object(name: str, spec: JSON, status: JSON) -> JSON:
    return {"metadata": {"name": name, "generation": 1, "annotations": _AUTO_UPDATE}, "spec": spec, "status": status}


def _groups(*names: str) -> list[JSON]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


def _users(name: str) -> list[JSON]:
    return [{"kind": "User", "user": {"name": name}}]


def _rule(verbs: list[str], group: str, resources: list[str]) -> JSON:
    return {"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": _ALL}


def _anything() -> JSON:
    return {"resourceRules": [_rule(_ALL, "*", _ALL) | {"clusterScope": True}],
            "nonResourceRules": [{"verbs": _ALL, "nonResourceURLs": _ALL}]}
