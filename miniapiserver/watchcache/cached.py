"""One stored object as the cache holds it: once, already serialized.

My job: make the stored bytes into those a GET answers (resourceVersion spliced in) and those of a list item, and give
selectors their labels and fields. Nothing is decoded until a selector asks. No I/O.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import orjson

JSON = dict[str, Any]
Extract = Callable[[JSON], Mapping[str, str]]

_METADATA = b'"metadata":{'


def splice(value: bytes, revision: int) -> bytes:
    """A stored value with its resourceVersion as the first field of metadata."""
    head = value.index(_METADATA) + len(_METADATA)
    comma = b"" if value[head:head + 1] == b"}" else b","
    return b'%b"resourceVersion":"%d"%b%b' % (value[:head], revision, comma, value[head:])


class Cached:
    """One object at one revision, immutable. `data` is its JSON as GET and watch show it."""

    __slots__ = ("_cut", "_extract", "_fields", "_labels", "data", "key", "name", "namespace", "revision")

    def __init__(self, key: str, namespace: str, name: str, revision: int, data: bytes, extract: Extract) -> None:
        self.key, self.namespace, self.name, self.revision, self.data = key, namespace, name, revision, data
        self._cut = data.index(_METADATA)
        self._extract = extract
        self._labels: Mapping[str, str] | None = None
        self._fields: Mapping[str, str] | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        if self._labels is None:
            self._look()
        return cast(Mapping[str, str], self._labels)

    @property
    def fields(self) -> Mapping[str, str]:
        """The selectable fields, as the resource's row extracts them."""
        if self._fields is None:
            self._look()
        return cast(Mapping[str, str], self._fields)

    @property
    def item(self) -> bytes:
        """As a list shows it: without kind and apiVersion."""
        return b"{" + self.data[self._cut:]

    @property
    def tail(self) -> bytes:
        """`item` without its opening brace, see `items_json`."""
        return self.data[self._cut:]

    def decode(self) -> JSON:
        """A fresh dict that the caller may change."""
        return cast(JSON, orjson.loads(self.data))

    def at(self, revision: int) -> "Cached":
        """The same content under another resourceVersion: what a DELETED event shows."""
        start = self._cut + len(_METADATA)
        end = start + len(b'"resourceVersion":"%d"' % self.revision)
        data = b'%b"resourceVersion":"%d"%b' % (self.data[:start], revision, self.data[end:])
        moved = Cached(self.key, self.namespace, self.name, revision, data, self._extract)
        moved._labels, moved._fields = self._labels, self._fields
        return moved

    def _look(self) -> None:
        obj = self.decode()
        self._labels = obj["metadata"].get("labels") or {}
        self._fields = self._extract(obj)

    def __repr__(self) -> str:
        return f"Cached({self.key}@{self.revision})"


def items_json(items: Sequence[Cached]) -> bytes:
    """The items of a list, comma separated, without the brackets."""
    if not items:
        return b""
    return b"{" + b",{".join([item.tail for item in items])
