"""What hangs below an object: status, scale, binding, eviction, token, streams and proxies.

My job: the table of subresources and the small ones among them. Parts of the object itself (`/status`, `/approval`,
`/finalize`, `/ephemeralcontainers`, `/resize`) go through `writing` with the subresource's name; streams go to
`nodestreams`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from miniapiserver import managedfields
from miniapiserver.admission.interface import Operation
from miniapiserver.apiserver import APIServer
from miniapiserver.endpoints import body, patches, reading, writing
from miniapiserver.endpoints.answers import representation_of
from miniapiserver.endpoints.nodestreams import NodeStreams
from miniapiserver.endpoints.responses import json_object
from miniapiserver.endpoints.reviews import Reviews
from miniapiserver.errors import BadRequest, Conflict, Invalid, MethodNotAllowed, NotFound
from miniapiserver.registry import update
from miniapiserver.registry.eviction import evict
from miniapiserver.registry.options import write_options
from miniapiserver.request import Request
from miniapiserver.resources import scale
from miniapiserver.resources.pods import binding
from miniapiserver.resources.resource import Resource
from miniapiserver.schema import types

JSON = dict[str, Any]

Endpoint = Callable[[APIServer, Request, Resource], Awaitable[web.StreamResponse]]

STREAMS = frozenset({"log", "exec", "attach", "portforward", "proxy"})
CREATED = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

#: A subresource that is a part of the object: the verb decides.
OWN_PART: dict[str, Endpoint] = {"get": reading.get, "update": writing.replace, "patch": writing.patch}


class Subresources:
    """Lives as long as the server."""

    def __init__(self, server: APIServer, streams: NodeStreams, reviews: Reviews) -> None:
        self._server, self._streams, self._reviews = server, streams, reviews

    async def review(self, request: Request, row: Resource) -> web.StreamResponse:
        """Rows that are never stored: reviews, and Binding."""
        if row.plural == "bindings" and not row.group:
            return await bind(self._server, request, self._server.registry.store_of("pods").row)
        return await self._reviews.serve(request, row)

    async def serve(self, request: Request, row: Resource) -> web.StreamResponse:
        info = request.info
        known = row.subresource(info.subresource)
        if known is None:
            raise NotFound.path()
        if info.subresource in STREAMS:
            return await self._streams.serve(request, row)
        if info.verb not in known.verbs:
            raise MethodNotAllowed("the server does not allow this method on the requested resource", details={})
        endpoint = SPECIAL.get(info.subresource) or OWN_PART[info.verb]
        return await endpoint(self._server, request, row)


async def bind(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    """POST a Binding: give a pod its node (`registry/core/pod/storage`)."""
    write = write_options(request, "CreateOptions")
    asked = await body.read_object(request, "", "v1", "Binding", write)
    metadata = asked.setdefault("metadata", {})
    name = request.info.name or metadata.get("name", "")
    if problems := binding.binding_errors(asked):
        raise Invalid.fields("Binding", "", name, problems)
    store = server.registry.store(row)

    def assigned(pod: JSON) -> JSON:
        uid = pod["metadata"]["uid"]
        if metadata.get("uid", uid) not in (uid, ""):
            raise Conflict.resource("pods/binding", "", name, "Precondition failed: UID in precondition: "
                                    f"{metadata['uid']}, UID in object meta: {uid}")
        return binding.bind(pod, asked, server.clock.rfc3339())

    if write.dry_run:
        assigned(store.read(request.info.namespace, name))
    else:
        await update.replace_raw(store, request.info.namespace, name, assigned)
    return await json_object(request, CREATED, 201)


async def eviction(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    write = write_options(request, "CreateOptions")
    asked = await body.read_object(request, "policy", "v1", "Eviction", write, also="policy/v1beta1")
    name = asked.setdefault("metadata", {}).get("name") or request.info.name
    if name != request.info.name:
        raise BadRequest("name in URL does not match name in Eviction object")
    call = server.call(request, write, "eviction")
    await server.admission.validate(call.attributes(Operation.CREATE, row, asked, None,
                                                    namespace=request.info.namespace, name=name))
    await evict(server.registry, request.info.namespace, name, asked, call)
    return await json_object(request, CREATED, 201)


async def token(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    """POST a TokenRequest of a service account."""
    if server.tokens is None:
        raise NotFound.path()
    write = write_options(request, "CreateOptions")
    review = await body.read_object(request, "authentication.k8s.io", "v1", "TokenRequest", write)
    account = server.registry.store(row).read(request.info.namespace, request.info.name)
    await server.admission.validate(server.call(request, write, "token").attributes(
        Operation.CREATE, row, review, None, namespace=request.info.namespace, name=request.info.name))
    managedfields.track_update(None, review, types.find("io.k8s.api.authentication.v1.TokenRequest"),
                               api_version="authentication.k8s.io/v1", manager=write.field_manager, subresource="token",
                               now=server.clock.rfc3339())
    return await json_object(request, server.tokens.issue(account, review), 201)


async def scale_(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    """The Scale of a workload (autoscaling/v1), read from and written into the object."""
    info, store = request.info, server.registry.store(row)
    representation = representation_of(request, transformable=False)
    if info.verb == "get":
        found = scale.scale_from(store.read(info.namespace, info.name))
        return await json_object(request, found, 200, representation.media_type)
    if info.verb == "update":
        write = write_options(request, "UpdateOptions")
        asked = await body.read_object(request, "autoscaling", "v1", "Scale", write)
        writing.place(row, asked, info.namespace, info.name)
        change = update.Change(lambda old: _scaled(old, asked))
    else:
        media_type = patches.patch_kind(request, row)
        write = write_options(request, "PatchOptions", is_apply=media_type == patches.apply_type)
        raw = await body.read(request)
        apply = patches.plain_patch(media_type, raw, types.find("io.k8s.api.autoscaling.v1.Scale"))
        change = update.Change(lambda old: _scaled(old, apply(scale.scale_from(old))), follows=True)
    data = await update.update(store, types.find(row.type_name), info.namespace, info.name, change,
                               server.call(request, write, "scale"), server.registry.allocator(row))
    return await json_object(request, scale.scale_from(orjson.loads(data)), 200, representation.media_type)


def _scaled(obj: JSON, asked: JSON) -> JSON:
    """`obj` with the replicas of a Scale. Raises Invalid."""
    if problems := scale.scale_errors(asked):
        raise Invalid.fields("Scale", "autoscaling", obj["metadata"]["name"], problems)
    return scale.scale_into(obj, asked)


SPECIAL: dict[str, Endpoint] = {"binding": bind, "eviction": eviction, "token": token, "scale": scale_}

