"""JSON Patch, RFC 6902, as evanphx/json-patch v4 applies it behind the API server.

My job: apply a list of operations to a copy of an object. Any operation that does not fit fails the whole patch with
upstream's one message; its `cause` says which. Negative indexes count from the end, as there.
"""

from collections.abc import Callable
from typing import Any, Final

import orjson

from miniapiserver.errors import RequestEntityTooLarge
from miniapiserver.patch.document import copy, mark
from miniapiserver.patch.errors import Unprocessable

MAX_OPERATIONS: Final = 10_000
#: What all `copy` operations of one patch may add (the API server's body limit).
MAX_COPIED_BYTES: Final = 3 * 1024 * 1024


def apply(obj: Any, patch: list[Any]) -> Any:
    """The patched copy. Raises Unprocessable and RequestEntityTooLarge."""
    if len(patch) > MAX_OPERATIONS:
        raise RequestEntityTooLarge(f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, "
                                    f"got {len(patch)}", details={})
    document = _Document(copy(obj))
    for operation in patch:
        name = operation.get("op") if isinstance(operation, dict) else None
        run = _OPERATIONS.get(name) if isinstance(name, str) else None
        if run is None:
            raise Unprocessable(f"Unexpected kind: {name}")
        try:
            run(document, operation)
        except orjson.JSONEncodeError as error:
            raise Unprocessable("exceeded max depth") from error
    return document.root


class _Document:
    """The copy being patched, and what copying has cost so far."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.copied = 0

    def container(self, path: list[str]) -> Any:
        at = self.root
        for part in path[:-1]:
            at = _child(at, part)
        if not isinstance(at, dict | list):
            raise Unprocessable(f"missing container: {'/'.join(path)}")
        return at

    def value(self, path: list[str]) -> Any:
        return _child(self.container(path), path[-1]) if path else self.root

    def add(self, path: list[str], value: Any) -> None:
        if not path:
            self.root = value
            return
        container, key = self.container(path), path[-1]
        if isinstance(container, dict):
            container[key] = value
        elif key == "-":
            container.append(value)
        else:
            container.insert(_index(container, key, len(container)), value)

    def remove(self, path: list[str]) -> Any:
        if not path:
            raise Unprocessable("cannot remove the whole document")
        container, key = self.container(path), path[-1]
        removed = _child(container, key)
        if isinstance(container, dict):
            del container[key]
        else:
            del container[_index(container, key, len(container) - 1)]
        return removed


def _pointer(operation: dict[str, Any], name: str = "path") -> list[str]:
    text = operation.get(name)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise Unprocessable(f"{operation.get('op')} operation with a bad {name}: {text!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _child(container: Any, key: str) -> Any:
    if isinstance(container, dict):
        if key in container:
            return container[key]
    elif isinstance(container, list):
        return container[_index(container, key, len(container) - 1)]
    raise Unprocessable(f"unable to find key {key!r}")


def _index(container: list[Any], key: str, highest: int) -> int:
    digits = key.removeprefix("-")
    if not digits.isascii() or not digits.isdigit():
        raise Unprocessable(f"{key!r} is no index")
    index = int(key)
    if index < 0:
        index += len(container) + (highest == len(container))
    if not 0 <= index <= highest:
        raise Unprocessable(f"index {key} is out of bounds")
    return index


def _given(operation: dict[str, Any]) -> Any:
    """A fresh value each time: two operations must not share one."""
    if "value" not in operation:
        raise Unprocessable(f"{operation['op']} operation without a value")
    return copy(operation["value"])


def _add(document: _Document, operation: dict[str, Any]) -> None:
    document.add(_pointer(operation), _given(operation))


def _remove(document: _Document, operation: dict[str, Any]) -> None:
    document.remove(_pointer(operation))


def _replace(document: _Document, operation: dict[str, Any]) -> None:
    path, value = _pointer(operation), _given(operation)
    document.value(path)
    if path and isinstance(container := document.container(path), list):
        container[_index(container, path[-1], len(container) - 1)] = value
    else:
        document.add(path, value)


def _move(document: _Document, operation: dict[str, Any]) -> None:
    source, target = _pointer(operation, "from"), _pointer(operation)
    if target[:len(source)] == source and target != source:
        raise Unprocessable("cannot move a value into itself")
    document.add(target, document.remove(source))


def _copy(document: _Document, operation: dict[str, Any]) -> None:
    encoded = orjson.dumps(document.value(_pointer(operation, "from")))
    document.copied += len(encoded)
    if document.copied > MAX_COPIED_BYTES:
        raise Unprocessable(f"unable to copy, the accumulated size increase of copy operations is {document.copied}, "
                            f"exceeding the limit {MAX_COPIED_BYTES}")
    document.add(_pointer(operation), orjson.loads(encoded))


def _test(document: _Document, operation: dict[str, Any]) -> None:
    path, expected = _pointer(operation), operation.get("value")
    try:
        found = document.value(path)
    except Unprocessable:
        if expected is not None:
            raise
        return  # a missing value equals null, as in the library upstream uses
    if mark(found) != mark(expected):
        raise Unprocessable(f"testing value {operation['path']} failed")


_OPERATIONS: Final[dict[str, Callable[[_Document, dict[str, Any]], None]]] = {
    "add": _add, "remove": _remove, "replace": _replace, "move": _move, "copy": _copy, "test": _test,
}
