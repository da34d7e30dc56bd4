"""A request body as an object of the type the endpoint expects.

My job: JSON, YAML and protobuf bodies to a plain dict that its type accepts, with kind and apiVersion first, every
problem a strict decoder would name, and upstream's words when it is refused (apiserver `negotiation` and
`transformDecodeError`). I own no I/O; conversion between versions is the registry's.
"""

from typing import Any, Final

import orjson

from miniapiserver.errors import BadRequest, FieldError, Invalid, UnsupportedMediaType
from miniapiserver.schema import gojson, protobuf, types, yamldoc
from miniapiserver.schema.conform import Mismatch, conform

JSON = dict[str, Any]

JSON_TYPE: Final = "application/json"
YAML_TYPE: Final = "application/yaml"
PROTOBUF_TYPE: Final = "application/vnd.kubernetes.protobuf"
ACCEPTED: Final = (JSON_TYPE, YAML_TYPE, PROTOBUF_TYPE)
#: Upstream's internal Go package of each group, as its conversion errors print it.
_INTERNAL: Final = {"": "core", "rbac.authorization.k8s.io": "rbac", "flowcontrol.apiserver.k8s.io": "flowcontrol"}
_SCHEME: Final = "pkg/api/legacyscheme/scheme.go:30"


def media_type(content_type: str) -> str:
    """The bare media type of a Content-Type header; no header means JSON. Raises UnsupportedMediaType."""
    bare = content_type.partition(";")[0].strip().lower() or JSON_TYPE
    if bare not in ACCEPTED:
        raise UnsupportedMediaType("the body of the request was in an unknown format - accepted media types include: "
                                   + ", ".join(ACCEPTED))
    return bare


def decode(body: bytes, content_type: str, group: str, version: str, kind: str) -> tuple[JSON, list[str]]:
    """(object, problems) of a body that should be this kind.

    Problems are what `fieldValidation` is about: an unknown or a duplicate field. The caller drops them (Ignore), warns
    (Warn) or raises `strict_failure` (Strict). Raises BadRequest and UnsupportedMediaType.
    """
    media = media_type(content_type)
    obj, problems = _READERS[media](body, kind)
    _expect(obj, group, version, kind)
    said = obj["apiVersion"].rpartition("/")[2]
    schema = _schema(obj, group, version, kind)
    try:
        problems += conform(obj, schema)
    except Mismatch as error:
        raise BadRequest(f'{kind} in version "{said}" cannot be handled as a {kind}: {error}') from error
    return canonical_order(obj), problems


def strict_failure(obj: JSON, kind: str, problems: list[str]) -> BadRequest:
    """The answer to `fieldValidation=Strict` when `decode` found problems."""
    said = obj["apiVersion"].rpartition("/")[2]
    return BadRequest(f'{obj["kind"]} in version "{said}" cannot be handled as a {kind}: '
                      f'{strict_text(problems)}')


def strict_text(problems: list[str]) -> str:
    return "strict decoding error: " + ", ".join(problems)


def decode_patched(obj: Any, group: str, version: str, kind: str, patched: bytes | str = b"") -> tuple[JSON, list[str]]:
    """The same for what a patch made. `patched` is what the error shows. Raises Invalid."""
    try:
        shown = patched or dump(obj)
    except TooDeep as error:
        raise patch_invalid("", str(error)) from error
    if not isinstance(obj, dict):
        raise patch_invalid(shown, f"couldn't get version/kind; {_not_an_object(obj)}")
    try:
        _expect(obj, group, version, kind)
        problems = conform(obj, _schema(obj, group, version, kind))
    except (Mismatch, BadRequest) as error:
        raise patch_invalid(shown, str(error)) from error
    return canonical_order(obj), problems


def patch_invalid(patched: bytes | str, why: str) -> Invalid:
    """422 for a patch whose result is no object of the kind, or not a strict one."""
    text = patched.decode("utf-8", "replace") if isinstance(patched, bytes) else patched
    quoted = orjson.dumps(text).decode()
    return Invalid.fields("", "", "", [FieldError("patch", "FieldValueInvalid", f"Invalid value: {quoted}: {why}")])


def canonical_order(obj: JSON) -> JSON:
    """kind, apiVersion and metadata first: stored bytes begin with them."""
    ordered: JSON = {"kind": obj.pop("kind"), "apiVersion": obj.pop("apiVersion")}
    if "metadata" in obj:
        ordered["metadata"] = obj.pop("metadata")
    ordered.update(obj)
    return ordered


def read_json(body: bytes, kind: str) -> tuple[JSON, list[str]]:
    try:
        obj = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _unrecognized(body, kind, f"json parse error: {gojson.syntax_error(body)}") from error
    if type(obj) is not dict:
        raise _unrecognized(body, kind, _not_an_object(obj))
    try:
        return obj, gojson.duplicate_fields(body) if has_duplicates(body, obj) else []
    except TooDeep as error:
        raise _unrecognized(body, kind, f"json parse error: {error}") from error


def has_duplicates(body: bytes, obj: Any) -> bool:
    """Whether a key may have been dropped: each key costs one colon, and dumping keeps the colons inside strings.

    Raises TooDeep.
    """
    return body.count(b":") != dump(obj).count(b":") or b"\\u003a" in body or b"\\u003A" in body


class TooDeep(ValueError):
    """A value nested deeper than anything that can be stored."""


def dump(value: Any) -> bytes:
    """Compact JSON. Raises TooDeep, which is what keeps every recursion over accepted bodies short."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise TooDeep("exceeded max depth") from error


def read_yaml(body: bytes, kind: str) -> tuple[JSON, list[str]]:
    try:
        obj, problems = yamldoc.load(body)
        dump(obj)
    except (yamldoc.InvalidYAML, TooDeep) as error:
        raise _unrecognized(body, kind, f"json parse error: {error}") from error
    if obj is None:
        obj = {}
    if type(obj) is not dict:
        raise _unrecognized(body, kind, _not_an_object(obj))
    return obj, problems


def read_protobuf(body: bytes, kind: str) -> tuple[JSON, list[str]]:
    try:
        obj = protobuf.decode(body, default_kind=kind)
        dump(obj)
        return obj, []
    except (protobuf.BadProtobuf, TooDeep) as error:
        raise BadRequest(f"the object provided is unrecognized (must be of type {kind}): {error} "
                         f"({_summary(body)})") from error


_READERS: Final = {JSON_TYPE: read_json, YAML_TYPE: read_yaml, PROTOBUF_TYPE: read_protobuf}


def _not_an_object(value: Any) -> str:
    what = "array" if isinstance(value, list) else "string" if isinstance(value, str) else \
        "bool" if isinstance(value, bool) else "null" if value is None else "number"
    return (f"json parse error: json: cannot unmarshal {what} into Go value of type struct {{ APIVersion string "
            '"json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }')


def _unrecognized(body: bytes, kind: str, why: str) -> BadRequest:
    return BadRequest(f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
                      f"{why} ({_summary(body)})")


def _summary(body: bytes) -> str:
    """The first 30 bytes, as text if they look like JSON, else in hexadecimal."""
    if not body:
        return "<empty>"
    shown = body[:30].decode("utf-8", "replace") if body[:1] == b"{" else body[:30].hex()
    return shown + (" ..." if len(body) > 30 else "")


def _expect(obj: JSON, group: str, version: str, kind: str) -> None:
    """Fill in a missing kind and apiVersion, refuse other ones."""
    api_version = f"{group}/{version}" if group else version
    said_kind = obj.get("kind") or kind
    said = obj.get("apiVersion") or api_version
    if not isinstance(said_kind, str) or not isinstance(said, str):
        raise BadRequest(f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
                         "json parse error: json: cannot unmarshal into Go struct field .kind of type string")
    obj["kind"], obj["apiVersion"] = said_kind, said
    if said_kind == kind and (said == api_version or kind in types.OPTIONS_KINDS):
        return
    said_group, _, said_version = said.rpartition("/")
    if types.for_kind(said_group, said_version, said_kind) is None:
        why = f'no kind "{said_kind}" is registered for version "{said}" in scheme "{_SCHEME}"'
    elif said_kind == kind and said_group == group:
        raise BadRequest(f"the API version in the data ({said}) does not match the expected API version "
                         f"({api_version})")
    else:
        internal = _INTERNAL.get(group) or group.partition(".")[0]
        why = f"converting ({said_version}.{said_kind}) to ({internal}.{kind}): unknown conversion"
    raise BadRequest(f'{said_kind} in version "{said_version}" cannot be handled as a {kind}: {why}')


def _schema(obj: JSON, group: str, version: str, kind: str) -> types.TypeSchema:
    schema = types.for_kind(group, version, kind)
    if schema is None:
        raise BadRequest(f'no kind "{kind}" is registered for version "{obj.get("apiVersion")}" in scheme "{_SCHEME}"')
    return schema
