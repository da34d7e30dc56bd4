"""OpenAPI documents: version 2 as a whole, version 3 per group and version.

My job: build them from the type table and the schema table when first asked for, and keep them as bytes. I own that
cache; `endpoints.pages` serves it. `openapischemas` says what types look like, `openapipaths` what can be done. No
I/O.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson

from miniapiserver.endpoints import gnostic
from miniapiserver.endpoints.discovery import Document, compressed
from miniapiserver.endpoints.openapipaths import GVK, Operation, Parameter, operations
from miniapiserver.endpoints.openapischemas import Definitions
from miniapiserver.resources.resource import Resource, TypeTable
from miniapiserver.schema import types

JSON = dict[str, Any]

#: What `info.version` says; kubectl shows it nowhere.
INFO: Final = {"title": "Kubernetes", "version": "v1.36.0"}
#: Clients ask with an `@`, which no MIME parser accepts in an answer; upstream answers with a dot.
V2_PROTOBUF_ACCEPTS: Final = ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
                              "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
V2_PROTOBUF: Final = V2_PROTOBUF_ACCEPTS[1]
_FOREVER: Final = {"Cache-Control": "public, immutable", "Vary": "Accept"}
_ALWAYS_ASK: Final = {"Cache-Control": "no-cache, private", "Vary": "Accept"}
_ANSWERS: Final = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]
_META_VERSION: Final = ("", "v1")


class Documents:
    """All OpenAPI documents of one type table. Lives as long as the server; a changed table drops them."""

    def __init__(self, table: TypeTable) -> None:
        self._table = table
        self._generation = -1
        self._documents: dict[str, Document] = {}

    def answer(self, path: str, accept: str, hash_wanted: str = "") -> Document | None:
        """The document of `/openapi/v2`, `/openapi/v3` or `/openapi/v3/apis/apps/v1`; None when there is none."""
        if self._generation != self._table.generation:
            self._documents.clear()
            self._generation = self._table.generation
        if path == "/openapi/v2":
            return self._kept("v2 protobuf" if any(media in accept for media in V2_PROTOBUF_ACCEPTS) else "v2")
        if path == "/openapi/v3":
            return self._kept("v3")
        found = self._group_version(path.removeprefix("/openapi/v3/"))
        if found is None:
            return None
        place = path.removeprefix("/openapi/v3/")
        digest = self._hash(*found)
        if hash_wanted and hash_wanted != digest:
            return Document(b"", "text/plain; charset=utf-8", 301, {"Location": _url(place, digest)})
        document = self._kept(place)
        return document if not hash_wanted else Document(
            document.body, document.content_type, 200, document.headers | _FOREVER, document.etag, document.gzipped)

    def _kept(self, name: str) -> Document:
        if name not in self._documents:
            self._documents[name] = self._build(name)
        return self._documents[name]

    def _build(self, name: str) -> Document:
        rows = self._table.rows()
        if name == "v3":
            return _document(orjson.dumps({"paths": {place: {"serverRelativeURL": _url(place, self._hash(*found))}
                                                     for place, found in self._places().items()}}))
        if name == "v2":
            return _document(orjson.dumps(_version_2(rows)))
        if name == "v2 protobuf":
            return _document(gnostic.encode(_version_2(rows)), V2_PROTOBUF)
        group, version = self._places()[name]
        body = orjson.dumps(_version_3([row for row in rows if (row.group, row.version) == (group, version)], rows))
        etag = f'"{self._hash(group, version)}"'
        return Document(body, etag=etag, headers={"ETag": etag} | _ALWAYS_ASK, gzipped=compressed(body))

    def _places(self) -> dict[str, tuple[str, str]]:
        found = dict.fromkeys((row.group, row.version) for row in self._table.rows())
        return {f"apis/{group}/{version}" if group else f"api/{version}": (group, version) for group, version in found}

    def _group_version(self, place: str) -> tuple[str, str] | None:
        return self._places().get(place)

    def _hash(self, group: str, version: str) -> str:
        """Changes when the document would: the rows of this version and the schema table say all there is in it."""
        rows = [(row.plural, row.kind, row.type_name, row.namespaced, row.verbs, tuple(
            (sub.name, sub.kind, sub.verbs) for sub in row.subresources))
            for row in self._table.rows() if (row.group, row.version) == (group, version)]
        digest = hashlib.sha512(_schema_digest())
        digest.update(repr((rows, [types.find(row[2]).fields.keys() for row in rows])).encode())
        return digest.hexdigest().upper()


@cache
def _schema_digest() -> bytes:
    return hashlib.sha512(Path(types.__file__).with_name("types.json").read_bytes()).digest()


def _url(place: str, digest: str) -> str:
    return f"/openapi/v3/{place}?hash={digest}"


def _document(body: bytes, content_type: str = "application/json") -> Document:
    etag = f'"{hashlib.sha512(body).hexdigest().upper()}"'
    return Document(body, content_type, etag=etag, headers={"ETag": etag} | _ALWAYS_ASK, gzipped=compressed(body))


# --- what is in them ---------------------------------------------------------------------------------------------


def _kinds(rows: Sequence[Resource]) -> dict[str, list[GVK]]:
    """Type name → the kinds it is the type of, for every served group and version."""
    found: dict[str, list[GVK]] = {}
    served = {(row.group, row.version) for row in rows} | {_META_VERSION}
    for group, version, kind, name in types.kinds():
        if (group, version) in served:
            found.setdefault(name, []).append((group, version, kind))
    for row in rows:
        entry = found.setdefault(types.find(row.type_name).name, [])
        if (row.group, row.version, row.kind) not in entry:
            entry.append((row.group, row.version, row.kind))
    for kind in ("DeleteOptions", "WatchEvent"):
        found[f"meta.v1.{kind}"] = [(group, version, kind) for group, version in sorted(served)]
    return found


def _type_name(kind: GVK) -> str | None:
    if kind[2] == "Patch":
        return None
    schema = types.for_kind(*kind)
    return schema.name if schema else None


def _wanted(found: Sequence[Operation]) -> list[str]:
    kinds = {kind for operation in found for kind in (operation.kind, operation.answer, operation.body) if kind}
    return sorted({name for kind in kinds if (name := _type_name(kind))} | {"meta.v1.Status", "meta.v1.WatchEvent"})


def _version_2(rows: Sequence[Resource]) -> JSON:
    found = [operation for row in rows for operation in operations(row)]
    definitions = Definitions(2, _kinds(rows))
    definitions.add(_wanted(found))
    definitions.found["io.k8s.apimachinery.pkg.apis.meta.v1.Patch"] = {"description": "A patch.", "type": "object"}
    paths: JSON = {}
    for operation in found:
        paths.setdefault(operation.path, {})[operation.method] = _operation_2(operation, definitions)
    return {"swagger": "2.0", "info": INFO, "paths": dict(sorted(paths.items())),
            "definitions": dict(sorted(definitions.found.items()))}


def _version_3(own: Sequence[Resource], rows: Sequence[Resource]) -> JSON:
    found = [operation for row in own for operation in operations(row)]
    definitions = Definitions(3, _kinds(rows))
    definitions.add(_wanted(found))
    definitions.found["io.k8s.apimachinery.pkg.apis.meta.v1.Patch"] = {"description": "A patch.", "type": "object"}
    paths: JSON = {}
    for operation in found:
        paths.setdefault(operation.path, {})[operation.method] = _operation_3(operation, definitions)
    return {"openapi": "3.0.0", "info": INFO, "paths": dict(sorted(paths.items())),
            "components": {"schemas": dict(sorted(definitions.found.items()))}}


def _common(operation: Operation) -> JSON:
    group, version, kind = operation.kind
    return {"description": f"{operation.action} {kind}", "operationId": operation.operation_id,
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {"group": group, "kind": kind, "version": version}}


def _reference(kind: GVK, definitions: Definitions) -> JSON:
    name = _type_name(kind)
    return definitions.reference(name or "meta.v1.Patch") if name else {"type": "object"}


def _operation_2(operation: Operation, definitions: Definitions) -> JSON:
    parameters: list[JSON] = [_parameter_2(parameter) for parameter in operation.parameters]
    if operation.body:
        parameters.append({"name": "body", "in": "body", "required": operation.body_required,
                           "schema": _reference(operation.body, definitions)})
    answer = {"schema": _reference(operation.answer, definitions)} if operation.answer else {}
    return _common(operation) | {"consumes": list(operation.body_types), "produces": _ANSWERS,
                                 "parameters": parameters, "responses": {"200": {"description": "OK"} | answer}}


def _parameter_2(parameter: Parameter) -> JSON:
    return {"name": parameter.name, "in": parameter.place, "type": parameter.type, "uniqueItems": True,
            "description": parameter.description} | ({"required": True} if parameter.place == "path" else {})


def _operation_3(operation: Operation, definitions: Definitions) -> JSON:
    found = _common(operation) | {"parameters": [_parameter_3(parameter) for parameter in operation.parameters]}
    if operation.body:
        schema = _reference(operation.body, definitions)
        found["requestBody"] = {"content": {media: {"schema": schema} for media in operation.body_types},
                                "required": operation.body_required}
    answer: JSON = {"description": "OK"}
    if operation.answer:
        schema = _reference(operation.answer, definitions)
        answer["content"] = {media: {"schema": schema} for media in _ANSWERS}
    return found | {"responses": {"200": answer}}


def _parameter_3(parameter: Parameter) -> JSON:
    return {"name": parameter.name, "in": parameter.place, "description": parameter.description,
            "schema": {"type": parameter.type, "uniqueItems": True}} | \
        ({"required": True} if parameter.place == "path" else {})
