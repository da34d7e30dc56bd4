"""What containers ask for: limits and requests.

My job: names and amounts of compute resources, and the quality of service class that follows from them.
"""

from typing import Any

from miniapiserver.errors import FieldError, invalid, required
from miniapiserver.resources.names import label_key
from miniapiserver.resources.pods.values import NOT_NEGATIVE, objects
from miniapiserver.resources.quantity import BadQuantity, canonical, is_whole, parse

JSON = dict[str, Any]

_STANDARD = frozenset(("cpu", "memory", "ephemeral-storage"))
_HUGEPAGES = "hugepages-"
_EXTENDED_WORDS = "doesn't follow extended resource name standard"


def is_native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def _overcommits(name: str) -> bool:
    return is_native(name) and not name.startswith(_HUGEPAGES)


def resource_name_errors(name: str, path: str) -> list[FieldError]:
    if name in _STANDARD:
        return []
    errors = [invalid(path, name, words) for words in label_key(name)]
    if errors:
        return errors
    if "/" not in name:
        if not name.startswith(_HUGEPAGES):
            errors.append(invalid(path, name, "must be a standard resource for containers"))
    elif not is_native(name) and (name.startswith("requests.") or label_key(f"requests.{name}")):
        errors.append(invalid(path, name, _EXTENDED_WORDS))
    return errors


def amount_errors(name: str, text: Any, path: str) -> list[FieldError]:
    try:
        value = parse(text)
    except BadQuantity as error:
        return [invalid(path, text, str(error))]
    if value < 0:
        return [invalid(path, canonical(text), NOT_NEGATIVE)]
    if not is_native(name) and not is_whole(value):
        return [invalid(path, canonical(text), "must be an integer")]
    return []


def requirement_errors(requirements: Any, path: str) -> list[FieldError]:
    """`resources` of a container."""
    if not requirements:
        return []
    limits, requests = requirements.get("limits") or {}, requirements.get("requests") or {}
    errors: list[FieldError] = []
    for name, amount in limits.items():
        errors += resource_name_errors(name, f"{path}.limits[{name}]") + amount_errors(
            name, amount, f"{path}.limits[{name}]"
        )
    for name, amount in requests.items():
        where = f"{path}.requests[{name}]"
        found = resource_name_errors(name, where) + amount_errors(name, amount, where)
        errors += found or _limit_errors(name, amount, limits, path)
    return errors


def _limit_errors(name: str, amount: Any, limits: JSON, path: str) -> list[FieldError]:
    if name not in limits:
        words = "Limit must be set for non overcommitable resources"
        return [] if _overcommits(name) else [required(f"{path}.limits", words)]
    try:
        request, limit = parse(amount), parse(limits[name])
    except BadQuantity:
        return []  # said already, where it stands
    if request != limit and not _overcommits(name):
        return [
            invalid(
                f"{path}.requests", canonical(amount), f"must be equal to {name} limit of {canonical(limits[name])}"
            )
        ]
    if request > limit:
        return [invalid(f"{path}.requests", canonical(amount),
                        f"must be less than or equal to {name} limit of {canonical(limits[name])}")]
    return []


def _amounts(resources: JSON | None, key: str) -> dict[str, int]:
    amounts: dict[str, int] = {}
    for name in ("cpu", "memory"):
        text = ((resources or {}).get(key) or {}).get(name)
        try:
            value = parse(text)
        except BadQuantity:
            continue
        if value > 0:
            amounts[name] = value
    return amounts


def qos_class(spec: JSON) -> str:
    """Guaranteed if every container's cpu and memory limits equal its requests, BestEffort if nobody asks for any."""
    if spec.get("resources"):
        asked = [spec["resources"]]
    else:
        asked = [item.get("resources") for key in ("containers", "initContainers") for item in objects(spec.get(key))]
    pairs = [(_amounts(resources, "requests"), _amounts(resources, "limits")) for resources in asked]
    if not any(requests or limits for requests, limits in pairs):
        return "BestEffort"
    guaranteed = all(len(limits) == 2 and requests == limits for requests, limits in pairs)
    return "Guaranteed" if guaranteed else "Burstable"
