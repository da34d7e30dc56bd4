"""GET pods/log: a container's log, out of the kubelet and on to the client as it comes.

My job: the order of checks, the mapping of the kubelet's answers (client-go `rest.NewGenericServerResponse`), and the
copy. Plain HTTP, or WebSocket messages for old dashboards. Rule: a log that breaks off breaks the client's connection
too; it never ends like a whole one.
"""

import asyncio
import base64
import contextlib
import logging

from aiohttp import web

from miniapiserver.endpoints.negotiation import MEDIA_TYPES, negotiate
from miniapiserver.endpoints.noderequest import NodeRequest
from miniapiserver.errors import APIError, NotAcceptable, PlainInternal
from miniapiserver.kubelet import ConnectionInfo
from miniapiserver.location import LogOptions, container_of, log_options, log_path
from wire.errors import ConnectionLost, PeerProtocolError, WireError
from wire.httpclient import Answer
from wire.net import join_host_port
from wire.upgrade import TakenOver, is_websocket
from wire.websocket_session import (
    WebSocket,
    accept_websocket,
    closing_response,
    handshake_refusal,
    offered_protocols,
)

log = logging.getLogger("apiserver.logs")

MAX_ERROR = 50_000
#: Seconds until the head of the kubelet's answer. On a connection that was kept nothing else tells that the kubelet
#: stands still; upstream finds out by HTTP/2 pings (30 s idle, 15 s for the answer).
HEAD_TIMEOUT = 45.0
MESSAGE = 16 * 1024
#: WebSocket subprotocol → whether messages are base64 text.
WEBSOCKET_PROTOCOLS = {"": False, "binary.k8s.io": False, "base64.binary.k8s.io": True}


async def handle(request: web.BaseRequest, info: NodeRequest) -> web.StreamResponse:
    """Raises the errors of upstream in upstream's order."""
    _check_accept(request)
    options = log_options(info.name, info.query)
    pod = await info.objects.get_pod(info.namespace, info.name)
    container = container_of(pod, options.container)
    node_name = (pod.get("spec") or {}).get("nodeName")
    if not node_name:
        return web.Response(status=204, headers=dict(info.headers))
    kubelet = info.path.connection_info(await info.objects.get_node(node_name))
    async with await _ask(kubelet, info, container, options) as answer:
        if is_websocket(request.headers):
            return await _over_websocket(request, answer)
        return await _over_http(request, info, answer)


def _check_accept(request: web.BaseRequest) -> None:
    accept = request.headers.get("Accept", "")
    if is_websocket(request.headers):
        return
    try:
        negotiate(accept, transformable=False)
    except NotAcceptable:
        # Upstream negotiates logs against its serializers, although the answer is plain text.
        raise NotAcceptable(f"only the following media types are accepted: {', '.join(MEDIA_TYPES)}") from None


async def _ask(kubelet: ConnectionInfo, info: NodeRequest, container: str, options: LogOptions) -> Answer:
    """The kubelet's 2xx answer. Raises what its refusal means."""
    query = options.query()
    target = log_path(info.namespace, info.name, container) + (f"?{query}" if query else "")
    client = info.path.kubelet_client(kubelet, insecure=options.insecure, purpose="pods/log")
    url = f"https://{join_host_port(kubelet.host, kubelet.port)}{target}"
    try:
        answer = await client.request("GET", target, [("User-Agent", "kube-apiserver")], timeout=HEAD_TIMEOUT)
        info.note(answer.stream)
        if 200 <= answer.status <= 206:
            return answer
        async with answer:
            body = await answer.read(MAX_ERROR)
    except TimeoutError as error:
        raise PlainInternal(f'Get "{url}": timeout awaiting response headers') from error
    except (WireError, OSError) as error:
        raise PlainInternal(f'Get "{url}": {error}') from error
    if 300 <= answer.status < 400:
        # Never followed: a node could send us anywhere (CVE-2018-1002102).
        raise PlainInternal(f'Get "{url}": redirects forbidden')
    raise kubelet_error(answer.status, body.decode("utf-8", "replace"), info.name)


async def _over_http(request: web.BaseRequest, info: NodeRequest, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(headers=dict(info.headers) | {"Content-Type": "text/plain"})
    if request.version >= (1, 1):
        response.enable_chunked_encoding()
    # Headers go out before the first byte of a log that may say nothing for hours.
    await response.prepare(request)
    try:
        while data := await answer.chunk():
            await response.write(data)
    except (ConnectionLost, PeerProtocolError) as error:
        log.info('log.broken namespace=%s pod=%s error="%s"', info.namespace, info.name, error)
        if request.transport is not None:
            request.transport.abort()
    return response


async def _over_websocket(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    if (wrong := handshake_refusal(request)) is not None:
        return wrong
    offered = offered_protocols(request)
    chosen = next((name for name in offered if name in WEBSOCKET_PROTOCOLS), None if offered else "")
    if chosen is None:
        return closing_response(403)
    socket = await accept_websocket(request, chosen)
    reader = asyncio.create_task(_until_left(socket), name="log client")
    writer = asyncio.create_task(_send(socket, answer, WEBSOCKET_PROTOCOLS[chosen]), name="log messages")
    try:
        await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        if writer.done() and writer.result():
            with contextlib.suppress(WireError):
                await socket.aclose()
    finally:
        for task in (reader, writer):
            task.cancel()
        socket.stream.abort()
        await asyncio.wait((reader, writer))
    return TakenOver()


async def _send(socket: WebSocket, answer: Answer, is_base64: bool) -> bool:
    """Whether the whole log went out."""
    try:
        socket.send(b"", is_text=is_base64)
        while data := await answer.chunk():
            for start in range(0, len(data), MESSAGE):
                piece = data[start : start + MESSAGE]
                socket.send(base64.b64encode(piece) if is_base64 else piece, is_text=is_base64)
            await socket.drain()
    except WireError:
        return False
    return True


async def _until_left(socket: WebSocket) -> None:
    with contextlib.suppress(WireError):
        while await socket.receive() is not None:
            pass


# The kubelet's refusals

_GENERIC = {
    401: ("Unauthorized", "the server has asked for the client to provide credentials"),
    403: ("Forbidden", ""),
    404: ("NotFound", "the server could not find the requested resource"),
    405: ("MethodNotAllowed", "the server does not allow this method on the requested resource"),
    409: ("Conflict", "the server reported a conflict"),
    415: ("UnsupportedMediaType", "the server was unable to respond with a content type that the client supports"),
    422: ("Invalid", "the server rejected our request due to an error in our request"),
    429: ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "the server was unable to return a response in the time allotted, but may still be processing"
                     " the request"),
}  # fmt: skip


def kubelet_error(code: int, body: str, pod: str) -> APIError:
    """What a kubelet's refusal of a log becomes. The empty verb in the text is upstream's."""
    if code == 400:
        return coded(400, "BadRequest", body)
    if code == 500:
        return coded(500, "InternalError", f"Internal error occurred: {body}")
    reason, text = _GENERIC.get(code, ("", "unknown"))
    if code == 403:
        text = body
    elif code >= 500 and code not in _GENERIC:
        reason, text = "InternalError", f'an error on the server ("{body}") has prevented the request from succeeding'
    return coded(code, reason, f"{text} ( pods/log {pod})")


def coded(status_code: int, status_reason: str, message: str) -> APIError:
    """An error with a code that no class stands for: the backend chose it."""

    class BackendError(APIError):
        code = status_code
        reason = status_reason

    return BackendError(message)
