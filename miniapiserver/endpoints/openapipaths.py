"""Rows as OpenAPI paths.

My job: the operations of each row of the type table with the parameters, kinds and actions that clients look up
before they send `fieldValidation`, `dryRun` or `fieldManager`. Pure; one neutral form, from which `openapi` writes
version 2 or 3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from miniapiserver.resources.resource import Resource, Subresource

JSON = dict[str, Any]
GVK = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query or path parameter."""

    name: str
    type: str = "string"
    description: str = ""
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `body` and `answer` are kinds, or None; `body_types` the media types it reads."""

    path: str
    method: str
    action: str
    kind: GVK
    operation_id: str
    parameters: tuple[Parameter, ...]
    answer: GVK | None
    body: GVK | None = None
    body_types: tuple[str, ...] = ("*/*",)
    body_required: bool = True


PRETTY: Final = Parameter("pretty", description="Indent the answer.")
DRY_RUN: Final = Parameter("dryRun", description="All: run every stage, store nothing.")
FIELD_MANAGER: Final = Parameter("fieldManager", description="The name of whoever makes this change.")
FIELD_VALIDATION: Final = Parameter("fieldValidation",
                                    description="Unknown or duplicate fields: Ignore, Warn or Strict.")
FORCE: Final = Parameter("force", "boolean", "Take fields that other managers own. Only for apply patches.")
_WRITE: Final = (PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION)
_LIST: Final = (
    PRETTY, Parameter("allowWatchBookmarks", "boolean", "Send BOOKMARK events."),
    Parameter("continue", description="Where the previous page ended."),
    Parameter("fieldSelector", description="Restrict to objects with these fields."),
    Parameter("labelSelector", description="Restrict to objects with these labels."),
    Parameter("limit", "integer", "At most this many objects."),
    Parameter("resourceVersion", description="The revision to read at."),
    Parameter("resourceVersionMatch", description="How resourceVersion is meant."),
    Parameter("sendInitialEvents", "boolean", "Begin a watch with what exists."),
    Parameter("timeoutSeconds", "integer", "End after this many seconds."),
    Parameter("watch", "boolean", "Send changes as they happen."))
_DELETE: Final = (PRETTY, DRY_RUN, Parameter("gracePeriodSeconds", "integer", "Seconds until the object is gone."),
                  Parameter("orphanDependents", "boolean", "Deprecated: see propagationPolicy."),
                  Parameter("propagationPolicy", description="Orphan, Background or Foreground."))
_PATCH_TYPES: Final = ("application/json-patch+json", "application/merge-patch+json",
                       "application/strategic-merge-patch+json", "application/apply-patch+yaml")
_STATUS: Final = ("", "v1", "Status")
_NAME: Final = Parameter("name", description="The object's name.", place="path")
_NAMESPACE: Final = Parameter("namespace", description="The object's namespace.", place="path")
_PROXY_PATH: Final = Parameter("path", description="The path behind the proxy.", place="path")
_CONNECT: Final = frozenset({"attach", "exec", "portforward", "proxy"})


def operations(row: Resource) -> Iterator[Operation]:
    """All operations of a row, its subresources included."""
    root = f"/apis/{row.group}/{row.version}" if row.group else f"/api/{row.version}"
    prefix = f"{root}/namespaces/{{namespace}}" if row.namespaced else root
    place = (_NAMESPACE,) if row.namespaced else ()
    collection, item = f"{prefix}/{row.plural}", f"{prefix}/{row.plural}/{{name}}"
    own = (row.group, row.version, row.kind)
    listed = (row.group, row.version, f"{row.kind}List")
    named = _names(row)
    if row.namespaced and "list" in row.verbs:
        yield Operation(f"{root}/{row.plural}", "get", "list", own, f"list{named}ForAllNamespaces".replace(
            "Namespaced", ""), _LIST, listed)
    if "list" in row.verbs:
        yield Operation(collection, "get", "list", own, f"list{named}", place + _LIST, listed)
    if "create" in row.verbs:
        yield Operation(collection, "post", "post", own, f"create{named}", place + _WRITE, own, own)
    if "deletecollection" in row.verbs:
        yield Operation(collection, "delete", "deletecollection", own, f"deleteCollection{named}",
                        place + _LIST + _DELETE[1:], _STATUS, ("", "v1", "DeleteOptions"), body_required=False)
    if "get" in row.verbs:
        yield Operation(item, "get", "get", own, f"read{named}", (*place, _NAME, PRETTY), own)
    if "update" in row.verbs:
        yield Operation(item, "put", "put", own, f"replace{named}", (*place, _NAME, *_WRITE), own, own)
    if "patch" in row.verbs:
        yield _patch(item, own, f"patch{named}", place)
    if "delete" in row.verbs:
        yield Operation(item, "delete", "delete", own, f"delete{named}", (*place, _NAME, *_DELETE), _STATUS,
                        ("", "v1", "DeleteOptions"), body_required=False)
    for sub in row.subresources:
        yield from _subresource(row, sub, f"{item}/{sub.name}", place, f"{named}{sub.name.capitalize()}")


def _names(row: Resource) -> str:
    """`CoreV1NamespacedPod`: the middle of upstream's operation ids."""
    group = (row.group.removesuffix(".k8s.io").split(".")[0] if row.group else "core").capitalize()
    return f"{group}{row.version.capitalize()}{'Namespaced' if row.namespaced else ''}{row.kind}"


def _patch(path: str, kind: GVK, operation_id: str, place: tuple[Parameter, ...]) -> Operation:
    return Operation(path, "patch", "patch", kind, operation_id, (*place, _NAME, *_WRITE, FORCE), kind,
                     ("", "v1", "Patch"), _PATCH_TYPES)


def _subresource(row: Resource, sub: Subresource, path: str, place: tuple[Parameter, ...], named: str
                 ) -> Iterator[Operation]:
    kind = (row.group if sub.group is None else sub.group, sub.version or row.version, sub.kind)
    if sub.name in _CONNECT:
        yield from _connect(sub, path, kind, place, named)
        return
    if "get" in sub.verbs:
        yield Operation(path, "get", "get", kind, f"read{named}", (*place, _NAME, PRETTY),
                        None if sub.name == "log" else kind)
    if "update" in sub.verbs:
        yield Operation(path, "put", "put", kind, f"replace{named}", (*place, _NAME, *_WRITE), kind, kind)
    if "patch" in sub.verbs:
        yield _patch(path, kind, f"patch{named}", place)
    if "create" in sub.verbs:
        yield Operation(path, "post", "post", kind, f"create{named}", (*place, _NAME, *_WRITE), kind, kind)


_METHODS: Final = {"get": ("get", "head", "options"), "create": ("post",), "update": ("put",), "delete": ("delete",),
                   "patch": ("patch",)}


def _connect(sub: Subresource, path: str, kind: GVK, place: tuple[Parameter, ...], named: str) -> Iterator[Operation]:
    for verb in sub.verbs:
        for method in _METHODS[verb] if sub.name == "proxy" else _METHODS[verb][:1]:
            operation_id = f"connect{method.capitalize()}{named}"
            yield Operation(path, method, "connect", kind, operation_id, (*place, _NAME), None)
            if sub.name == "proxy":
                yield Operation(f"{path}/{{path}}", method, "connect", kind, f"{operation_id}WithPath",
                                (*place, _NAME, _PROXY_PATH), None)
