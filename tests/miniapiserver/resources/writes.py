"""The path of a write through a row's strategy, in the registry's order, without a registry."""

import copy
from typing import Any

from miniapiserver.errors import FieldError, Invalid
from miniapiserver.resources.resource import Resource, WriteContext
from miniapiserver.resources.rows import all_rows

JSON = dict[str, Any]

NOW = "2026-11-22T06:31:45Z"
ROWS = {(row.group, row.plural): row for row in all_rows() if (row.group, row.version) != ("autoscaling", "v1")}


def row_of(plural: str, group: str = "") -> Resource:
    return ROWS[group, plural]


def created(plural: str, body: JSON, group: str = "", *, user: str = "") -> tuple[JSON, list[FieldError]]:
    """The object as it would be stored, and what is wrong with it."""
    row, obj = row_of(plural, group), copy.deepcopy(body)
    obj.setdefault("metadata", {})
    if row.namespaced:
        obj["metadata"].setdefault("namespace", "golden")
    obj["metadata"].setdefault("uid", "0000-1111")
    row.strategy.default(obj)
    row.strategy.prepare_for_create(obj, WriteContext(now=NOW, user=user))
    return obj, row.strategy.validate(obj)


def updated(
    plural: str, old: JSON, change: JSON, group: str = "", *, subresource: str = ""
) -> tuple[JSON, list[FieldError]]:
    """`old` with the top-level keys of `change` merged one level deep, written through an endpoint."""
    row, obj = row_of(plural, group), copy.deepcopy(old)
    for key, value in copy.deepcopy(change).items():
        obj[key] = obj.get(key, {}) | value if isinstance(value, dict) and isinstance(obj.get(key), dict) else value
    before = copy.deepcopy(old)
    row.strategy.default(obj)
    context = WriteContext(now=NOW, subresource=subresource)
    if subresource:
        row.strategy.prepare_for_status_update(obj, before, context)
        return obj, row.strategy.validate_status_update(obj, before)
    row.strategy.prepare_for_update(obj, before, context)
    return obj, row.strategy.validate_update(obj, before)


def words(errors: list[FieldError]) -> list[str]:
    return [str(error) for error in errors]


def message(plural: str, errors: list[FieldError], name: str, group: str = "") -> str:
    row = row_of(plural, group)
    return str(Invalid.fields(row.kind, row.group, name, errors).status()["message"])


def pod(**spec: Any) -> JSON:
    return {"metadata": {"name": "p1"}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]} | spec}


def template(**labels: str) -> JSON:
    return {
        "metadata": {"labels": labels or {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "busybox:1"}]},
    }
