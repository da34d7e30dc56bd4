"""Sets of field paths, in the shape of FieldsV1.

My job: the set algebra that tracking and apply are made of (structured-merge-diff `fieldpath.Set`). A set is a tree of
dicts keyed by path elements (`f:name`, `k:{"name":"c"}`, `v:"x"`); a node that holds MEMBER under `.` is itself in the
set, others only lead to members. No node is ever changed, so trees share parts freely. Pure.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

JSON = dict[str, Any]
#: A node: path element → node, and "." → True where the path itself is a member. The root never is.
FieldSet = dict[str, Any]

MEMBER: Final = "."
LEAF: Final[FieldSet] = {MEMBER: True}
EMPTY: Final[FieldSet] = {}


def decode(fields: JSON) -> FieldSet:
    """From FieldsV1, where a leaf is `{}`."""
    return {key: True if key == MEMBER else decode(child) if child else LEAF for key, child in fields.items()}


def encode(fields: FieldSet) -> JSON:
    """To FieldsV1."""
    out: JSON = {}
    for key, child in fields.items():
        out[key] = {} if key == MEMBER or (len(child) == 1 and MEMBER in child) else encode(child)
    return out


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    if not left or left is right:
        return right
    if not right:
        return left
    out = dict(left)
    for key, child in right.items():
        out[key] = union(out[key], child) if key != MEMBER and key in out else child
    return out


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """Members of the left that are no members of the right; a member's removal leaves what is below it."""
    if not right:
        return left
    out: FieldSet = {}
    for key, child in left.items():
        if key not in right:
            out[key] = child
        elif key != MEMBER and (rest := difference(child, right[key])):
            out[key] = rest
    return out


def without(left: FieldSet, right: FieldSet) -> FieldSet:
    """The left without the right's members and everything below them."""
    if not right:
        return left
    out: FieldSet = {}
    for key, child in left.items():
        other = right.get(key)
        if other is None:
            out[key] = child
        elif key != MEMBER and MEMBER not in other and (rest := without(child, other)):
            out[key] = rest
    return out


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    out: FieldSet = {}
    for key, child in left.items():
        if key in right:
            if key == MEMBER:
                out[key] = True
            elif both := intersection(child, right[key]):
                out[key] = both
    return out


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """Every member as a conflict names it: `.spec.containers[name="c"].image`."""
    for key in sorted(fields):
        if key == MEMBER:
            if prefix:
                yield prefix
        else:
            yield from paths(fields[key], prefix + element_text(key))


def element_text(element: str) -> str:
    kind, value = element[:2], element[2:]
    if kind == "f:":
        return f".{value}"
    if kind == "v:":
        return f"[={value}]"
    if kind == "k:":
        keys = orjson.loads(value)
        return "[" + ",".join(f"{name}={orjson.dumps(keys[name]).decode()}" for name in sorted(keys)) + "]"
    return f"[{value}]"


def of_paths(*dotted: str) -> FieldSet:
    """A set of struct fields: `of_paths("status", "metadata.name")`."""
    out: FieldSet = {}
    for path in dotted:
        node = LEAF
        for name in reversed(path.split(".")):
            node = {f"f:{name}": node}
        out = union(out, node)
    return out
