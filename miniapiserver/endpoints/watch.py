"""watch: the HTTP side.

My job: a watch request → a long response of one JSON line per event (apiserver `handlers/watch.go`), or one WebSocket
text frame per event. The lines come ready-made from the watch cache; only Table, PartialObjectMetadata and converted
versions are rendered here, once for all watchers that ask for the same form. `endpoints.dispatch` calls me.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

import orjson
from aiohttp import web

from miniapiserver.apiserver import APIServer
from miniapiserver.endpoints import views
from miniapiserver.endpoints.answers import representation_of
from miniapiserver.endpoints.listoptions import BadResourceVersion, ListOptions, parse, parse_unsigned
from miniapiserver.endpoints.negotiation import JSON, PROTOBUF, YAML, Representation, View
from miniapiserver.endpoints.reading import selection
from miniapiserver.endpoints.responses import headers
from miniapiserver.errors import APIError, Expired, NotAcceptable, ServiceUnavailable, quote
from miniapiserver.registry.store import Store
from miniapiserver.request import Request
from miniapiserver.resources.resource import Resource
from miniapiserver.schema import protobuf
from miniapiserver.storage.interface import Compacted, FutureRevision, StorageUnavailable
from miniapiserver.watchcache import Watch, WatchEvent, WatchEventType, frame
from wire.errors import WireError
from wire.upgrade import TakenOver, is_websocket
from wire.websocket_session import WebSocket, accept_websocket, handshake_refusal, offered_protocols

#: Upstream's --min-request-timeout: a watch lives once to twice this long.
MIN_TIMEOUT = 1800

log = logging.getLogger("apiserver.watch")

PROTOBUF_STREAM = f"{PROTOBUF};stream=watch"

Render = Callable[[WatchEvent], bytes]


async def watch(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    representation = representation_of(request)
    if representation.media_type == YAML:
        raise NotAcceptable(f"only the following media types are accepted: {JSON}, {PROTOBUF}", details={})
    options = parse(request.query, watching=True)
    store = server.registry.store(row)
    revision = _revision(options)
    timeout = options.timeout or random.randint(MIN_TIMEOUT, 2 * MIN_TIMEOUT)
    name = _single_name(request) or None
    try:
        if not revision:
            await store.cache.fresh()
            if options.send_initial_events is False:  # said, not left out: only what happens from now on
                revision = store.cache.revision
        watching = await store.cache.watch(
            request.info.namespace if row.namespaced and request.info.namespace else None, name,
            selection(row, options), after_revision=revision,
            send_initial=bool(options.send_initial_events), bookmarks=options.bookmarks, timeout=timeout)
    except Compacted as error:
        gone = Expired(f"too old resource version: {revision} ({error.oldest})")
        return await _send_error(request, gone)
    except (StorageUnavailable, FutureRevision) as error:
        raise ServiceUnavailable(f"storage: {error}") from error
    async with watching:
        if representation.view is View.PARTIAL_LIST:
            return await _until_an_event(request, watching)
        render = _renderer(server, request, store, representation)
        if is_websocket(request.http.headers):
            return await _over_websocket(request, watching, render)
        if representation.media_type == PROTOBUF:
            return await _stream(request, watching, _ProtobufRenderer(render), PROTOBUF_STREAM)
        return await _stream(request, watching, render, JSON)


def _revision(options: ListOptions) -> int:
    text = options.resource_version
    revision, problem = parse_unsigned(text or "0")
    if problem:
        raise BadResourceVersion(f"resourceVersion: Invalid value: {quote(text)}: {problem}")
    return 0 if options.send_initial_events else revision


def _single_name(request: Request) -> str:
    """`fieldSelector=metadata.name=x`, exactly: then the cache needs to look at one object only."""
    info = request.info
    return info.name if info.name and info.field_selector in ("", f"metadata.name={info.name}") else ""


async def _begun(request: Request, content_type: str) -> web.StreamResponse:
    response = web.StreamResponse(status=200, headers=headers(request, content_type))
    response.enable_chunked_encoding()
    await response.prepare(request.http)
    return response


async def _stream(request: Request, watching: Watch, render: Render | None, content_type: str) -> web.StreamResponse:
    response = await _begun(request, content_type)
    while events := await watching.batch():
        if render is None:
            await response.write(b"".join([event.data for event in events]))
        else:
            await response.write(b"".join([render(event) for event in events]))
    await response.write_eof()
    return response


async def _until_an_event(request: Request, watching: Watch) -> web.StreamResponse:
    """Of what is no list no PartialObjectMetadataList can be made: upstream (`handlers/watch.go`) accepts such a watch
    and ends it at its first event, without a word to the client."""
    response = await _begun(request, JSON)
    await watching.batch()
    log.warning("watch.unrenderable path=%s reason='PartialObjectMetadataList is asked of an event'", request.http.path)
    await response.write_eof()
    return response


async def _over_websocket(request: Request, watching: Watch, render: Render | None) -> web.StreamResponse:
    """One text message per event, until the watch ends or the client leaves (`handlers/watch.go HandleWS`)."""
    if (wrong := handshake_refusal(request.http)) is not None:
        return wrong
    offered = offered_protocols(request.http)
    socket = await accept_websocket(request.http, offered[0] if offered else "")
    sender = asyncio.create_task(_send_messages(socket, watching, render), name="watch messages")
    reader = asyncio.create_task(_until_left(socket), name="watch client")
    try:
        await asyncio.wait((sender, reader), return_when=asyncio.FIRST_COMPLETED)
        if not reader.done():
            with contextlib.suppress(WireError):
                await socket.aclose()
    finally:
        for task in (sender, reader):
            task.cancel()
        socket.stream.abort()
        await asyncio.wait((sender, reader))
    return TakenOver()


async def _send_messages(socket: WebSocket, watching: Watch, render: Render | None) -> None:
    with contextlib.suppress(WireError):
        while events := await watching.batch():
            for event in events:
                socket.send((event.data if render is None else render(event)).rstrip(b"\n"), is_text=True)
            await socket.drain()


async def _until_left(socket: WebSocket) -> None:
    """A watcher has nothing to say: whatever it sends is read and dropped."""
    with contextlib.suppress(WireError):
        while await socket.receive() is not None:
            pass


async def _send_error(request: Request, error: APIError) -> web.StreamResponse:
    """200 with one ERROR event: what clients of a watch understand."""
    line = b'{"type":"ERROR","object":%b}\n' % orjson.dumps(error.status())
    return web.Response(body=line, status=200, headers=headers(request, JSON))


def _renderer(server: APIServer, request: Request, store: Store, representation: Representation) -> Render | None:
    """How events become lines; None when the cache's own lines are right."""
    if representation.view is View.TABLE:
        return _TableRenderer(server, store, representation.version, views.include_object(request.query))
    if representation.view is View.PARTIAL:
        version = representation.version
        return lambda event: event.form(("partial", version, store.row.version),
                                        lambda e: _partial_line(store, e, version))
    if store.row.conversion is not None:
        return lambda event: event.form(("converted", store.row.group, store.row.version),
                                        lambda e: _converted_line(store, e))
    return None


def _partial_line(store: Store, event: WatchEvent, version: str) -> bytes:
    if event.cached is None:
        bookmark = orjson.loads(event.data)["object"]
        return frame(event.type, orjson.dumps(views.partial(bookmark, version)))
    return frame(event.type, orjson.dumps(views.partial(store.parse(event.cached.data), version)))


def _converted_line(store: Store, event: WatchEvent) -> bytes:
    if event.cached is None:
        bookmark = orjson.loads(event.data)["object"]
        return frame(event.type, orjson.dumps(bookmark | {"kind": store.row.kind, "apiVersion": store.row.api_version}))
    return frame(event.type, store.shown(event.cached.data))


class _ProtobufRenderer:
    """Length-prefixed WatchEvents for the rare client that takes nothing but protobuf."""

    def __init__(self, render: Render | None) -> None:
        self._render = render

    def __call__(self, event: WatchEvent) -> bytes:
        line = orjson.loads(event.data if self._render is None else self._render(event))
        return protobuf.encode_watch_event(line["type"], line["object"])


class _TableRenderer:
    """Each event is a Table of one row; the column definitions come with the first only. Lives for one watch."""

    def __init__(self, server: APIServer, store: Store, version: str, include: str) -> None:
        self._server, self._store, self._version, self._include = server, store, version, include
        self._first = True

    def __call__(self, event: WatchEvent) -> bytes:
        if event.type is WatchEventType.BOOKMARK or event.cached is None:
            metadata = orjson.loads(event.data)["object"]["metadata"]
            return frame(event.type, orjson.dumps(views.table(
                self._store.row, [], metadata, self._version, self._include, 0.0, columns=False)))
        first, self._first = self._first, False
        obj = self._store.parse(event.cached.data)
        metadata = {"resourceVersion": str(event.revision)}
        body = views.table(self._store.row, [obj], metadata, self._version, self._include,
                           self._server.clock.seconds(), columns=first)
        return frame(event.type, orjson.dumps(body))
