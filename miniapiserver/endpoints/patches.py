"""PATCH bodies as changes.

My job: the table of patch media types, and for each a body → Change that `registry.update` can apply to any stored
version of the object. The rules of each patch live in `miniapiserver.patch` and `miniapiserver.managedfields`; field
validation of the result is done here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from miniapiserver import managedfields
from miniapiserver.errors import BadRequest, UnsupportedMediaType
from miniapiserver.patch import document, jsonpatch, mergepatch, read, strategic
from miniapiserver.patch.errors import go_text
from miniapiserver.registry.options import WriteOptions
from miniapiserver.registry.update import Change
from miniapiserver.request import Request
from miniapiserver.resources.resource import Resource
from miniapiserver.schema.decode import TooDeep, decode_patched, dump, patch_invalid, strict_text
from miniapiserver.schema.types import TypeSchema

JSON = dict[str, Any]

json_type = "application/json-patch+json"
merge_type = "application/merge-patch+json"
strategic_type = "application/strategic-merge-patch+json"
apply_type = "application/apply-patch+yaml"
ACCEPTED = (json_type, merge_type, strategic_type, apply_type)


@dataclass(frozen=True, slots=True)
class Patch:
    """A PATCH request before it meets an object. `now` is RFC3339."""

    body: bytes
    row: Resource
    schema: TypeSchema
    options: WriteOptions
    subresource: str
    now: str
    request: Request


@dataclass(frozen=True, slots=True)
class Parsed:
    """`creates`: a missing object is created from `new_object(namespace, name)` (server-side apply only)."""

    change: Change
    creates: bool = False
    new_object: Callable[[str, str], JSON] = lambda namespace, name: {}


def patch_kind(request: Request, row: Resource) -> str:
    """The patch media type of a request. Raises UnsupportedMediaType."""
    media_type = request.http.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type in ACCEPTED:
        return media_type
    raise UnsupportedMediaType("415: Unsupported Media Type", details={})


def _checked(patch: Patch, new: JSON, shown: str = "", noticed: Sequence[str] = ()) -> JSON:
    """The patched object, pruned to its type; what was unknown is reported as the client asked, with `shown` or the
    result.

    `noticed` are problems of the patch itself.
    """
    try:
        text = shown or dump(new)
    except TooDeep as error:
        raise patch_invalid("", str(error)) from error
    obj, problems = decode_patched(new, patch.row.group, patch.row.version, patch.row.kind, text)
    problems = [*noticed, *problems]
    if problems and patch.options.field_validation == "Strict":
        raise patch_invalid(text, strict_text(problems))
    if problems and patch.options.field_validation == "Warn":
        patch.request.warnings.extend(text for text in problems if text not in patch.request.warnings)
    _keep_name(patch, obj.setdefault("metadata", {}))
    return obj


def _keep_name(patch: Patch, metadata: JSON) -> None:
    name = patch.request.info.name
    if metadata.get("name") != name:
        raise BadRequest(f"the name of the object ({metadata.get('name', '')}) does not match the name on the URL "
                         f"({name})")


def _ordinary(patch: Patch, apply: Callable[[JSON], JSON], noticed: Sequence[str], shown: str = "") -> Parsed:
    """The result keeps the stored resourceVersion unless the patch names another, which is then a conflict."""
    return Parsed(Change(lambda old: _checked(patch, apply(old), shown, noticed), follows=True))


def json_patch(patch: Patch) -> Parsed:
    operations, noticed = document.read(patch.body, json_type)
    return _ordinary(patch, lambda old: jsonpatch.apply(old, operations), noticed)


def merge_patch(patch: Patch) -> Parsed:
    body, noticed = document.read(patch.body, merge_type)
    return _ordinary(patch, lambda old: mergepatch.apply(old, body), noticed)


def strategic_patch(patch: Patch) -> Parsed:
    body, noticed = document.read(patch.body, strategic_type)
    return _ordinary(patch, lambda old: strategic.apply(old, body, patch.schema), noticed, go_text(body))


def apply_patch(patch: Patch) -> Parsed:
    row, options = patch.row, patch.options
    config, problems = managedfields.read_config(patch.body, row.kind)
    if problems and options.field_validation == "Strict":
        raise BadRequest(f"error strict decoding YAML: {', '.join(problems)}")
    if problems and options.field_validation == "Warn":
        patch.request.warnings.extend(problems)

    def applied(live: JSON | None) -> JSON:
        new = managedfields.server_side_apply(live, config, patch.schema, api_version=row.api_version, kind=row.kind,
                                              manager=options.field_manager, force=bool(options.force),
                                              subresource=patch.subresource, now=patch.now)
        return _checked(patch, new)

    def change(live: JSON) -> JSON:
        new = applied(live)
        asked = config["metadata"].get("resourceVersion")
        new["metadata"]["resourceVersion"] = asked or live["metadata"]["resourceVersion"]
        return new

    return Parsed(Change(change, tracks_fields=False, follows=True), creates=True,
                  new_object=lambda namespace, name: _named(config, applied, namespace, name))


def _named(config: JSON, applied: Callable[[None], JSON], namespace: str, name: str) -> JSON:
    metadata = config.setdefault("metadata", {})
    if isinstance(metadata, dict):  # anything else is refused in better words by the apply itself
        metadata.setdefault("name", name)
        if namespace:
            metadata.setdefault("namespace", namespace)
    return applied(None)


PATCHES: dict[str, Callable[[Patch], Parsed]] = {
    json_type: json_patch, merge_type: merge_patch, strategic_type: strategic_patch, apply_type: apply_patch}


def plain_patch(media_type: str, body: bytes, schema: TypeSchema) -> Callable[[JSON], JSON]:
    """A patch of something that is not stored itself (a Scale). Raises BadRequest; apply patches merge."""
    parsed = read(body, merge_type if media_type == apply_type else media_type)
    if isinstance(parsed, list):
        return lambda obj: jsonpatch.apply(obj, parsed)
    if media_type == strategic_type:
        return lambda obj: strategic.apply(obj, parsed, schema)
    return lambda obj: mergepatch.apply(obj, parsed)
