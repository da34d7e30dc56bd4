"""Strategic merge patch: a merge patch that knows which lists are keyed.

My job: apply kubectl's patches the way apimachinery's `strategicpatch` does on the server, with its directives
(`$patch`, `$retainKeys`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`). Merge keys and strategies come from the
type table. Works on copies; raises BadPatch, Unprocessable and UnmergeablePatch.
"""

from typing import Any, Final

from miniapiserver.patch.document import copy, mark
from miniapiserver.patch.errors import BadPatch, UnmergeablePatch, Unprocessable, go_text
from miniapiserver.schema.types import Field, Kind, Type, TypeSchema

JSON = dict[str, Any]

_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_ORDER: Final = "$setElementOrder/"
_DELETE: Final = "$deleteFromPrimitiveList/"
_BAD_ORDER: Final = "invalid patch format of setElementOrder list"
_BAD_RETAIN: Final = "invalid patch format of retainKeys"


def apply(obj: JSON, patch: JSON, schema: TypeSchema) -> JSON:
    """The patched copy."""
    return _merge_map(copy(obj), copy(patch), Type(Kind.STRUCT, "", struct_name=schema.name))


def _field(of: Type | None, key: str) -> Field | None:
    """What the table knows of a key: a struct's field, a map's element; None inside free-form values."""
    if of is None:
        return None
    if of.kind is Kind.STRUCT:
        return of.struct.fields.get(key)
    return Field(key, of.of) if of.kind is Kind.MAP else None


def _merge_map(original: JSON, patch: JSON, of: Type | None) -> JSON:
    if _PATCH in patch:
        return _whole(patch)
    _retain_keys(original, patch)
    for key in [key for key in patch if key.startswith(_ORDER)]:
        _merge_in_order(original, patch, key.removeprefix(_ORDER), patch.pop(key), of)
    for key, value in patch.items():
        _merge_key(original, key, value, of)
    return original


def _whole(patch: JSON) -> JSON:
    directive = patch.pop(_PATCH)
    if directive == "replace":
        return patch
    if directive == "delete":
        return {}
    raise UnmergeablePatch(f"unknown patch type: {go_text(directive)} in map: "
                           f"{go_text({_PATCH: directive} | patch)}")


def _merge_key(original: JSON, key: str, value: Any, of: Type | None) -> None:
    deletes = key.startswith(_DELETE)
    if deletes:
        key = key.removeprefix(_DELETE)
    if value is None:
        original.pop(key, None)
        return
    current = original.get(key)
    if deletes:
        if isinstance(current, list):
            gone = {mark(item) for item in _list(value, "invalid patch format of primitive list")}
            original[key] = [item for item in current if mark(item) not in gone]
        return
    field = _field(of, key)
    if isinstance(current, dict) and isinstance(value, dict):
        replaces = field is not None and "replace" in field.patch_strategy
        original[key] = value if replaces else _merge_map(current, value, field.type if field else None)
    elif isinstance(current, list) and isinstance(value, list):
        original[key] = _merge_list(current, value, field)
    else:
        kept = _without_directives(_without_nulls(value))
        if kept is _NOTHING:
            original.pop(key, None)
        else:
            original[key] = kept


_NOTHING: Final = object()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _without_directives(value: Any) -> Any:
    """A new value as it will be stored; `_NOTHING` when it was only a directive."""
    if isinstance(value, dict):
        if _PATCH in value:
            return _NOTHING
        items = {key: _without_directives(item) for key, item in value.items()
                 if key != _RETAIN and not key.startswith((_ORDER, _DELETE))}
        return {key: item for key, item in items.items() if item is not _NOTHING}
    if isinstance(value, list):
        return [kept for item in value if (kept := _without_directives(item)) is not _NOTHING]
    return value


def _retain_keys(original: JSON, patch: JSON) -> None:
    if _RETAIN not in patch:
        return
    retained = patch.pop(_RETAIN)
    if not isinstance(retained, list) or not all(isinstance(name, str) for name in retained):
        raise BadPatch(_BAD_RETAIN)
    for key, value in patch.items():
        if value is not None and not key.startswith((_ORDER, _DELETE)) and key not in retained:
            raise BadPatch(_BAD_RETAIN)
    for key in [key for key in original if key not in retained]:
        del original[key]


def _list(value: Any, complaint: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadPatch(complaint)
    return value


def _merge_list(original: list[Any], patch: list[Any], field: Field | None) -> list[Any]:
    if field is None or "merge" not in field.patch_strategy:
        return patch
    if not original and not patch:
        return original
    _same_kind(original + patch)
    if not isinstance((original + patch)[0], dict):
        merged = list({mark(item): item for item in original + patch}.values())
        return _ordered(merged, patch, original, "")
    if not field.merge_key:
        raise UnmergeablePatch(f"cannot merge lists without merge key for {field.type.go_name}")
    server = list(original)
    original, patch = _special_elements(original, patch, field.merge_key)
    element = field.type.of if field.type.kind is Kind.LIST else None
    places = {mark(item.get(field.merge_key)): index for index, item in enumerate(original)}
    for item in patch:
        place = mark(_key(item, field.merge_key))
        if place in places:
            original[places[place]] = _merge_map(original[places[place]], item, element)
        else:
            places[place] = len(original)
            original.append(_without_directives(_without_nulls(item)))
    return _ordered(original, patch, server, field.merge_key)


def _same_kind(items: list[Any]) -> None:
    if any(isinstance(item, list) for item in items):
        raise Unprocessable("lists of lists are not supported")
    kinds = {isinstance(item, dict) for item in items}
    if len(kinds) > 1:
        raise UnmergeablePatch("list element types are not identical")


def _key(item: Any, merge_key: str) -> Any:
    if not isinstance(item, dict):
        raise UnmergeablePatch("expected a map[string]interface {}, but received a " + type(item).__name__)
    if merge_key not in item:
        raise UnmergeablePatch(f"map: {go_text(item)} does not contain declared merge key: {merge_key}")
    return item[merge_key]


def _special_elements(original: list[Any], patch: list[Any], merge_key: str) -> tuple[list[Any], list[Any]]:
    """Carry out `$patch: delete` and `replace` elements; what is left of the patch is merged or appended."""
    rest: list[Any] = []
    replace = False
    for item in patch:
        directive = item.get(_PATCH)
        if directive is None:
            rest.append(item)
        elif directive == "delete":
            gone = mark(_key(item, merge_key))
            original = [kept for kept in original if mark(kept.get(merge_key)) != gone]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise UnmergeablePatch("merging lists cannot yet be specified in the patch")
        else:
            raise UnmergeablePatch(f"unknown patch type: {go_text(directive)} in map: {go_text(item)}")
    return (rest, []) if replace else (original, rest)


def _merge_in_order(original: JSON, patch: JSON, key: str, order: Any, of: Type | None) -> None:
    """One `$setElementOrder/key` with the list it is about; takes the list out of the patch."""
    order = _list(order, _BAD_ORDER)
    field = _field(of, key)
    merge_key = field.merge_key if field else ""
    current, change = original.get(key), patch.pop(key, None)
    if change is not None:
        _fits_order(_list(change, _BAD_ORDER), order, merge_key)
    if current is None and change is None:
        return
    server = _list(current, _BAD_ORDER) if current is not None else []
    if current is None:
        merged = _without_directives(_without_nulls(change))
    elif change is None:
        merged = server
    else:
        merged = _merge_list(list(server), change, field)
    original[key] = _ordered(merged, order, server, merge_key)


def _fits_order(change: list[Any], order: list[Any], merge_key: str) -> None:
    """Every element of the patch is in the order list, in the same order; directives do not count."""
    if not change or not order:
        return
    wanted = [mark(_key(item, merge_key) if merge_key else item) for item in change
              if not (isinstance(item, dict) and _PATCH in item)]
    remaining = iter([mark(_key(item, merge_key) if merge_key else item) for item in order])
    if not all(item in remaining for item in wanted):
        raise UnmergeablePatch(f"The order in patch list:\n{go_text(change)}\n doesn't match $setElementOrder list:\n"
                               f"{go_text(order)}\n")


def _ordered(merged: list[Any], order: list[Any], server: list[Any], merge_key: str) -> list[Any]:
    """Elements named by `order` in its order, the others in the live order, each put before what followed it there."""
    def identity(item: Any) -> bytes:
        return mark(_key(item, merge_key) if merge_key else item)

    ranks: dict[bytes, int] = {}
    for item in order:
        ranks.setdefault(identity(item), len(ranks))
    live: dict[bytes, int] = {}
    for item in server:
        live.setdefault(identity(item), len(live))
    named = sorted((item for item in merged if identity(item) in ranks), key=lambda item: ranks[identity(item)])
    others = sorted((item for item in merged if identity(item) not in ranks),
                    key=lambda item: live.get(identity(item), len(live)))
    result: list[Any] = []
    while named and others:
        left, right = live.get(identity(others[0])), live.get(identity(named[0]))
        first = others if left is not None and right is not None and left < right else named
        result.append(first.pop(0))
    return result + named + others
