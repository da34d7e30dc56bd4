"""The files of a volume as a value: path → bytes and mode.

My job: ConfigMap, Secret and downward API items into a Payload. Pure; objects come as arguments. `content` gathers
them, `atomic` writes the result. Missing keys raise SourceMissing with upstream's words unless the source is optional.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from minikubelet.volumes.errors import SourceMissing

JSON = dict[str, Any]
DEFAULT_MODE = 0o644


@dataclass(frozen=True, slots=True)
class File:
    data: bytes
    mode: int
    owner: int | None = None
    """The one user who may read it, where the kubelet has the right to give files away."""


Payload = dict[str, File]


def config_map(source: JSON, found: JSON | None, default_mode: int) -> Payload:
    """`source`: the volume's or projection's configMap part."""
    if found is None:
        return _missing(source, f'configmap "{source.get("name", "")}" not found')
    data = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    data |= {key: _decode(value) for key, value in (found.get("binaryData") or {}).items()}
    return _select(source, data, default_mode, "configmap references non-existent config key: {key}")


def secret(source: JSON, found: JSON | None, default_mode: int) -> Payload:
    """A volume says `secretName`, a projection `name`."""
    name = source.get("secretName") or source.get("name", "")
    if found is None:
        return _missing(source, f'secret "{name}" not found')
    data = {key: _decode(value) for key, value in (found.get("data") or {}).items()}
    return _select(source, data, default_mode, "references non-existent secret key: {key}")


def downward(
    items: Iterable[JSON], default_mode: int, field: Callable[[str], str], resource: Callable[[JSON], str]
) -> Payload:
    """`field` and `resource` answer fieldPath and resourceFieldRef; their ValueError becomes SourceMissing."""
    payload: Payload = {}
    for item in items:
        try:
            if item.get("fieldRef"):
                text = field(item["fieldRef"]["fieldPath"])
            else:
                text = resource(item["resourceFieldRef"])
        except ValueError as error:
            raise SourceMissing(str(error)) from error
        payload[item["path"]] = File(text.encode(), _mode(item, default_mode))
    return payload


def _select(source: JSON, data: dict[str, bytes], default_mode: int, complaint: str) -> Payload:
    items = source.get("items")
    if not items:
        return {key: File(value, default_mode) for key, value in data.items()}
    payload: Payload = {}
    for item in items:
        key = item["key"]
        if key in data:
            payload[item["path"]] = File(data[key], _mode(item, default_mode))
        elif not source.get("optional"):
            raise SourceMissing(complaint.format(key=key))
    return payload


def _missing(source: JSON, complaint: str) -> Payload:
    if source.get("optional"):
        return {}
    raise SourceMissing(complaint)


def _mode(item: JSON, default_mode: int) -> int:
    mode = item.get("mode")
    return default_mode if mode is None else int(mode)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise SourceMissing(f"illegal base64 data: {error}") from error
