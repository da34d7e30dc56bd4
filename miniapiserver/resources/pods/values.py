"""Small rules that pods' parts share.

My job: ports, paths, modes and choices, as upstream's validation words them. I own no part of a pod.
"""

from collections.abc import Sequence
from typing import Any

from miniapiserver.errors import FieldError, invalid, not_supported, required
from miniapiserver.resources.names import config_key, port_name, port_number

JSON = dict[str, Any]

NOT_NEGATIVE = "must be greater than or equal to 0"
_MODE_WORDS = "must be a number between 0 and 0777 (octal), both inclusive"
_RESERVED_WORDS = "must not start with '..'"


def objects(value: Any) -> list[JSON]:
    """A list of objects as Go decodes it: null is empty, and so is a null within."""
    return [item or {} for item in value or ()]


def choice_errors(path: str, value: Any, allowed: Sequence[str]) -> list[FieldError]:
    """A required word out of a few. `allowed` stands in the order upstream lists it."""
    if not value:
        return [required(path)]
    return [] if value in allowed else [not_supported(path, value, allowed)]


def port_or_name_errors(path: str, value: Any) -> list[FieldError]:
    if isinstance(value, str):
        return [invalid(path, value, words) for words in port_name(value)]
    return [invalid(path, value or 0, words) for words in port_number(value or 0)]


def negative_errors(path: str, value: Any) -> list[FieldError]:
    return [invalid(path, value, NOT_NEGATIVE)] if value is not None and value < 0 else []


def mode_errors(path: str, mode: Any) -> list[FieldError]:
    return [invalid(path, mode, _MODE_WORDS)] if mode is not None and not 0 <= mode <= 0o777 else []


def descending_path_errors(path: str, value: str) -> list[FieldError]:
    """A relative path that does not climb out."""
    errors = [invalid(path, value, "must be a relative path")] if value.startswith("/") else []
    return errors + backstep_errors(path, value)


def backstep_errors(path: str, value: str) -> list[FieldError]:
    return [invalid(path, value, "must not contain '..'")] if ".." in value.split("/") else []


def file_path_errors(path: str, value: str) -> list[FieldError]:
    """Where a volume file goes: descending, and not in the writer's own `..data` names."""
    errors = descending_path_errors(path, value)
    if value.startswith("..") and not value.startswith("../") and value != "..":
        errors.append(invalid(path, value, _RESERVED_WORDS))
    return errors


def key_errors(path: str, key: str) -> list[FieldError]:
    if not key:
        return [required(path)]
    return [invalid(path, key, words) for words in config_key(key)]
