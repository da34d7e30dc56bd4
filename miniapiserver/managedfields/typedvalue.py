"""Objects seen through their schema: what server-side apply compares, merges and prunes.

My job: the five operations on values that ownership needs (structured-merge-diff `typed`): compare two objects, list
the fields of one, merge one into another, remove fields, and close a set over the structs it passes. Lists are
atomic, sets or keyed as the type table says; a type of None is free-form: maps by key, lists as a whole. Pure; inputs
are not changed. Raises BadElement for a keyed list whose element has no key.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import orjson

from miniapiserver.managedfields.fieldset import EMPTY, LEAF, MEMBER, FieldSet, element_text
from miniapiserver.schema import times
from miniapiserver.schema.types import Field, Kind, Type, TypeSchema
from wire import quantity

JSON = dict[str, Any]
MISSING: Final = object()
_CONTAINERS: Final = (Kind.STRUCT, Kind.MAP)
_CANONICAL: Final[dict[Kind, Callable[[str], str]]] = {
    Kind.QUANTITY: quantity.canonical, Kind.TIME: times.canonical,
    Kind.MICRO_TIME: partial(times.canonical, micro=True)}
_FREE: Final = Field("", Type(Kind.ANY, ""), atomic=False)


class BadElement(ValueError):
    """A list element without its key, or one that occurs twice."""


class Shape:
    """How one position is owned: as a leaf, by named fields, by map keys, or by list elements."""

    __slots__ = ("field", "fields", "item", "keys", "kind")

    def __init__(self, field: Field) -> None:
        self.field = field
        of = field.type
        self.fields: Mapping[str, Field] | None = None
        self.item: Field | None = None
        self.keys = field.list_keys
        if field is _FREE:
            self.kind, self.item = "free", _FREE
        elif of.kind in _CONTAINERS and not field.atomic:
            self.kind = "map"
            if of.kind is Kind.STRUCT:
                self.fields = of.struct.fields
                self.item = _FREE if of.struct.preserve_unknown else None
            else:
                self.item = element(of.of)
        elif of.kind is Kind.LIST and field.list_type != "atomic":
            self.kind, self.item = "list", element(of.of)
        else:
            self.kind = "leaf"

    @property
    def is_free(self) -> bool:
        """No schema says anything about what is here."""
        return self.field is _FREE

    @property
    def element(self) -> "Shape":
        """An element of this list, atomic or not."""
        return shape(self.item or element(self.field.type.of))

    def declared(self, name: str) -> "Shape | None":
        """A struct's field or a map's value, atomic or not; None for a field the struct does not have."""
        of = self.field.type
        if of.kind is Kind.MAP:
            return shape(self.item or element(of.of))
        found = of.struct.fields.get(name)
        if found is None:
            return shape(_FREE) if of.struct.preserve_unknown else None
        return shape(found)

    def child(self, name: str) -> "Shape":
        if self.fields is not None and (found := self.fields.get(name)) is not None:
            return shape(found)
        return shape(self.item or _FREE)


def element(of: Type) -> Field:
    """The element of a list or map, as a field of its own."""
    return Field("", of, atomic=of.kind is Kind.STRUCT and of.struct.atomic)


_shapes: dict[int, tuple[Field, Shape]] = {}


def shape(field: Field) -> Shape:
    """Shapes are remembered by identity: fields live as long as their type, and the entry keeps them alive."""
    found = _shapes.get(id(field))
    if found is None:
        found = _shapes[id(field)] = (field, Shape(field))
    return found[1]


_roots: dict[str, tuple[TypeSchema, Shape]] = {}


def root(schema: TypeSchema) -> Shape:
    found = _roots.get(schema.name)
    if found is None or found[0] is not schema:
        found = _roots[schema.name] = (schema, Shape(Field("", Type(Kind.STRUCT, "", struct_name=schema.name))))
    return found[1]


def path_element(at: Shape, item: Any) -> str:
    """`k:{"name":"c"}` or `v:"x"`. Raises BadElement."""
    if not at.keys:
        if isinstance(item, dict | list) or item is None:
            raise BadElement("associative list without keys has an element that is no scalar")
        return "v:" + _escaped(orjson.dumps(item))
    if not isinstance(item, dict):
        raise BadElement("associative list with keys may not have non-map elements")
    found = {}
    for name in at.keys:
        value = item.get(name)
        if value is None and at.item is not None and at.item.type.kind is Kind.STRUCT:
            field = at.item.type.struct.fields.get(name)
            value = field.default if field else None
        if value is not None:
            found[name] = value
    if not found:
        names = " ".join(f'"{name}"' for name in at.keys)
        raise BadElement(f"associative list with keys has an element that omits all key fields [{names}] "
                         "(and doesn't have default values for any key fields)")
    return "k:" + _escaped(orjson.dumps(found, option=orjson.OPT_SORT_KEYS))


def _escaped(data: bytes) -> str:
    """As Go's encoder, which keeps HTML's characters out of JSON."""
    text = data.decode()
    if "<" in text or ">" in text or "&" in text:
        text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return text


def _elements(at: Shape, items: list[Any]) -> dict[str, list[Any]]:
    """Elements by path element; more than one under a name are duplicates. Elements without a key are left out."""
    found: dict[str, list[Any]] = {}
    for item in items:
        try:
            found.setdefault(path_element(at, item), []).append(item)
        except BadElement:
            continue
    return found


# --- comparing ---------------------------------------------------------------------------------------------------


def everything(at: Shape, value: Any) -> FieldSet:
    """All paths of a value that was not there before, the containers on the way included."""
    if not value or at.kind == "leaf":
        return LEAF
    if isinstance(value, dict):
        if at.kind == "list":
            return LEAF
        out: FieldSet = {MEMBER: True}
        for name, item in value.items():
            out["f:" + name] = LEAF if isinstance(item, str) else everything(at.child(name), item)
        return out
    if at.kind != "list" or not isinstance(value, list) or at.item is None:
        return LEAF
    out = {MEMBER: True}
    inner = shape(at.item)
    for name, items in _elements(at, value).items():
        out[name] = everything(inner, items[0]) if len(items) == 1 else LEAF
    return out


Comparison = tuple[FieldSet, FieldSet]
_SAME: Final[Comparison] = (EMPTY, EMPTY)


def compare(at: Shape, old: Any, new: Any) -> Comparison:
    """(removed, modified or added): what a write took away, and what it now says."""
    if old == new and type(old) is type(new):
        return _SAME
    if old is MISSING:
        return EMPTY, everything(at, new)
    if new is MISSING:
        return everything(at, old), EMPTY
    if at.kind in ("map", "free") and _is_map(old) and _is_map(new) and (old or new):
        return _compare_maps(at, old or {}, new or {})
    if at.kind == "list" and _is_list(old) and _is_list(new) and (old or new):
        return _compare_lists(at, old or [], new or [])
    return EMPTY, LEAF


def _is_map(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return value is None or isinstance(value, list)


def _compare_maps(at: Shape, old: JSON, new: JSON) -> Comparison:
    removed: FieldSet = {}
    changed: FieldSet = {}
    for name, value in new.items():
        before = old.get(name, MISSING)
        gone, said = compare(at.child(name), before, value)
        if said:
            changed["f:" + name] = said
        if gone:
            removed["f:" + name] = gone
    for name, value in old.items():
        if name not in new:
            removed["f:" + name] = everything(at.child(name), value)
    return removed, changed


def _compare_lists(at: Shape, old: list[Any], new: list[Any]) -> Comparison:
    removed: FieldSet = {}
    changed: FieldSet = {}
    before, after = _elements(at, old), _elements(at, new)
    inner = shape(at.item or _FREE)
    for name, items in after.items():
        was = before.get(name, [])
        if len(items) > 1 and len(was) > 1:
            gone, said = EMPTY, EMPTY if items == was else LEAF
        elif len(items) > 1:
            gone, said = compare(inner, was[0], MISSING)[0] if was else EMPTY, LEAF
        elif len(was) > 1:
            gone, said = LEAF, everything(inner, items[0])
        else:
            gone, said = compare(inner, was[0] if was else MISSING, items[0])
        if gone:
            removed[name] = gone
        if said:
            changed[name] = said
    for name, items in before.items():
        if name not in after:
            removed[name] = everything(inner, items[0]) if len(items) == 1 else LEAF
    return removed, changed


# --- the fields of an applied configuration ----------------------------------------------------------------------


def field_set(at: Shape, value: Any) -> FieldSet:
    """What a configuration says: leaves, list elements, and map keys; not the structs on the way."""
    if isinstance(value, dict) and at.kind in ("map", "free"):
        return _fields_of_map(at, value)
    if isinstance(value, list) and at.kind == "list":
        out: FieldSet = {}
        for name, items in _elements(at, value).items():
            out[name] = LEAF if len(items) > 1 else field_set(shape(at.item or _FREE), items[0]) | LEAF
        return out
    if value is None and at.kind in ("map", "list"):
        return EMPTY
    return LEAF


def _fields_of_map(at: Shape, value: JSON) -> FieldSet:
    out: FieldSet = {}
    for name, item in value.items():
        inner = field_set(at.child(name), item)
        if item is None or (item == {} and isinstance(item, dict)) or at.fields is None or name not in at.fields:
            inner = inner | LEAF
        if inner:
            out["f:" + name] = inner
    return out


def with_structs(at: Shape, fields: FieldSet) -> FieldSet:
    """The set plus every struct field it passes: what must go before a struct can go."""
    out: FieldSet = {}
    for key, child in fields.items():
        if key == MEMBER:
            out[key] = True
            continue
        name = key[2:]
        inner = at.child(name) if key.startswith("f:") else shape(at.item or _FREE)
        closed = with_structs(inner, child)
        named = key.startswith("f:") and at.fields is not None and name in at.fields
        out[key] = closed | LEAF if named else closed
    return out


# --- merging and pruning -----------------------------------------------------------------------------------------


def merge(at: Shape, live: Any, config: Any) -> Any:
    """The live value with the configuration laid over it. Raises BadElement."""
    if config is MISSING:
        return live
    if at.kind == "leaf":
        return canonical(at.field.type, config)
    if live is MISSING and at.kind == "free":
        return config
    if at.kind in ("map", "free") and isinstance(config, dict) and (config or live) \
            and (live is MISSING or _is_map(live)):
        before = live if isinstance(live, dict) else {}
        out = {name: merge(at.child(name), item, config.get(name, MISSING)) for name, item in before.items()}
        for name, item in config.items():
            if name not in before:
                out[name] = merge(at.child(name), MISSING, item)
        return out
    if at.kind == "list" and isinstance(config, list) and (live is MISSING or _is_list(live)):
        return _merge_lists(at, live if isinstance(live, list) else [], config)
    return config


def canonical(of: Type, value: Any) -> Any:
    """A quantity or time as it will be stored, so that `cpu: 1` is no conflict with the `"1"` it became."""
    convert = _CANONICAL.get(of.kind)
    if convert is None or value is None or isinstance(value, dict | list | bool):
        return value
    try:
        return convert(str(value))
    except ValueError:
        return value  # the decoder refuses it in better words


def _merge_lists(at: Shape, live: list[Any], config: list[Any]) -> list[Any]:
    """The configuration's order, with live-only elements kept before what followed them."""
    wanted: dict[str, Any] = {}
    for item in config:
        name = path_element(at, item)
        if name in wanted:
            raise BadElement(f"duplicate entries for key {element_text(name)}")
        wanted[name] = item
    current = _elements(at, live)
    names = [(path_element(at, item), item) for item in live]
    shared = [name for name in wanted if name in current]
    inner = shape(at.item or _FREE)
    out: list[Any] = []
    taken: set[str] = set()
    left, right, order = 0, 0, list(wanted)

    def take(name: str) -> None:
        taken.add(name)
        before = current.get(name, [])
        out.append(merge(inner, before[0] if len(before) == 1 else MISSING, wanted[name]))
        if shared and shared[0] == name:
            shared.pop(0)

    while left < len(names) or right < len(order):
        if left < len(names) and right < len(order):
            name = names[left][0]
            if name == order[right]:
                take(name)
                left, right = left + 1, right + 1
                continue
            if name in wanted and shared and shared[0] != name:
                left += 1
                continue
        if left < len(names):
            name, item = names[left]
            if name not in wanted:
                out.append(item)
                left += 1
                continue
            if name in taken:
                left += 1
        if right < len(order):
            take(order[right])
            right += 1
    return out


def remove(at: Shape, value: Any, fields: FieldSet) -> Any:
    """The value without these paths; a container that loses its last entry becomes null."""
    if not fields:
        return value
    if isinstance(value, dict) and at.kind in ("map", "free"):
        kept: JSON = {}
        for name, item in value.items():
            doomed = fields.get("f:" + name)
            if doomed is None:
                kept[name] = item
            elif MEMBER not in doomed:
                kept[name] = remove(at.child(name), item, doomed)
        return kept or None
    if isinstance(value, list) and at.kind == "list":
        inner = shape(at.item or _FREE)
        items = []
        for item in value:
            doomed = fields.get(path_element(at, item))
            if doomed is None:
                items.append(item)
            elif MEMBER not in doomed:
                items.append(remove(inner, item, doomed))
        return items or None
    return value
