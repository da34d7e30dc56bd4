"""nodes|pods|services/proxy: HTTP to what runs in the cluster, through the API server.

My job: find the target (by `location`), forward the request, rewrite what would lead a browser astray
(apimachinery `proxy/upgradeaware.go`, `transport.go`). Upgrades go to `upgradeaware`.
Rules: the address is checked before any shortcut and the checked address is dialed (CVE-2022-3294, CVE-2020-8562);
redirects are rewritten, never followed; the client's credentials stay here.
"""

import asyncio
import contextlib
import zlib
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from aiohttp import web
from multidict import CIMultiDict

from miniapiserver.endpoints.htmlrewrite import rewrite_page
from miniapiserver.endpoints.noderequest import NodeRequest
from miniapiserver.endpoints.upgradeaware import HOP_BY_HOP, forwarded_headers, splice
from miniapiserver.errors import BadRequest, MethodNotAllowed, NotFound, ServiceUnavailable
from miniapiserver.kubelet import Target, Trust
from miniapiserver.location import (
    backs,
    default_port,
    pod_target,
    proxied_path,
    proxy_id,
    service_candidates,
    service_port_name,
)
from wire.errors import ConnectionLost, PeerProtocolError, WireError
from wire.httpclient import Answer, request_head
from wire.protocol.http1 import MAX_HEAD, BodyReader, Head, framing, parse_head
from wire.stream import Stream
from wire.upgrade import is_upgrade

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MAX_PAGE = 8 * 1024 * 1024  # an HTML page is held in memory to be rewritten; a bigger one passes as it is
CORS = frozenset({
    "access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods",
    "access-control-allow-origin",
})  # fmt: skip


async def handle(request: web.BaseRequest, info: NodeRequest) -> web.StreamResponse:
    """Raises the errors of upstream in upstream's words."""
    if request.method not in METHODS:
        raise MethodNotAllowed("the server does not allow this method on the requested resource", details={})
    target = await TARGETS[info.resource](info)
    path = proxied_path(info.tail)
    query = f"?{info.raw_query}" if info.raw_query else ""
    if is_upgrade(request.headers):
        # Upstream loses the query here up to 1.36; what its open fix (PR 139292) does is what clients need.
        return await splice(request, info, target, (path or "/") + query)
    if not path and request.method in ("GET", "HEAD"):
        where = request.raw_path.partition("?")[0] + "/" + query
        return web.Response(status=301, headers=dict(info.headers) | {"Location": where})
    return await _forward(request, info, target, path, query)


# Where to


async def _node(info: NodeRequest) -> Target:
    asked = proxy_id(info.name, "node")
    node = await info.objects.get_node(asked.name)
    kubelet = info.path.connection_info(node)
    # Before the shortcut for the kubelet's own port, for every port (CVE-2022-3294).
    try:
        address = await info.path.resolve_checked(kubelet.host)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    port = _port(asked.port or str(kubelet.port))
    if port == kubelet.port:
        return Target(kubelet.host, port, Trust.KUBELET, "nodes/proxy", address)
    trust = Trust.ANYBODY if asked.scheme == "https" else Trust.PLAIN
    return Target(kubelet.host, port, trust, "nodes/proxy", address)


async def _pod(info: NodeRequest) -> Target:
    asked = proxy_id(info.name, "pod")
    pod = await info.objects.get_pod(info.namespace, asked.name)
    host, port = pod_target(pod, asked, info.path.allowed.permits)
    trust = Trust.ANYBODY if asked.scheme == "https" else Trust.PLAIN
    return Target(host, _port(port) if port else default_port(asked.scheme), trust, "pods/proxy", host)


async def _service(info: NodeRequest) -> Target:
    asked = proxy_id(info.name, "service")
    service = await info.objects.get_service(info.namespace, asked.name)
    port_name = service_port_name(service, asked.port)
    try:
        endpoints = await info.objects.get_endpoints(info.namespace, asked.name)
    except NotFound:
        # A service with a selector has endpoints as soon as their controller has seen it: none are available yet.
        if not (service.get("spec") or {}).get("selector"):
            raise
        raise ServiceUnavailable(f'no endpoints available for service "{asked.name}"') from None
    for candidate in service_candidates(endpoints, info.namespace, port_name):
        try:
            pod = await info.objects.get_pod(info.namespace, candidate.pod)
        except NotFound:
            continue
        # The pod must really have that address, and it must be one that may be dialed (CVE-2021-25740).
        if backs(pod, candidate.ip) and info.path.allowed.permits(candidate.ip):
            trust = Trust.ANYBODY if asked.scheme == "https" else Trust.PLAIN
            return Target(candidate.ip, candidate.port, trust, "services/proxy", candidate.ip)
    raise ServiceUnavailable(f'no endpoints available for service "{info.name}"')


TARGETS = {"nodes": _node, "pods": _pod, "services": _service}


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise ServiceUnavailable(f'error trying to reach service: dial tcp: lookup tcp/{text}: unknown port')


# There


@dataclass(frozen=True, slots=True)
class Proxied:
    """One forwarded exchange: what rewriting needs to know."""

    prefix: str  # our path up to and without the proxied path
    backend: str  # host:port
    host: str  # the client's Host header


async def _forward(
    request: web.BaseRequest, info: NodeRequest, target: Target, path: str, query: str
) -> web.StreamResponse:
    own_path = request.raw_path.partition("?")[0]
    prefix = own_path.removesuffix(info.tail) if info.tail else own_path
    backend = f"{target.host}:{target.port}"
    proxied = Proxied(prefix.rstrip("/"), backend, request.headers.get("Host", ""))
    headers = forwarded_headers(request, for_upgrade=False)
    headers.append(("X-Forwarded-Uri", proxied.prefix + path))
    if not any(name.lower() == "user-agent" for name, _ in headers):
        headers.append(("User-Agent", ""))
    try:
        stream = await info.connect(target)
    except (WireError, OSError) as error:
        raise _unreachable(error) from error
    head, is_chunked = _request_bytes(request, (path or "/") + query, headers, proxied.host)
    stream.write(head)
    # Beside the answer: a backend may answer before it has the whole body, or never want it.
    sender = asyncio.create_task(_send_body(request, stream, is_chunked), name="proxy body")
    try:
        answer = await _answer(request.method, stream)
        return await _respond(request, info, answer, proxied)
    finally:
        sender.cancel()
        # Before any await: a second cancellation must not leave the connection open.
        stream.close_soon()
        await asyncio.wait((sender,))


def _unreachable(error: Exception) -> ServiceUnavailable:
    return ServiceUnavailable(f"error trying to reach service: {error}")


async def _answer(method: str, stream: Stream) -> Answer:
    """The backend's answer, head read. Raises ServiceUnavailable."""
    try:
        while True:
            head = parse_head(await stream.read_until(b"\r\n\r\n", MAX_HEAD))
            if head.status >= 200:
                break
            if head.status == 101:
                raise PeerProtocolError("101 without a request to upgrade")
        kind, length = framing(method, head)
    except WireError as error:
        raise _unreachable(error) from error
    return Answer(head, stream, BodyReader(kind, length), lambda used: used.close())


def _request_bytes(
    request: web.BaseRequest, target: str, headers: list[tuple[str, str]], host: str
) -> tuple[bytes, bool]:
    length = request.headers.get("Content-Length")
    is_chunked = length is None and request.can_read_body
    if is_chunked:
        headers = [*headers, ("Transfer-Encoding", "chunked")]
    elif length is not None:
        headers = [*headers, ("Content-Length", length)]
    head = request_head("GET", target, host, [*headers, ("Connection", "close")])
    return request.method.encode("ascii") + head.removeprefix(b"GET"), is_chunked


async def _send_body(request: web.BaseRequest, stream: Stream, is_chunked: bool) -> None:
    if not request.can_read_body:
        return
    # The backend's own word is read in the answer; a body that can not be sent is no error of ours.
    with contextlib.suppress(ConnectionLost, ConnectionError):
        async for data in request.content.iter_any():
            stream.write(b"%x\r\n%b\r\n" % (len(data), data) if is_chunked else data)
            await stream.drain()
        if is_chunked:
            stream.write(b"0\r\n\r\n")


# And back


async def _respond(
    request: web.BaseRequest, info: NodeRequest, answer: Answer, proxied: Proxied
) -> web.StreamResponse:
    head = answer.head
    headers = response_headers(head, info, proxied)
    if _is_page(head):
        try:
            page = await answer.read(MAX_PAGE + 1)
        except WireError as error:
            raise _unreachable(error) from error
        if len(page) <= MAX_PAGE:
            headers.popall("Content-Length", None)
            return web.Response(status=head.status, reason=head.reason, headers=headers,
                                body=rewritten(page, head, proxied))  # fmt: skip
        raise ServiceUnavailable(f"error trying to reach service: a page of more than {MAX_PAGE} bytes")
    response = web.StreamResponse(status=head.status, reason=head.reason, headers=headers)
    if "Content-Length" not in headers and request.version >= (1, 1) and head.status not in (204, 304):
        response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        while data := await answer.chunk():
            await response.write(data)
    except (ConnectionLost, PeerProtocolError):
        # Half an answer must not look like a whole one.
        if request.transport is not None:
            request.transport.abort()
    return response


def response_headers(head: Head, info: NodeRequest, proxied: Proxied) -> CIMultiDict[str]:
    """The backend's headers as the client may see them, behind our own. Raises nothing."""
    named = {part.strip().lower() for value in head.all("connection") for part in value.split(",")}
    headers = CIMultiDict(info.headers)
    for name, value in head.headers:
        if name in HOP_BY_HOP or name in named or name in CORS:
            continue
        title = "-".join(part.capitalize() for part in name.split("-"))
        headers.add(title, rewritten_location(value, proxied) if name == "location" else value)
    return headers


def rewritten_location(url: str, proxied: Proxied) -> str:
    """A URL of the backend as a URL below our prefix. Relative and foreign URLs stay as they are."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if not parts.path.startswith("/") or parts.netloc not in ("", proxied.backend, proxied.host):
        return url
    path = parts.path
    if path != proxied.prefix and not path.startswith(proxied.prefix + "/"):
        path = proxied.prefix + path
    is_own_host = parts.netloc == proxied.host and parts.netloc not in ("", proxied.backend)
    scheme, netloc = (parts.scheme, parts.netloc) if is_own_host else ("", "")
    return urlunsplit((scheme, netloc, path, parts.query, parts.fragment))


def _is_page(head: Head) -> bool:
    return (
        head.get("content-type").split(";")[0].strip().lower() == "text/html"
        and not head.get("location")
        and head.get("content-encoding").lower() in ("", "identity", "gzip", "deflate")
        and head.status not in (204, 304)
        and not (head.get("content-length").isdigit() and int(head.get("content-length")) > MAX_PAGE)
    )


def rewritten(page: bytes, head: Head, proxied: Proxied) -> bytes:
    """The page with its URLs below our prefix, in the encoding it came in."""
    wbits = {"gzip": 31, "deflate": -15}.get(head.get("content-encoding").lower())
    if wbits is not None:
        try:
            unpacker = zlib.decompressobj(wbits)
            plain = unpacker.decompress(page, MAX_PAGE)
        except zlib.error:
            return page
        if unpacker.unconsumed_tail:
            return page  # A bomb, or just big: nobody's URLs are worth that memory.
    else:
        plain = page
    # Every byte survives latin-1, whatever the page's charset is; URLs in attributes are ASCII.
    text = rewrite_page(plain.decode("latin-1"), lambda url: rewritten_location(url, proxied))
    changed = text.encode("latin-1", "xmlcharrefreplace")
    if wbits is None:
        return changed
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(changed) + packer.flush()
