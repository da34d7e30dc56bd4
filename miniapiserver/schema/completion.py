"""What Go prints of an object beyond what anybody set.

My job: `complete` adds the fields that are never omitted (`status: {}`, `rules: null`, `strategy: {}`) and drops empty
ones that always are; the last step before an object is stored. In place, compiled per type on first use. Cannot fail.
`conform` is the other direction and asks me what a zero value is.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

from miniapiserver.schema.types import Field, Kind, Type, TypeSchema, find

JSON = dict[str, Any]
REPEATED: Final = (Kind.LIST, Kind.MAP)


def complete(obj: JSON, schema: TypeSchema) -> None:
    """Print like Go: add fields that are never omitted, drop empty ones that always are."""
    _completer(schema.name)(obj)


def forget() -> None:
    """A CRD changed a type: compile again."""
    _completer.cache_clear()


def drops_empty(field: Field) -> bool:
    """Go's omitempty: empty scalars, lists and maps go, pointers and structs stay."""
    if field.pointer or not field.omit_empty:
        return False
    return field.type.kind in (Kind.STRING, Kind.BOOL, Kind.INT32, Kind.INT64, Kind.DOUBLE, Kind.BYTES, *REPEATED)


def zero(field: Field) -> Any:
    """A fresh zero value as Go prints it."""
    if field.pointer:
        return None
    match field.type.kind:
        case Kind.STRING:
            return ""
        case Kind.BOOL:
            return False
        case Kind.INT32 | Kind.INT64 | Kind.DOUBLE | Kind.INT_OR_STRING:
            return 0
        case Kind.QUANTITY:
            return "0"
        case Kind.DURATION:
            return "0s"
        case Kind.STRUCT:
            empty: JSON = {}
            _completer(field.type.struct_name)(empty)
            return empty
    return None


class _Completer:
    """What Go would print of a struct beyond what is set."""

    __slots__ = ("always", "drops", "nested", "schema")

    def __init__(self, schema: TypeSchema) -> None:
        self.schema = schema
        self.always: list[Field] | None = None
        self.drops: frozenset[str] = frozenset()
        self.nested: dict[str, Callable[[Any], None]] = {}

    def compile(self) -> list[Field]:
        fields = self.schema.fields
        self.drops = frozenset(name for name, field in fields.items() if drops_empty(field))
        self.nested = {name: inner for name, field in fields.items() if (inner := _nested(field.type))}
        skip = ("kind", "apiVersion") if self.schema.has_type_meta else ()
        self.always = [field for name, field in fields.items() if field.always and name not in skip]
        return self.always

    def __call__(self, obj: JSON) -> None:
        always = self.always if self.always is not None else self.compile()
        nested, drops = self.nested, self.drops
        doomed: list[str] | None = None
        for key, value in obj.items():
            if value:
                if key in nested:
                    nested[key](value)
            elif key in drops:
                doomed = [key] if doomed is None else [*doomed, key]
            elif key in nested and value is not None:
                nested[key](value)
        if doomed is not None:
            for key in doomed:
                del obj[key]
        for field in always:
            if field.name not in obj:
                obj[field.name] = zero(field)


@cache
def _completer(name: str) -> _Completer:
    return _Completer(find(name))


def _nested(of: Type) -> Callable[[Any], None] | None:
    if of.kind is Kind.STRUCT:
        return _LazyCompleter(of.struct_name)
    if of.kind in REPEATED and (inner := _nested(of.of)):
        return partial(_complete_list if of.kind is Kind.LIST else _complete_map, inner)
    return None


class _LazyCompleter:
    __slots__ = ("completer", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.completer: _Completer | None = None

    def __call__(self, value: Any) -> None:
        if self.completer is None:
            self.completer = _completer(self.name)
        self.completer(value)


def _complete_list(inner: Callable[[Any], None], value: Any) -> None:
    for item in value:
        inner(item)


def _complete_map(inner: Callable[[Any], None], value: Any) -> None:
    for item in value.values():
        inner(item)
