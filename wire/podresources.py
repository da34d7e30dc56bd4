"""What a pod asks for and may use.

My job: the sum over a pod's containers, by the rule that scheduler, quota and kubelet must agree on
(`component-helpers/resource/helpers.go`, PodRequests and PodLimits): containers run together, init containers one after
the other, and a sidecar (an init container that restarts always) beside all that come behind it. Pure. Amounts are
billionths, see `quantity`, whose InvalidQuantity is raised for what is none.
"""

from collections.abc import Callable, Mapping
from typing import Any

from wire.quantity import nanos

JSON = Mapping[str, Any]
#: Resource name → billionths.
Amounts = dict[str, int]


def amounts(quantities: Mapping[str, Any] | None) -> Amounts:
    return {name: nanos(str(text)) for name, text in (quantities or {}).items()}


def container_requests(container: JSON) -> Amounts:
    return amounts((container.get("resources") or {}).get("requests"))


def container_limits(container: JSON) -> Amounts:
    return amounts((container.get("resources") or {}).get("limits"))


def requests(pod: JSON, of: Callable[[JSON], Amounts] = container_requests) -> Amounts:
    return add(_total(pod, of), _overhead(pod))


def limits(pod: JSON) -> Amounts:
    """The overhead counts only where something is limited at all."""
    total = _total(pod, container_limits)
    return add(total, {name: amount for name, amount in _overhead(pod).items() if name in total})


def add(one: Mapping[str, int], other: Mapping[str, int]) -> Amounts:
    """In the order of `one`, then what only `other` has."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in (*one, *other)}


def _total(pod: JSON, of: Callable[[JSON], Amounts]) -> Amounts:
    spec = pod.get("spec") or {}
    running: Amounts = {}
    largest: Amounts = {}
    for container in spec.get("initContainers") or ():
        wanted = add(running, of(container))
        if container.get("restartPolicy") == "Always":
            running = wanted
        largest = _more(largest, wanted)
    for container in spec.get("containers") or ():
        running = add(running, of(container))
    return _more(running, largest)


def _more(one: Amounts, other: Amounts) -> Amounts:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in (*one, *other)}


def _overhead(pod: JSON) -> Amounts:
    return amounts((pod.get("spec") or {}).get("overhead"))
