"""create, update, patch, delete, deletecollection: the HTTP side.

My job: options and body of a writing request, then `registry`, then the answer (apiserver
`handlers/{create,update,patch,delete}.go`). `endpoints.dispatch` calls me; the same functions serve `/status` and the
other subresources that are parts of the object.
"""

from typing import Any

import orjson
from aiohttp import web

from miniapiserver.apiserver import APIServer
from miniapiserver.endpoints import body
from miniapiserver.endpoints.answers import answer, representation_of
from miniapiserver.endpoints.listoptions import parse as parse_list_options
from miniapiserver.endpoints.negotiation import Representation
from miniapiserver.endpoints.patches import PATCHES, Patch, apply_type, patch_kind
from miniapiserver.endpoints.reading import matching
from miniapiserver.endpoints.responses import json_bytes, json_object
from miniapiserver.errors import BadRequest, NotFound
from miniapiserver.registry import creation, deletion, options, update
from miniapiserver.registry.deletion import Deleted, Outcome
from miniapiserver.registry.options import WriteOptions
from miniapiserver.request import Request
from miniapiserver.resources.resource import Resource
from miniapiserver.schema import types
from miniapiserver.schema.decode import decode

JSON = dict[str, Any]

CREATE_ON_UPDATE_CODE = 201


async def create(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    representation = representation_of(request)
    write = options.write_options(request, "CreateOptions")
    obj = await body.read_object(request, row.group, row.version, row.kind, write)
    place(row, obj, request.info.namespace, "")
    data = await creation.create(server.registry.store(row), _schema(row), obj, server.call(request, write),
                                 server.registry.allocator(row))
    return await answer(server, request, row, data, representation, 201)


async def replace(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    """PUT of the object or of one of its own subresources (`/status`, `/finalize`, `/approval` …)."""
    representation = representation_of(request)
    write = options.write_options(request, "UpdateOptions")
    info, store = request.info, server.registry.store(row)
    obj = await body.read_object(request, row.group, row.version, row.kind, write)
    place(row, obj, info.namespace, info.name)
    call = server.call(request, write, info.subresource)
    if store.find(info.namespace, info.name) is None and row.strategy.allow_create_on_update and not info.subresource:
        if obj["metadata"].get("resourceVersion"):
            raise store.conflict(info.name, "StorageError: invalid object, Code: 4, Key: "
                                 f"{store.key(info.namespace, info.name)}, ResourceVersion: 0, AdditionalErrorMsg: "
                                 "Precondition failed: object does not exist")
        data = await creation.create(store, _schema(row), obj, call, server.registry.allocator(row))
        return await answer(server, request, row, data, representation, CREATE_ON_UPDATE_CODE)
    change = update.Change(lambda old: decode_again(obj))
    data = await update.update(store, _schema(row), info.namespace, info.name, change, call,
                               server.registry.allocator(row))
    return await answer(server, request, row, data, representation, 200)


def decode_again(obj: JSON) -> JSON:
    """A copy for each try: preparation changes what it gets."""
    copy: JSON = orjson.loads(orjson.dumps(obj))
    return copy


async def patch(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    """PATCH in each of its four media types; server-side apply creates what is missing."""
    representation = representation_of(request)
    media_type = patch_kind(request, row)
    write = options.write_options(request, "PatchOptions", is_apply=media_type == apply_type)
    info, store = request.info, server.registry.store(row)
    body_bytes = await body.read(request)
    parsed = PATCHES[media_type](Patch(body_bytes, row, _schema(row), write, info.subresource, server.clock.rfc3339(),
                                       request))
    call = server.call(request, write, info.subresource)
    if parsed.creates and store.find(info.namespace, info.name) is None:
        if info.subresource:
            raise store.not_found(info.name)
        new = parsed.new_object(info.namespace, info.name)
        return await _apply_new(server, request, row, new, representation, write)
    data = await update.update(store, _schema(row), info.namespace, info.name, parsed.change, call,
                               server.registry.allocator(row))
    return await answer(server, request, row, data, representation, 200)


async def _apply_new(server: APIServer, request: Request, row: Resource, obj: JSON, representation: Representation,
                     write: WriteOptions) -> web.StreamResponse:
    place(row, obj, request.info.namespace, request.info.name)
    data = await creation.create(server.registry.store(row), _schema(row), obj, server.call(request, write),
                                 server.registry.allocator(row), tracks_fields=False)
    return await answer(server, request, row, data, representation, 201)


async def delete(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    representation = representation_of(request)
    asked = await _delete_options(request)
    info, store = request.info, server.registry.store(row)
    deleted = await deletion.delete(store, info.namespace, info.name, asked, _delete_call(server, request, asked),
                                    server.registry.allocator(row))
    return await _answer_deleted(server, request, row, deleted, representation)


async def delete_collection(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    asked = await _delete_options(request)
    listed = parse_list_options(request.query, watching=False)
    store, call = server.registry.store(row), _delete_call(server, request, asked)
    items: list[bytes] = []
    for cached in matching(store, request.info, listed):
        try:
            deleted = await deletion.delete(store, cached.namespace, cached.name, asked, call,
                                            server.registry.allocator(row))
        except NotFound:
            continue  # somebody else was faster
        items.append(cached.item if deleted.outcome is Outcome.REMOVED else _item(deleted.data))
    metadata = b'{"resourceVersion":"%d"}' % store.cache.revision
    data = (b'{"kind":"%sList","apiVersion":"%s","metadata":%s,"items":[%s]}'
            % (row.kind.encode(), row.api_version.encode(), metadata, b",".join(items)))
    return await json_bytes(request, data, 200)


def _item(data: bytes) -> bytes:
    return b"{" + data[data.index(b'"metadata":{'):]


def _delete_call(server: APIServer, request: Request, asked: options.DeleteOptions) -> Any:
    return server.call(request, WriteOptions(asked.dry_run, "", "", None))


async def _delete_options(request: Request) -> options.DeleteOptions:
    raw = await body.read(request)
    parsed = None
    if raw:
        parsed, _ = decode(raw, request.http.headers.get("Content-Type", ""), "", "v1", "DeleteOptions")
    return options.delete_options(request.query, request.all("dryRun"), parsed)


async def _answer_deleted(server: APIServer, request: Request, row: Resource, deleted: Deleted,
                          representation: Representation) -> web.StreamResponse:
    if deleted.outcome is Outcome.MARKED or row.strategy.returns_deleted_object:
        return await answer(server, request, row, server.registry.store(row).shown(deleted.data), representation, 200)
    metadata = orjson.loads(deleted.data)["metadata"]
    details = {"name": metadata["name"]} | ({"group": row.group} if row.group else {}) | {
        "kind": row.plural, "uid": metadata["uid"]}
    return await json_object(request, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                                       "details": details}, 200, representation.media_type)


def place(row: Resource, obj: JSON, namespace: str, name: str) -> None:
    """Name and namespace from the URL into the object. Raises BadRequest where the two disagree."""
    metadata = obj.setdefault("metadata", {})
    if name:
        if metadata.get("name", name) not in (name, ""):
            raise BadRequest(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
        metadata["name"] = name
    if not row.namespaced:
        if metadata.get("namespace"):
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        metadata.pop("namespace", None)
        return
    if metadata.get("namespace", namespace) not in (namespace, ""):
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace


def _schema(row: Resource) -> types.TypeSchema:
    return types.find(row.type_name)
