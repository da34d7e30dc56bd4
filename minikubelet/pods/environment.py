"""A container's environment, command and arguments.

My job: literals, downward API, ConfigMap and Secret keys, envFrom, service variables, `$(VAR)` (upstream
kubelet_pods.go). Pure: the objects it needs are named by `references` and handed in. Neighbours: `containers` calls
me before each start. Raises ConfigError, whose text becomes the CreateContainerConfigError message.
"""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minikubelet.pods.downward import UnknownField, field_value, resource_value
from minikubelet.pods.expansion import expand
from minikubelet.quantity import InvalidQuantity

JSON = dict[str, Any]


class ConfigError(Exception):
    """A container cannot be configured: something it refers to is missing."""


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """A ConfigMap or Secret in the pod's namespace; `kind` as upstream's messages spell it."""

    kind: str
    name: str


CONFIG_MAP, SECRET = "configmap", "secret"
_TITLE = {CONFIG_MAP: "ConfigMap", SECRET: "Secret"}
_ENV_FROM = {"configMapRef": CONFIG_MAP, "secretRef": SECRET}
_KEY_REF = {"configMapKeyRef": CONFIG_MAP, "secretKeyRef": SECRET}

# None: the object does not exist.
Objects = Mapping[ObjectRef, JSON | None]


def references(container: JSON) -> set[ObjectRef]:
    """Every object the container's environment needs."""
    found = set()
    for source in container.get("envFrom") or ():
        found |= {ObjectRef(kind, source[key]["name"]) for key, kind in _ENV_FROM.items() if source.get(key)}
    for variable in container.get("env") or ():
        value_from = variable.get("valueFrom") or {}
        found |= {ObjectRef(kind, value_from[key]["name"]) for key, kind in _KEY_REF.items() if value_from.get(key)}
    return found


def build(container: JSON, pod: JSON, objects: Objects, services: Mapping[str, str],
          allocatable: Mapping[str, str]) -> dict[str, str]:
    """All variables. Raises ConfigError."""
    own = _from_objects(container, pod, objects)
    for variable in container.get("env") or ():
        name = variable["name"]
        if variable.get("value"):
            own[name] = expand(variable["value"], _Layered(own, services))
        elif value_from := variable.get("valueFrom"):
            value = _value_from(value_from, container, pod, objects, allocatable)
            if value is not None:
                own[name] = value
        else:
            own[name] = ""
    return {**services, **own}


def expanded_command(container: JSON, environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The container's `command` and `args` with `$(VAR)` replaced."""
    return ([expand(word, environment) for word in container.get("command") or ()],
            [expand(word, environment) for word in container.get("args") or ()])


class _Layered(dict[str, str]):
    """Own variables over service variables, without copying either."""

    def __init__(self, upper: Mapping[str, str], lower: Mapping[str, str]) -> None:
        super().__init__()
        self._layers = (upper, lower)

    def get(self, key: str, default: Any = None) -> Any:
        for layer in self._layers:
            if key in layer:
                return layer[key]
        return default


def _from_objects(container: JSON, pod: JSON, objects: Objects) -> dict[str, str]:
    own: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix") or ""
        for key, kind in _ENV_FROM.items():
            if reference := source.get(key):
                found = _object(ObjectRef(kind, reference["name"]), objects, optional=bool(reference.get("optional")))
                own |= {prefix + name: value for name, value in _text_data(kind, found).items()
                        if "=" not in name}
    return own


def _object(reference: ObjectRef, objects: Objects, *, optional: bool) -> JSON:
    found = objects.get(reference)
    if found is None and not optional:
        raise ConfigError(f'{reference.kind} "{reference.name}" not found')
    return found or {}


def _text_data(kind: str, found: JSON) -> dict[str, str]:
    data = found.get("data") or {}
    return {key: _decoded(value) for key, value in data.items()} if kind == SECRET else dict(data)


def _decoded(value: str) -> str:
    """A Secret's value as the bytes a process sees; surrogates carry what is not UTF-8."""
    try:
        return b64decode(value, validate=True).decode("utf-8", "surrogateescape")
    except binascii.Error:
        raise ConfigError("secret data is not base64") from None


def _value_from(source: JSON, container: JSON, pod: JSON, objects: Objects,
                allocatable: Mapping[str, str]) -> str | None:
    """The value, or None where an optional key is absent."""
    try:
        if reference := source.get("fieldRef"):
            return field_value(pod, reference.get("fieldPath", ""))
        if reference := source.get("resourceFieldRef"):
            return resource_value(pod, container["name"], reference, allocatable)
    except (UnknownField, InvalidQuantity) as error:
        raise ConfigError(str(error)) from None
    for key, kind in _KEY_REF.items():
        if reference := source.get(key):
            return _key_value(kind, reference, pod, objects)
    return ""


def _key_value(kind: str, reference: JSON, pod: JSON, objects: Objects) -> str | None:
    optional = bool(reference.get("optional"))
    found = _object(ObjectRef(kind, reference["name"]), objects, optional=optional)
    data, key = found.get("data") or {}, reference["key"]
    if key in data:
        return _decoded(data[key]) if kind == SECRET else str(data[key])
    if optional:
        return None
    namespace = pod["metadata"].get("namespace", "default")
    raise ConfigError(f"couldn't find key {key} in {_TITLE[kind]} {namespace}/{reference['name']}")
