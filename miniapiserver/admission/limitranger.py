"""Containers, pods and claims stay within their namespace's LimitRanges, and get their defaults from them.

My job: the LimitRanger plugin (`plugin/pkg/admission/limitranger`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from miniapiserver.admission.interface import Attributes, Operation, Plugin
from miniapiserver.errors import Forbidden
from miniapiserver.registry.objects import Objects
from wire import quota
from wire.podresources import amounts
from wire.quantity import canonical, nanos

JSON = dict[str, Any]
Amounts = Mapping[str, Any]

STORAGE = "limitranges"
ANNOTATION = "kubernetes.io/limit-ranger"


class LimitRanger(Plugin):
    """Lives as long as the server; reads LimitRanges from the cache."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def admit(self, attributes: Attributes) -> None:
        """Upstream sets defaults at creation only: containers do not change afterwards."""
        if not _is_of(attributes, "pods", Operation.CREATE):
            return
        assert attributes.obj is not None
        for item in self._objects.list(STORAGE, attributes.namespace):
            _set_defaults(attributes.obj, _limits(item))

    async def validate(self, attributes: Attributes) -> None:
        checks: list[Callable[[JSON, JSON], Iterator[str]]] = []
        if _is_of(attributes, "pods", Operation.CREATE):
            checks = [_container_problems, _pod_problems]
        elif _is_of(attributes, "persistentvolumeclaims", Operation.CREATE, Operation.UPDATE):
            checks = [_claim_problems]
        if not checks:
            return
        assert attributes.obj is not None
        for item in self._objects.list(STORAGE, attributes.namespace):
            problems = [words for limit in _limits(item) for check in checks
                        for words in check(limit, attributes.obj)]
            if problems:
                unique = list(dict.fromkeys(problems))
                why = unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"
                raise Forbidden.resource(attributes.row.plural, "", attributes.name, why)


def _is_of(attributes: Attributes, plural: str, *operations: Operation) -> bool:
    row = attributes.row
    return (row.plural == plural and not row.group and not attributes.subresource
            and attributes.operation in operations)


def _limits(item: JSON) -> list[JSON]:
    return (item.get("spec") or {}).get("limits") or []


def _set_defaults(pod: JSON, limits: Iterable[JSON]) -> None:
    requests: dict[str, str] = {}
    maxima: dict[str, str] = {}
    for limit in limits:
        if limit.get("type") == "Container":
            requests |= limit.get("defaultRequest") or {}
            maxima |= limit.get("default") or {}
    notes: list[str] = []
    for kind, key in (("container", "containers"), ("init container", "initContainers")):
        for container in pod["spec"].get(key) or ():
            for words, part, defaults in (("request", "requests", requests), ("limit", "limits", maxima)):
                if added := _fill(container, part, defaults):
                    notes.append(f"{', '.join(added)} {words} for {kind} {container['name']}")
    if notes:
        annotations = pod["metadata"].get("annotations") or {}
        pod["metadata"]["annotations"] = annotations | {ANNOTATION: "LimitRanger plugin set: " + "; ".join(notes)}


def _fill(container: JSON, part: str, defaults: Mapping[str, str]) -> list[str]:
    """The names of what was missing."""
    resources = container.get("resources") or {}
    present = resources.get(part) or {}
    added = sorted(defaults.keys() - present.keys())
    if added:
        container["resources"] = resources | {part: present | {name: defaults[name] for name in added}}
    return added


def _container_problems(limit: JSON, pod: JSON) -> Iterator[str]:
    if limit.get("type") != "Container":
        return
    for container in (*(pod["spec"].get("containers") or ()), *(pod["spec"].get("initContainers") or ())):
        resources = container.get("resources") or {}
        yield from _problems(limit, resources.get("requests") or {}, resources.get("limits") or {})


def _pod_problems(limit: JSON, pod: JSON) -> Iterator[str]:
    """The pod's sums; a resource that one container leaves open has no sum."""
    if limit.get("type") == "Pod":
        yield from _problems(limit, _sum(pod, "requests"), _sum(pod, "limits"))


def _sum(pod: JSON, part: str) -> dict[str, str]:
    regular = [_amounts(container, part) for container in pod["spec"].get("containers") or ()]
    names = set.intersection(*(set(item) for item in regular)) if regular else set()
    total = {name: sum(item[name] for item in regular) for name in names}
    for container in pod["spec"].get("initContainers") or ():
        for name, amount in _amounts(container, part).items():
            total[name] = max(total.get(name, 0), amount)
    return {name: quota.text(name, amount) for name, amount in total.items()}


def _amounts(container: JSON, part: str) -> dict[str, int]:
    return amounts((container.get("resources") or {}).get(part))


def _problems(limit: JSON, requests: Amounts, limits: Amounts) -> Iterator[str]:
    kind = limit["type"]
    for name, bound in sorted((limit.get("min") or {}).items()):
        yield from _below(kind, name, bound, requests.get(name), limits.get(name))
    for name, bound in sorted((limit.get("max") or {}).items()):
        yield from _above(kind, name, bound, requests.get(name), limits.get(name))
    for name, bound in sorted((limit.get("maxLimitRequestRatio") or {}).items()):
        yield from _ratio(kind, name, bound, requests.get(name), limits.get(name))


def _below(kind: str, name: str, bound: str, request: str | None, limit: str | None) -> Iterator[str]:
    begin = f"minimum {name} usage per {kind} is {canonical(str(bound))}"
    if request is None:
        yield f"{begin}.  No request is specified"
    elif nanos(str(request)) < nanos(str(bound)):
        yield f"{begin}, but request is {request}"
    elif limit is not None and nanos(str(limit)) < nanos(str(bound)):
        yield f"{begin}, but limit is {limit}"


def _above(kind: str, name: str, bound: str, request: str | None, limit: str | None) -> Iterator[str]:
    begin = f"maximum {name} usage per {kind} is {canonical(str(bound))}"
    if limit is None:
        yield f"{begin}.  No limit is specified"
    elif nanos(str(limit)) > nanos(str(bound)):
        yield f"{begin}, but limit is {limit}"
    elif request is not None and nanos(str(request)) > nanos(str(bound)):
        yield f"{begin}, but request is {request}"


def _ratio(kind: str, name: str, bound: str, request: str | None, limit: str | None) -> Iterator[str]:
    begin = f"{name} max limit to request ratio per {kind} is {canonical(str(bound))}"
    if request is None or not nanos(str(request)):
        yield f"{begin}, but no request is specified or request is 0"
    elif limit is None or not nanos(str(limit)):
        yield f"{begin}, but no limit is specified or limit is 0"
    elif nanos(str(limit)) * quota.ONE > nanos(str(bound)) * nanos(str(request)):
        yield f"{begin}, but provided ratio is {nanos(str(limit)) / nanos(str(request)):f}"


def _claim_problems(limit: JSON, claim: JSON) -> Iterator[str]:
    """A claim has requests only."""
    if limit.get("type") != "PersistentVolumeClaim":
        return
    requests = ((claim["spec"].get("resources") or {}).get("requests")) or {}
    for name, bound in sorted((limit.get("min") or {}).items()):
        yield from _below("PersistentVolumeClaim", name, bound, requests.get(name), None)
    for name, bound in sorted((limit.get("max") or {}).items()):
        begin = f"maximum {name} usage per PersistentVolumeClaim is {canonical(str(bound))}"
        if name not in requests:
            yield f"{begin}.  No request is specified"
        elif nanos(str(requests[name])) > nanos(str(bound)):
            yield f"{begin}, but request is {requests[name]}"
