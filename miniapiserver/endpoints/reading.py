"""get and list: the HTTP side.

My job: a reading request → bytes the watch cache already has (apiserver `handlers/get.go`). Only transformed views
and converted versions are decoded. `endpoints.dispatch` calls me.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

from miniapiserver.apiserver import APIServer
from miniapiserver.endpoints import views
from miniapiserver.endpoints.answers import answer, representation_of
from miniapiserver.endpoints.listoptions import BadResourceVersion, ListOptions, parse, parse_unsigned
from miniapiserver.endpoints.negotiation import View
from miniapiserver.endpoints.responses import json_bytes
from miniapiserver.errors import BadRequest, Expired, Timeout, quote
from miniapiserver.registry.store import Store
from miniapiserver.request import Request
from miniapiserver.requestinfo import RequestInfo
from miniapiserver.resources.resource import Resource
from miniapiserver.selectors import parse_field_selector, parse_label_selector, predicate
from miniapiserver.storage.interface import Compacted, FutureRevision
from miniapiserver.watchcache import NOW, Cached, Page, Predicate, decode_continue, encode_continue, items_json

JSON = dict[str, Any]

TOO_OLD = "The resourceVersion for the provided list is too old."
CONTINUE_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list.")


async def get(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    representation = representation_of(request)
    views.require_shape(row, representation, is_list=False)
    info, store = request.info, server.registry.store(row)
    if server.config.etcd_servers:  # others write too: be as new as the store
        await store.cache.fresh()
    await _as_new_as(store, request.query.get("resourceVersion", ""))
    cached = store.get(info.namespace, info.name)
    return await answer(server, request, row, store.shown(cached.data), representation, 200)


async def _as_new_as(store: Store, resource_version: str) -> None:
    """A get may say how new its answer must at least be. Raises BadResourceVersion, Timeout."""
    if resource_version in ("", "0"):
        return
    revision, problem = parse_unsigned(resource_version)
    if problem:
        raise BadResourceVersion(f"resourceVersion: Invalid value: {quote(resource_version)}: {problem}")
    try:
        await store.cache.wait_until(revision)
    except FutureRevision as error:
        raise too_large(error) from None


def selection(row: Resource, options: ListOptions) -> Predicate | None:
    """What the selectors ask for; None when nothing. Raises BadRequest."""
    if not options.label_selector and not options.field_selector:
        return None
    return predicate(parse_label_selector(options.label_selector),
                     parse_field_selector(options.field_selector, row.field_names))


def matching(store: Store, info: RequestInfo, options: ListOptions) -> Sequence[Cached]:
    """Everything now that a deletecollection means."""
    return store.cache.list(info.namespace or None, selection(store.row, options)).items


async def list_(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    representation = representation_of(request)
    views.require_shape(row, representation, is_list=True)
    options = parse(request.query, watching=False)
    include = views.include_object(request.query) if representation.view is View.TABLE else ""
    store = server.registry.store(row)
    page = await _page(server, store, request.info, options)
    metadata = _list_metadata(store, page)
    if representation.view is not View.OBJECT:
        items = [store.parse(item.data) for item in page.items]
        body = views.transform_list(row, items, metadata, representation, include, server.clock.seconds())
        return await json_bytes(request, orjson.dumps(body), 200, representation.media_type)
    if row.conversion is None:
        items_bytes = items_json(page.items)
    else:
        items_bytes = b",".join(b"{" + data[data.index(b'"metadata":{'):]
                                for data in (store.shown(item.data) for item in page.items))
    data = (b'{"kind":"%sList","apiVersion":"%s","metadata":%s,"items":[%s]}'
            % (row.kind.encode(), row.api_version.encode(), orjson.dumps(metadata), items_bytes))
    return await json_bytes(request, data, 200, representation.media_type)


def _list_metadata(store: Store, page: Page) -> JSON:
    metadata: JSON = {"resourceVersion": str(page.revision)}
    if page.next_key:
        metadata["continue"] = encode_continue(page.revision, page.next_key, store.cache.prefix)
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
    return metadata


async def _page(server: APIServer, store: Store, info: RequestInfo, options: ListOptions) -> Page:
    """The asked part of the list, at the asked state. Raises BadRequest, Expired, Timeout."""
    cache, namespace, selects = store.cache, info.namespace or None, selection(store.row, options)
    if options.continue_token:
        return await _continued(store, namespace, selects, options)
    revision = options.revision
    if options.resource_version == "0":  # any state will do, and the whole of it
        return cache.list(namespace, selects)
    if not options.resource_version and server.config.etcd_servers:
        await cache.fresh()
    try:
        exact = options.resource_version_match == "Exact" or (
            revision > 0 and options.limit > 0 and options.resource_version_match != "NotOlderThan")
        if exact:
            return await cache.list_at(revision, namespace, selects, limit=options.limit)
        await cache.wait_until(revision)
    except Compacted:
        raise Expired(TOO_OLD) from None
    except FutureRevision as error:
        raise too_large(error) from None
    return cache.list(namespace, selects, limit=options.limit)


async def _continued(store: Store, namespace: str | None, selects: Predicate | None, options: ListOptions) -> Page:
    if options.resource_version not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")
    revision, start = decode_continue(options.continue_token, store.cache.prefix)
    if revision == NOW:
        return store.cache.list(namespace, selects, limit=options.limit, start=start)
    try:
        return await store.cache.list_at(revision, namespace, selects, limit=options.limit, start=start)
    except Compacted:
        token = encode_continue(NOW, start, store.cache.prefix)
        raise Expired(CONTINUE_TOO_OLD, metadata={"continue": token}) from None
    except FutureRevision as error:
        raise too_large(error) from None


def too_large(error: FutureRevision) -> Timeout:
    return Timeout(f"Timeout: Too large resource version: {error.asked}, current: {error.current}", retry_after=1,
                   details={"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]})
