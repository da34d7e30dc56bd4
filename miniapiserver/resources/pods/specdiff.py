"""The text that says what a forbidden pod update would have changed.

My job: the unified diff of two pod specs as upstream prints its internal structs (`pkg/apis/core.PodSpec` through
`json.MarshalIndent` with one space, then difflib). Slow, and only run when an update is refused.
"""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from miniapiserver.resources.pods.gostructs import STRUCTS

JSON = dict[str, Any]

_ZERO: dict[str, Any] = {"s": "", "i": 0, "b": False, "q": "0"}
_METADATA = ("name", "generateName", "namespace", "labels", "annotations", "ownerReferences", "finalizers")
#: Fields that the API has in the spec and upstream keeps in the security context
_MOVED = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers")


@dataclass(frozen=True, slots=True)
class _Field:
    go: str
    json: str
    kind: str


@cache
def _fields(struct: str) -> tuple[_Field, ...]:
    return tuple(_parse(struct))


def _parse(struct: str) -> Iterator[_Field]:
    for word in STRUCTS[struct].split():
        if word.startswith("+"):
            yield from _parse(word[1:])  # embedded structs print as if written out
            continue
        name, _, kind = word.partition(":")
        go, _, key = name.partition("=")
        yield _Field(go, key or go[0].lower() + go[1:], kind)


def _value(kind: str, value: Any) -> Any:
    if kind[0] in "*[{":
        return _collection(kind, value)
    if kind in _ZERO:
        return _ZERO[kind] if value is None else value
    return _struct(kind, value or {})


def _collection(kind: str, value: Any) -> Any:
    if value is None:
        return None
    inner = kind[1:]
    if kind[0] == "{":
        return dict(sorted(value.items()))
    if not inner:
        return value
    return [_struct(inner, item or {}) for item in value] if kind[0] == "[" else _struct(inner, value)


def _struct(name: str, value: JSON) -> JSON:
    return {field.go: _value(field.kind, value.get(field.json)) for field in _fields(name)}


def internal_spec(spec: JSON) -> JSON:
    """A pod spec as upstream's internal struct, in its order, with Go's names and zero values."""
    context = {key: spec[key] for key in _MOVED if spec.get(key) is not None}
    if spec.get("securityContext") is not None or context:
        spec = spec | {"securityContext": (spec.get("securityContext") or {}) | context}
    return _struct("PodSpec", spec)


def internal_template(template: JSON) -> JSON:
    """A pod template as upstream's internal struct: its metadata is embedded."""
    metadata = template.get("metadata") or {}
    return {key: metadata[key] for key in _METADATA if metadata.get(key)} | {
        "Spec": internal_spec(template.get("spec") or {})}


def _lines(spec: JSON) -> list[str]:
    text = json.dumps(spec, indent=1, ensure_ascii=False)
    for char in "<>&":  # Go's encoder keeps HTML out of strings
        text = text.replace(char, f"\\u{ord(char):04x}")
    return [line + "\n" for line in text.split("\n")]


def spec_diff(old: JSON, new: JSON) -> str:
    """Hunks with three lines around, without a file header."""
    return _diff(internal_spec(old), internal_spec(new))


def claim_diff(old: JSON, new: JSON) -> str:
    """The same of two specs of PersistentVolumeClaims."""
    return _diff(_struct("PersistentVolumeClaimSpec", old), _struct("PersistentVolumeClaimSpec", new))


def _diff(old: JSON, new: JSON) -> str:
    return "".join(list(difflib.unified_diff(_lines(old), _lines(new), n=3))[2:])
