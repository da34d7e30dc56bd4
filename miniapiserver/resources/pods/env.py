"""Environment variables and what they may refer to.

My job: validation of `env` and `envFrom`, and of the downward API's field and resource references, which volumes use
too. Words as upstream's.
"""

import re
from typing import Any

from miniapiserver.errors import FieldError, invalid, not_supported, required
from miniapiserver.resources.names import env_name, label_key
from miniapiserver.resources.pods.values import key_errors, objects
from miniapiserver.resources.quantity import BadQuantity, parse

JSON = dict[str, Any]

ENV_FIELDS = ("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
              "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_CONVERTIBLE = frozenset(ENV_FIELDS + VOLUME_FIELDS + ("spec.restartPolicy", "spec.schedulerName", "status.phase"))
_SUBSCRIPTED = re.compile(r"(.+)\['(.*)'\]").fullmatch

RESOURCES = ("limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage",
             "requests.memory")
_SIZES = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei"
_SIZE_DIVISORS = frozenset(parse(size) for size in _SIZES.split(", "))
_CPU_DIVISORS = frozenset((parse("1m"), parse("1")))
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def field_reference_errors(ref: JSON, allowed: tuple[str, ...], path: str) -> list[FieldError]:
    field = ref.get("fieldPath") or ""
    for key, value in (("apiVersion", ref.get("apiVersion")), ("fieldPath", field)):
        if not value:
            return [required(f"{path}.{key}")]
    match = _SUBSCRIPTED(field)
    base = match[1] if match else field
    if base not in _CONVERTIBLE:
        return [invalid(f"{path}.fieldPath", field, f"error converting fieldPath: field label not supported: {field}")]
    if match:
        return _subscript_errors(base, match[2], path)
    return [] if base in allowed else [not_supported(f"{path}.fieldPath", base, allowed)]


def _subscript_errors(base: str, key: str, path: str) -> list[FieldError]:
    if base == "metadata.annotations":
        return [invalid(path, key, words) for words in label_key(key.lower())]
    if base == "metadata.labels":
        return [invalid(path, key, words) for words in label_key(key)]
    return [invalid(path, base, "does not support subscript")]


def resource_reference_errors(ref: JSON, path: str, in_volume: bool) -> list[FieldError]:
    resource, errors = ref.get("resource") or "", []
    if in_volume and not ref.get("containerName"):
        errors.append(required(f"{path}.containerName"))
    elif not resource:
        errors.append(required(f"{path}.resource"))
    elif resource not in RESOURCES and ".hugepages-" not in resource:
        errors.append(not_supported(f"{path}.resource", resource, RESOURCES))
    return errors + _divisor_errors(resource, ref.get("divisor"), path)


def _divisor_errors(resource: str, divisor: Any, path: str) -> list[FieldError]:
    try:
        value = parse(divisor)
    except BadQuantity as error:
        return [invalid(f"{path}.divisor", divisor, str(error))]
    if not value:
        return []
    if resource.endswith(".cpu"):
        allowed, words = _CPU_DIVISORS, "only divisor's values 1m and 1 are supported with the cpu resource"
    elif resource.endswith(".memory"):
        allowed, words = _SIZE_DIVISORS, f"only divisor's values {_SIZES} are supported with the memory resource"
    elif resource.endswith(".ephemeral-storage"):
        allowed = _SIZE_DIVISORS
        words = f"only divisor's values {_SIZES} are supported with the local ephemeral storage resource"
    else:
        return []
    return [] if value in allowed else [invalid(f"{path}.divisor", resource, words)]


def env_errors(variables: Any, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, variable in enumerate(objects(variables)):
        if not (name := variable.get("name") or ""):
            errors.append(required(f"{path}[{index}].name"))
        else:
            errors += [invalid(f"{path}[{index}].name", name, words) for words in env_name(name)]
        if (source := variable.get("valueFrom")) is not None:
            errors += _source_errors(source, variable.get("value"), f"{path}[{index}].valueFrom")
    return errors


def _source_errors(source: JSON, value: Any, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    present = [key for key in _SOURCES if source.get(key) is not None]
    for key in present:
        errors += _reference_errors(key, source[key], f"{path}.{key}")
    if not present:
        errors.append(invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, "
                                        "`secretKeyRef` or `fileKeyRef`"))
    elif value:
        errors.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(present) > 1:
        errors.append(invalid(path, "", "may not have more than one field specified at a time"))
    return errors


def _reference_errors(key: str, ref: JSON, path: str) -> list[FieldError]:
    if key == "fieldRef":
        return field_reference_errors(ref, ENV_FIELDS, path)
    if key == "resourceFieldRef":
        return resource_reference_errors(ref, path, in_volume=False)
    if key == "fileKeyRef":
        return [required(f"{path}.{name}") for name in ("volumeName", "path", "key") if not ref.get(name)]
    return key_errors(f"{path}.key", ref.get("key") or "")


def env_from_errors(sources: Any, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, source in enumerate(objects(sources)):
        if prefix := source.get("prefix"):
            errors += [invalid(f"{path}[{index}].prefix", prefix, words) for words in env_name(prefix)]
        present = [key for key in ("configMapRef", "secretRef") if source.get(key) is not None]
        errors += [required(f"{path}[{index}].{key}.name") for key in present if not source[key].get("name")]
        if not present:
            errors.append(invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(present) > 1:
            errors.append(invalid(path, "", "may not have more than one field specified at a time"))
    return errors
