"""Making a decoded object what its type says.

My job: prune fields a type does not know (and name them), refuse values of the wrong JSON type in Go's words, bring
quantities, times and base64 into canonical form, and drop what Go's `omitempty` would not print. The object is changed
in place; a type is compiled when it is first used, and a pod takes tens of microseconds. Raises Mismatch and nothing
else. `completion` is the other direction.
"""

import binascii
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

from miniapiserver.schema import completion, times
from miniapiserver.schema.completion import REPEATED, drops_empty, zero
from miniapiserver.schema.types import Field, Kind, Type, TypeSchema, find
from wire import quantity

JSON = dict[str, Any]
#: A linked path, innermost first: (parent, name or index, whether it is a struct's field). None is the root.
Path = tuple[Any, str | int, bool] | None
#: Checks and converts one value in place; the struct is the one whose field is being read, for the error's words.
Conform = Callable[[Any, Path, list[str], str], Any]


class Mismatch(ValueError):
    """A value the type cannot hold. The text is what Go's decoder says."""


class _Never:
    """No JSON value is an instance of this, so the fast test for an exact type fails."""


_DROP: Final = object()
_INT32: Final = (-(2**31), 2**31 - 1)
_INT64: Final = (-(2**63), 2**63 - 1)


def conform(obj: JSON, schema: TypeSchema) -> list[str]:
    """Problems a strict decoder names (`unknown field "spec.bogus"`); `obj` is changed in place. Raises Mismatch."""
    problems: list[str] = []
    _conformer(schema.name)(obj, None, problems, "")
    return problems


def forget() -> None:
    """A CRD changed a type: compile again."""
    _conformer.cache_clear()
    completion.forget()


def path_text(path: Path) -> str:
    """`spec.containers[0].image`."""
    parts: list[str] = []
    while path is not None:
        parent, key, _ = path
        parts.append(f"[{key}]" if isinstance(key, int) else f".{key}")
        path = parent
    return "".join(reversed(parts)).removeprefix(".")


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    return "array" if isinstance(value, list) else "object" if isinstance(value, dict) else "null"


def _mismatch(value: Any, path: Path, struct: str, go_name: str, text: str = "") -> Mismatch:
    names: list[str] = []
    while path is not None:
        parent, key, in_struct = path
        if in_struct:
            names.append(str(key))
        path = parent
    what = _json_type(value) + (f" {text}" if text else "")
    if not names:
        return Mismatch(f"json: cannot unmarshal {what} into Go value of type {go_name}")
    return Mismatch(f"json: cannot unmarshal {what} into Go struct field {struct}.{'.'.join(reversed(names))} "
                    f"of type {go_name}")


class _StructConformer:
    """A struct's fields as rules: (exact Python type that needs no look, drop when empty, converter, field)."""

    __slots__ = ("rules", "schema")

    def __init__(self, schema: TypeSchema) -> None:
        self.schema = schema
        self.rules: dict[str, tuple[type, bool, Conform, Field]] | None = None

    def compile(self) -> dict[str, tuple[type, bool, Conform, Field]]:
        self.rules = {name: (_exact(field), drops_empty(field), _convert(field.type), field)
                      for name, field in self.schema.fields.items()}
        return self.rules

    def __call__(self, value: Any, path: Path, problems: list[str], struct: str) -> Any:
        if type(value) is not dict:
            if value is None:
                return {}
            raise _mismatch(value, path, struct, _struct_go_name(self.schema))
        rules = self.rules if self.rules is not None else self.compile()
        name = self.schema.go_name
        doomed: list[str] | None = None
        for key, item in value.items():
            rule = rules.get(key)
            if rule is None:
                if self.schema.preserve_unknown:
                    continue
                problems.append(f'unknown field "{path_text((path, key, True))}"')
                doomed = [key] if doomed is None else [*doomed, key]
                continue
            exact, drops_empty, convert, field = rule
            if type(item) is exact:
                if drops_empty and not item:
                    doomed = [key] if doomed is None else [*doomed, key]
                continue
            new = _null(field) if item is None else convert(item, (path, key, True), problems, name)
            if new is _DROP or (drops_empty and not new):
                doomed = [key] if doomed is None else [*doomed, key]
            elif new is not item:
                value[key] = new
            elif not field.omit_empty and not new and type(new) in (list, dict) and field.type.kind in REPEATED:
                value[key] = None  # an empty list does not survive upstream's storage: it reads back as null
        if doomed is not None:
            for key in doomed:
                del value[key]
        return value


def _struct_go_name(schema: TypeSchema) -> str:
    return ".".join(schema.name.split(".")[-2:])


@cache
def _conformer(name: str) -> _StructConformer:
    return _StructConformer(find(name))


def _exact(field: Field) -> type:
    return {Kind.STRING: str, Kind.BOOL: bool}.get(field.type.kind, _Never)


def _null(field: Field) -> Any:
    """What `null` means for a field: absent, or the zero that is always printed."""
    return zero(field) if field.always else _DROP


def _convert(of: Type) -> Conform:
    """The converter for values that are not null."""
    match of.kind:
        case Kind.STRUCT:
            return _LazyStruct(of.struct_name)
        case Kind.LIST:
            return partial(_list, of, _convert(of.of), {Kind.STRING: str}.get(of.of.kind, _Never))
        case Kind.MAP:
            return partial(_map, of, _convert(of.of), {Kind.STRING: str}.get(of.of.kind, _Never))
        case Kind.INT32:
            return partial(_integer, of, *_INT32)
        case Kind.INT64:
            return partial(_integer, of, *_INT64)
    return partial(_CONVERTERS[of.kind], of)


class _LazyStruct:
    """Types refer to each other in circles (JSONSchemaProps); the inner one is compiled when a value comes by."""

    __slots__ = ("conformer", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.conformer: _StructConformer | None = None

    def __call__(self, value: Any, path: Path, problems: list[str], struct: str) -> Any:
        if self.conformer is None:
            self.conformer = _conformer(self.name)
        return self.conformer(value, path, problems, struct)


def _list(of: Type, convert: Conform, exact: type, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    if type(value) is not list:
        raise _mismatch(value, path, struct, of.go_name)
    for index, item in enumerate(value):
        if type(item) is not exact:
            new = _element_null(of.of) if item is None else convert(item, (path, index, False), problems, struct)
            if new is not item:
                value[index] = new
    return value


def _map(of: Type, convert: Conform, exact: type, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    if type(value) is not dict:
        raise _mismatch(value, path, struct, of.go_name)
    for key, item in value.items():
        if type(item) is not exact:
            new = _element_null(of.of) if item is None else convert(item, (path, key, False), problems, struct)
            if new is not item:
                value[key] = new
    return value


def _element_null(of: Type) -> Any:
    return zero(Field("", of, omit_empty=False))


def _scalar(expected: type, of: Type, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    if type(value) is not expected:
        raise _mismatch(value, path, struct, of.go_name)
    return value


def _integer(of: Type, low: int, high: int, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    if type(value) is int and low <= value <= high:
        return value
    if type(value) is float and value.is_integer() and low <= value <= high and abs(value) < 2**53:
        return int(value)  # 1e3 and 5.0 are integers to the decoder upstream uses
    raise _mismatch(value, path, struct, of.go_name, str(value) if type(value) in (int, float) else "")


def _double(of: Type, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    if type(value) not in (int, float):
        raise _mismatch(value, path, struct, of.go_name)
    return value


def _bytes(of: Type, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    if type(value) is not str:
        raise _mismatch(value, path, struct, of.go_name)
    text = value.replace("\n", "").replace("\r", "") if "\n" in value or "\r" in value else value
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise Mismatch(f"illegal base64 data at input byte {_bad_base64(text)}") from error
    return text


def _bad_base64(text: str) -> int:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for index, char in enumerate(text):
        if char not in alphabet:
            return index
    return len(text) - len(text) % 4


def _time(of: Type, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    if type(value) is not str:
        raise _mismatch(value, None, "", "string")
    try:
        return times.canonical(value, micro=of.kind is Kind.MICRO_TIME)
    except times.InvalidTime as error:
        raise Mismatch(str(error)) from error


def _duration(of: Type, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    if type(value) is not str:
        raise _mismatch(value, None, "", "string")
    try:
        return times.render_duration(times.parse_duration(value))
    except times.InvalidTime as error:
        raise Mismatch(str(error)) from error


def _quantity(of: Type, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    text = value if type(value) is str else str(value) if type(value) in (int, float) else ""
    try:
        return quantity.canonical(text)
    except quantity.InvalidQuantity as error:
        raise Mismatch(str(error)) from error


def _int_or_string(of: Type, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    if type(value) is str or (type(value) is int and _INT32[0] <= value <= _INT32[1]):
        return value
    raise _mismatch(value, None, "", "int32", str(value) if type(value) in (int, float) else "")


def _any(of: Type, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    return value


def _schema_or(of: Type, value: Any, path: Path, problems: list[str], struct: str) -> Any:
    """The three unions of JSONSchemaProps: a schema, or a list of schemas, a boolean, a list of strings."""
    inside = _conformer("apiextensions.v1.JSONSchemaProps")
    if type(value) is dict:
        return inside(value, path, problems, struct)
    if of.kind is Kind.SCHEMA_OR_ARRAY and type(value) is list:
        return [inside(item, (path, index, False), problems, struct) for index, item in enumerate(value)]
    if of.kind is Kind.SCHEMA_OR_BOOL and type(value) is bool:
        return value
    if of.kind is Kind.SCHEMA_OR_STRINGS and type(value) is list and all(type(item) is str for item in value):
        return value
    raise Mismatch({Kind.SCHEMA_OR_BOOL: "boolean or JSON schema expected"}.get(of.kind, "cannot unmarshal schema"))


_CONVERTERS: Final[dict[Kind, Callable[[Type, Any, Path, list[str], str], Any]]] = {
    Kind.STRING: partial(_scalar, str), Kind.BOOL: partial(_scalar, bool), Kind.DOUBLE: _double, Kind.BYTES: _bytes,
    Kind.TIME: _time, Kind.MICRO_TIME: _time, Kind.DURATION: _duration, Kind.QUANTITY: _quantity,
    Kind.INT_OR_STRING: _int_or_string, Kind.RAW: _any, Kind.FIELDS: _any, Kind.ANY: _any,
    Kind.SCHEMA_OR_ARRAY: _schema_or, Kind.SCHEMA_OR_BOOL: _schema_or, Kind.SCHEMA_OR_STRINGS: _schema_or,
}
