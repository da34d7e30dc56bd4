"""The types of the Kubernetes API: every field, its wire number, its list and patch semantics.

My job: turn the packaged table `types.json` into slotted objects, one type at a time and only when asked for it.
I own the table and the types that a CRD adds at run time. Everything that decodes, prunes, patches, tracks or
publishes objects reads its facts here and nowhere else.

Form of `types.json`: a JSON array with one element per line. The first is an object `"group/version/Kind": type`.
Each further line is `[type, attributes, fields]`: a type name is its OpenAPI definition name without the
`io.k8s.api.` prefix (`core.v1.Pod`; also `meta.v1.…`, `apiextensions.v1.…`, `apiregistration.v1.…`).
Attributes: `a` the whole struct is atomic to server-side apply, `t` it carries kind and apiVersion itself.
A field is `[JSON name, protobuf number, type, flags, more]`:
  type   `s` string, `b` bool, `i` int32, `l` int64, `d` double, `y` bytes, a named special (`Time`, `Quantity`, …)
         or another type name; `[]` in front is a list, `{}` a map with string keys
  flags  `p` pointer in Go, `o` omitempty, `z` omitzero, `r` required, `w` each list is a message of its own on the
         protobuf wire, `I` inlined: the fields of that type belong to this one in JSON (its name is "")
  more   `k` list-map keys, `l` "set", `a` 1 atomic or 0 granular map, `m` patch merge key, `s` patch strategy,
         `d` default of a list-map key, `g` Go's name of the type where it does not follow from the type
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import orjson

PREFIXES = (
    ("io.k8s.apimachinery.pkg.apis.meta.v1.", "meta.v1."),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.", "apiextensions.v1."),
    ("io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.", "apiregistration.v1."),
    ("io.k8s.api.", ""),
)
# Every group and version understands these (apimachinery `metav1.AddToGroupVersion`).
OPTIONS_KINDS = frozenset({"CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions",
                           "UpdateOptions", "WatchEvent"})


class Kind(Enum):
    """What a value may be. The value is the code in `types.json` (STRUCT, LIST and MAP have none)."""

    STRING = "s"
    BOOL = "b"
    INT32 = "i"
    INT64 = "l"
    DOUBLE = "d"
    BYTES = "y"
    TIME = "Time"
    MICRO_TIME = "MicroTime"
    DURATION = "Duration"
    QUANTITY = "Quantity"
    INT_OR_STRING = "IntOrString"
    RAW = "Raw"
    FIELDS = "FieldsV1"
    ANY = "JSON"
    SCHEMA_OR_ARRAY = "SchemaOrArray"
    SCHEMA_OR_BOOL = "SchemaOrBool"
    SCHEMA_OR_STRINGS = "SchemaOrStrings"
    STRUCT = "struct"
    LIST = "list"
    MAP = "map"


GO_NAMES = {
    Kind.STRING: "string", Kind.BOOL: "bool", Kind.INT32: "int32", Kind.INT64: "int64", Kind.DOUBLE: "float64",
    Kind.BYTES: "[]uint8", Kind.TIME: "v1.Time", Kind.MICRO_TIME: "v1.MicroTime", Kind.DURATION: "v1.Duration",
    Kind.QUANTITY: "resource.Quantity", Kind.INT_OR_STRING: "intstr.IntOrString", Kind.RAW: "runtime.RawExtension",
    Kind.FIELDS: "v1.FieldsV1", Kind.ANY: "v1.JSON", Kind.SCHEMA_OR_ARRAY: "v1.JSONSchemaPropsOrArray",
    Kind.SCHEMA_OR_BOOL: "v1.JSONSchemaPropsOrBool", Kind.SCHEMA_OR_STRINGS: "v1.JSONSchemaPropsOrStringArray",
}
# Go prints a struct even when it is empty, unless `omitzero` says otherwise; these are structs to Go.
GO_STRUCTS = frozenset({Kind.STRUCT, Kind.TIME, Kind.MICRO_TIME, Kind.DURATION, Kind.QUANTITY, Kind.INT_OR_STRING,
                        Kind.RAW})
SPECIALS = {kind.value: kind for kind in Kind if kind.value not in ("struct", "list", "map")}


@dataclass(frozen=True, slots=True)
class Type:
    """The type of a value: its kind, and of what (`element` of a list or map, `struct_name` of a struct)."""

    kind: Kind
    go_name: str
    element: "Type | None" = None
    struct_name: str = ""

    @property
    def struct(self) -> "TypeSchema":
        return find(self.struct_name)

    @property
    def of(self) -> "Type":
        """The element type of a list or map."""
        assert self.element is not None
        return self.element


@dataclass(frozen=True, slots=True)
class Field:
    """One field as JSON knows it. `always` means Go prints it even when nobody set it."""

    name: str
    type: Type
    number: int = 0
    pointer: bool = False
    omit_empty: bool = True
    omit_zero: bool = False
    required: bool = False
    wrapped: bool = False
    list_type: str = "atomic"  # of a list: atomic, set or map
    list_keys: tuple[str, ...] = ()
    atomic: bool = False  # of a map or struct: to server-side apply it is one value
    merge_key: str = ""
    patch_strategy: tuple[str, ...] = ()
    default: str | None = None  # only of list-map keys

    @property
    def always(self) -> bool:
        if self.pointer:
            return not self.omit_empty
        if not self.omit_empty:
            return True
        return self.type.kind in GO_STRUCTS and not self.omit_zero


@dataclass(slots=True)
class TypeSchema:
    """A struct of the API. Lives as long as the process, once somebody asked for it.

    `fields` is what JSON shows, inlined structs already spliced in; `inlined` maps a protobuf number to the type
    whose fields share this object. `preserve_unknown` is for custom resources without a schema.
    """

    name: str
    fields: dict[str, Field]
    inlined: dict[int, str] = field(default_factory=dict)
    own: dict[str, Field] = field(default_factory=dict)  # fields with a number in this very message
    atomic: bool = False
    has_type_meta: bool = False
    preserve_unknown: bool = False

    @property
    def go_name(self) -> str:
        """The Go struct's bare name, `PodSpec`."""
        return self.name.rpartition(".")[2]

    @property
    def definition_name(self) -> str:
        """The OpenAPI definition name, `io.k8s.api.core.v1.PodSpec`; a CRD's is its own name."""
        return self.name if self.name in _added else long_name(self.name)


class UnknownType(KeyError):
    """A type name that neither the table nor a CRD defines."""


def short_name(name: str) -> str:
    for long, short in PREFIXES:
        if name.startswith(long):
            return short + name[len(long):]
    return name


def long_name(name: str) -> str:
    for long, short in PREFIXES:
        if short and name.startswith(short):
            return long + name[len(short):]
    return "io.k8s.api." + name


_added: dict[str, TypeSchema] = {}
_added_kinds: dict[tuple[str, str, str], str] = {}


def find(name: str) -> TypeSchema:
    """The type of this name, with or without its `io.k8s.` prefix. Raises UnknownType."""
    return _added.get(name) or _load(short_name(name))


def for_kind(group: str, version: str, kind: str) -> TypeSchema | None:
    """The type of a kind, options kinds of every group included; None for a kind nobody defined."""
    name = _added_kinds.get((group, version, kind)) or _kinds().get(f"{group}/{version}/{kind}")
    if name is None and kind in OPTIONS_KINDS:
        name = f"meta.v1.{kind}"
    return find(name) if name else None


def add(schema: TypeSchema, group: str = "", version: str = "", kind: str = "") -> None:
    """Define a type at run time (a CRD's), and the kind it is the type of."""
    _added[schema.name] = schema
    if kind:
        _added_kinds[group, version, kind] = schema.name


def remove(name: str) -> None:
    """Forget a type that `add` defined. Whoever compiled it forgets it by `conform.forget`."""
    _added.pop(name, None)
    for gvk in [gvk for gvk, known in _added_kinds.items() if known == name]:
        del _added_kinds[gvk]


def names() -> Sequence[str]:
    """All names of the packaged table, sorted, in their short form."""
    return tuple(sorted(_lines()))


def kinds() -> Iterator[tuple[str, str, str, str]]:
    """(group, version, kind, type name) of every kind of the packaged table."""
    for key, name in _kinds().items():
        group, version, kind = key.split("/")
        yield group, version, kind, name


@cache
def _table() -> tuple[bytes, dict[str, bytes]]:
    data = Path(__file__).with_name("types.json").read_bytes()
    head, *lines = data[2:-3].split(b",\n")
    return head, {line[2:line.index(b'"', 2)].decode(): line for line in lines}


def _lines() -> dict[str, bytes]:
    return _table()[1]


@cache
def _kinds() -> dict[str, str]:
    found: dict[str, str] = orjson.loads(_table()[0])
    return found


@cache
def _load(name: str) -> TypeSchema:
    line = _lines().get(name)
    if line is None:
        raise UnknownType(name)
    _, attributes, rows = orjson.loads(line)
    schema = TypeSchema(name, {}, atomic="a" in attributes, has_type_meta="t" in attributes)
    if schema.has_type_meta:
        for meta in ("kind", "apiVersion"):
            schema.fields[meta] = Field(meta, _STRING)
    for row in rows:
        if "I" in row[3]:
            schema.inlined[row[1]] = row[2]
            schema.fields |= _load(row[2]).fields
        else:
            schema.own[row[0]] = schema.fields[row[0]] = _field(*row)
    return schema


def _field(name: str, number: int, code: str, flags: str, more: dict[str, Any] | None = None) -> Field:
    more = more or {}
    parsed = parse_type(code, more.get("g", ""))
    atomic = bool(more["a"]) if "a" in more else parsed.kind is Kind.STRUCT and _is_atomic(parsed.struct_name)
    return Field(name, parsed, number, "p" in flags, "o" in flags, "z" in flags, "r" in flags, "w" in flags,
                 "map" if "k" in more else more.get("l", "atomic"), tuple(more.get("k", ())), atomic,
                 more.get("m", ""), tuple(more["s"].split(",")) if "s" in more else (), more.get("d"))


def _is_atomic(name: str) -> bool:
    """From the attributes alone: loading a type must not load all it refers to."""
    line = _lines()[name]
    return b'"a":1' in line[:line.index(b"[", 1)]


def parse_type(code: str, go_name: str = "") -> Type:
    """A type from its code in the table."""
    if code.startswith("[]"):
        element = parse_type(code[2:], go_name.removeprefix("[]") if go_name.startswith("[]") else "")
        return Type(Kind.LIST, go_name or f"[]{element.go_name}", element)
    if code.startswith("{}"):
        element = parse_type(code[2:])
        return Type(Kind.MAP, go_name or f"map[string]{element.go_name}", element)
    if code in SPECIALS:
        return Type(SPECIALS[code], go_name or GO_NAMES[SPECIALS[code]])
    return Type(Kind.STRUCT, go_name or ".".join(code.split(".")[-2:]), struct_name=code)


_STRING = Type(Kind.STRING, "string")
