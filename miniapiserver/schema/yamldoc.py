"""YAML bodies: one document, as plain JSON values.

My job: read YAML the way sigs.k8s.io/yaml does: the first document only, keys as strings, dates as text, duplicate keys
named, `<<` merged, and no document that grows when its aliases are written out. I read events, not nodes: libyaml's own
composer is recursive C, and a body of brackets would end the process. Raises InvalidYAML and nothing else.
"""

import re
from typing import Any, Final

import orjson
import yaml

#: Values that aliases may repeat in total; what a person writes stays far below.
MAX_REPEATED: Final = 100_000
MAX_DEPTH: Final = 200
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})
_FALSE: Final = frozenset({"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})
_INTEGER: Final = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*)", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_UNSUPPORTED: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_PREFIX: Final = "error converting YAML to JSON: "
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class InvalidYAML(ValueError):
    """Text that is no YAML, in the words of Go's decoder as far as they can be had."""


def load(body: bytes) -> tuple[Any, list[str]]:
    """(value, problems); a problem is `line 3: key "name" already set in map`."""
    if body.lstrip()[:1] == b"{" and (value := _as_json(body)) is not None:
        return value, []
    try:
        loader = _Loader(body)
        try:
            return _Reader(loader).document()
        finally:
            loader.dispose()
    except InvalidYAML:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidYAML(_words(error)) from error


def _as_json(body: bytes) -> Any:
    """Most YAML bodies are JSON, which is read a hundred times faster; None when it is none or repeats a key."""
    try:
        value = orjson.loads(body)
        same = orjson.dumps(value).count(b":") == body.count(b":") and b"\\u003" not in body
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return value if same else None


def _words(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{_PREFIX}yaml: line {error.problem_mark.line + 1}: {error.problem}"
    return f"{_PREFIX}yaml: {str(error).splitlines()[0] if str(error) else 'invalid document'}"


class _Reader:
    """One pass over the events of one document."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.problems: list[str] = []
        self.anchors: dict[str, tuple[Any, int]] = {}  # value and how many values it holds
        self.size = 0
        self.repeated = 0

    def document(self) -> tuple[Any, list[str]]:
        while not self.loader.check_event(yaml.DocumentStartEvent):
            if self.loader.check_event(yaml.StreamEndEvent):
                return None, []
            self.loader.get_event()
        self.loader.get_event()
        return self.value(self.loader.get_event(), 0), self.problems

    def value(self, event: yaml.Event, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise InvalidYAML(f"{_PREFIX}yaml: exceeded max depth")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        before = self.size
        self.size += 1
        value: Any
        if isinstance(event, yaml.MappingStartEvent):
            value = self.mapping(depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.sequence(depth)
        else:
            value = scalar(event)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self.anchors[anchor] = (value, self.size - before)
        return value

    def alias(self, event: yaml.AliasEvent) -> Any:
        """A copy each time: two places of an object must not share a part."""
        if event.anchor not in self.anchors:
            raise InvalidYAML(f"{_PREFIX}yaml: unknown anchor '{event.anchor}' referenced")
        value, size = self.anchors[event.anchor]
        self.size += size
        self.repeated += size
        if self.repeated > MAX_REPEATED:
            raise InvalidYAML(f"{_PREFIX}yaml: document contains excessive aliasing")
        return orjson.loads(orjson.dumps(value))

    def sequence(self, depth: int) -> list[Any]:
        found = []
        while not self.loader.check_event(yaml.SequenceEndEvent):
            found.append(self.value(self.loader.get_event(), depth + 1))
        self.loader.get_event()
        return found

    def mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not self.loader.check_event(yaml.MappingEndEvent):
            event = self.loader.get_event()
            name = self.value(event, depth + 1)
            value = self.value(self.loader.get_event(), depth + 1)
            if name == "<<" and _is_plain(event):
                for source in value if isinstance(value, list) else [value]:
                    merged = (source if isinstance(source, dict) else {}) | merged
                continue
            key = _key(event, name)
            if key in found:
                self.problems.append(f'line {event.start_mark.line + 1}: key "{key}" already set in map')
            found[key] = value
        self.loader.get_event()
        return merged | found


def _is_plain(event: yaml.Event) -> bool:
    return isinstance(event, yaml.ScalarEvent) and bool(event.implicit[0])


def _key(event: yaml.Event, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        raise InvalidYAML(f"{_PREFIX}yaml: invalid map key: a key must be a scalar")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(getattr(event, "value", value)) if value is None else str(value)


def scalar(event: Any) -> Any:
    """A plain scalar by its looks, a quoted one as text; dates and binary stay text, JSON has neither."""
    text: str = event.value
    tag = (event.tag or "").removeprefix("tag:yaml.org,2002:")
    if (not event.implicit[0] and tag not in ("int", "float", "bool", "null")) or tag == "!":
        return text
    if text in _NULLS:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text[0] in "+-.0123456789":
        return _number(text)
    return text


def _number(text: str) -> Any:
    if _UNSUPPORTED.fullmatch(text):
        raise InvalidYAML(f"{_PREFIX}json: unsupported value: {text.lstrip('.')}")
    if len(text) > 100:
        return text
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        unsigned = digits.lstrip("+-")
        is_old_octal = len(unsigned) > 1 and unsigned[0] == "0" and unsigned[1].isdigit()
        number = int(digits, 8) if is_old_octal else int(digits, 0)
        return number if -(2**63) <= number < 2**64 else float(number)
    return float(text) if _FLOAT.fullmatch(text) else text
