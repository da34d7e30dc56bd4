"""Whether a configuration is of its type, before it is applied.

My job: name what is wrong with an apply body in the words of structured-merge-diff's `typed` package: undeclared
fields, values of another type, list elements without or with the same key. Pure; reads the type table through
`typedvalue`.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from miniapiserver.managedfields import typedvalue
from miniapiserver.managedfields.fieldset import element_text
from miniapiserver.managedfields.typedvalue import BadElement, Shape
from miniapiserver.schema.types import Kind

_NUMBERS: Final = frozenset({Kind.INT32, Kind.INT64, Kind.DOUBLE})
_STRINGS: Final = frozenset({Kind.STRING, Kind.BYTES, Kind.DURATION})
_SCALARS: Final = frozenset({Kind.TIME, Kind.MICRO_TIME, Kind.QUANTITY, Kind.INT_OR_STRING})


def complaint(at: Shape, value: Any) -> str:
    """All that is wrong, as one message; empty when nothing is."""
    found = list(_validate(at, value, ""))
    return found[0] if len(found) == 1 else "\n".join(["errors:", *(f"  {line}" for line in found)]) if found else ""


def _validate(at: Shape, value: Any, path: str) -> Iterator[str]:
    of = at.field.type
    if value is None or at.is_free:
        return
    if of.kind in (Kind.STRUCT, Kind.MAP):
        if not isinstance(value, dict):
            yield _at(path, f"expected map, got &{{{_plain(value)}}}")
            return
        yield from _validate_map(at, value, path)
    elif of.kind is Kind.LIST:
        if not isinstance(value, list):
            yield _at(path, f"expected list, got &{{{_plain(value)}}}")
            return
        yield from _validate_list(at, value, path)
    elif words := _wrong_scalar(of.kind, value):
        yield _at(path, words)


def _validate_map(at: Shape, value: dict[str, Any], path: str) -> Iterator[str]:
    for name, item in value.items():
        inner = at.declared(name)
        if inner is None:
            yield f"{path}.{name}: field not declared in schema"
            return
        yield from _validate(inner, item, f"{path}.{name}")


def _validate_list(at: Shape, value: list[Any], path: str) -> Iterator[str]:
    seen: set[str] = set()
    inner = at.element
    for index, item in enumerate(value):
        name = f"i:{index}"
        if at.kind == "list":
            try:
                name = typedvalue.path_element(at, item)
            except BadElement as error:
                yield _at(path, f"element {index}: {error}")
                return
            if name in seen:
                yield _at(path, f"duplicate entries for key {element_text(name)}")
            seen.add(name)
        yield from _validate(inner, item, path + element_text(name))


def _wrong_scalar(kind: Kind, value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in _NUMBERS and not is_number:
        return f"expected numeric (int or float), got {_go_type(value)}"
    if kind in _STRINGS and not isinstance(value, str):
        return f"expected string, got &value.valueUnstructured{{Value:{_literal(value)}}}"
    if kind is Kind.BOOL and not isinstance(value, bool):
        return f"expected boolean, got &{{{_plain(value)}}}"
    if kind in _SCALARS and isinstance(value, dict | list):
        return f"expected any scalar, got &{{{_plain(value)}}}"
    return ""


def _at(path: str, words: str) -> str:
    return f"{path}: {words}" if path else words


def _go_type(value: Any) -> str:
    names = {str: "string", bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}
    return names.get(type(value), "int64")


def _literal(value: Any) -> str:
    """Go's `%#v`."""
    if isinstance(value, dict):
        return "map[string]interface {}{" + ", ".join(
            f"{_literal(key)}:{_literal(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[]interface {}{" + ", ".join(_literal(item) for item in value) + "}"
    return "interface {}(nil)" if value is None else orjson.dumps(value).decode()


def _plain(value: Any) -> str:
    """Go's `%v`."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_plain(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(_plain(item) for item in value) + "]"
    if isinstance(value, str):
        return value
    return "<nil>" if value is None else orjson.dumps(value).decode()
