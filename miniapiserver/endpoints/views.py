"""Objects as Tables and as bare metadata.

My job: the transformed bodies a client may ask for with `as=` (apiserver `handlers/response.go`). Pure: objects in,
dicts out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from miniapiserver.endpoints.negotiation import Representation, View
from miniapiserver.errors import Invalid, NotAcceptable, not_supported
from miniapiserver.resources.resource import Resource

JSON = dict[str, Any]

_PACKAGES = {"": "core", "events.k8s.io": "core"}
INCLUDE = ("None", "Metadata", "Object")


def include_object(query: Mapping[str, str]) -> str:
    """The Table option `includeObject`. Raises Invalid."""
    asked = query.get("includeObject", "") or "Metadata"
    if asked not in INCLUDE:
        raise Invalid.fields("TableOptions", "meta.k8s.io", "",
                             [not_supported("includeObject", asked, ("Metadata", "None", "Object", ""))])
    return asked


def require_shape(row: Resource, representation: Representation, *, is_list: bool) -> None:
    """Metadata of one object and of a list are asked for by two names. Raises NotAcceptable for the wrong one."""
    wrong = View.PARTIAL if is_list else View.PARTIAL_LIST
    if representation.view is not wrong:
        return
    # Upstream names the Go type here: the package of the group's internal types.
    package = _PACKAGES.get(row.group) or row.group.partition(".")[0]
    kind, what = (f"{row.kind}List", "a list") if is_list else (row.kind, "not a list")
    raise NotAcceptable(f"you requested {wrong.value}, but the requested object is {what} (*{package}.{kind})",
                        details={})


def transform(row: Resource, obj: JSON, representation: Representation, include: str, now: float) -> JSON:
    """One object in the asked view."""
    if representation.view is View.TABLE:
        revision = obj["metadata"].get("resourceVersion")
        metadata = {"resourceVersion": revision} if revision else {}
        return table(row, [obj], metadata, representation.version, include, now)
    if representation.view in (View.PARTIAL, View.PARTIAL_LIST):
        return partial(obj, representation.version)
    return obj


def transform_list(row: Resource, items: Sequence[JSON], metadata: JSON, representation: Representation, include: str,
                   now: float) -> JSON:
    """A list in the asked view."""
    if representation.view is View.TABLE:
        return table(row, items, metadata, representation.version, include, now)
    return {"kind": "PartialObjectMetadataList", "apiVersion": f"meta.k8s.io/{representation.version}",
            "metadata": metadata, "items": [partial(obj, representation.version) for obj in items]}


def partial(obj: JSON, version: str) -> JSON:
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"]}


def table(row: Resource, items: Sequence[JSON], metadata: JSON, version: str, include: str, now: float, *,
          columns: bool = True) -> JSON:
    """`columns` False leaves the definitions out: a watch sends them once."""
    return {"kind": "Table", "apiVersion": f"meta.k8s.io/{version}", "metadata": metadata,
            "columnDefinitions": column_definitions(row) if columns else [],
            "rows": [table_row(row, obj, version, include, now) for obj in items]}


def column_definitions(row: Resource) -> list[JSON]:
    return [{"name": column.name, "type": column.type, "format": column.format, "description": column.description,
             "priority": column.priority} for column in row.table.columns]


def table_row(row: Resource, obj: JSON, version: str, include: str, now: float) -> JSON:
    cells = row.table.cells(obj, now)
    if include == "None":
        return {"cells": cells, "object": None}
    if include == "Object":
        return {"cells": cells, "object": {"kind": row.kind, "apiVersion": row.api_version} | obj}
    return {"cells": cells, "object": partial(obj, version)}
