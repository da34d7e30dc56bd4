"""Forwarding an upgrade: ask the backend, and only if it says 101 join the two connections.

My job: the splice of apimachinery's `proxy/upgradeaware.go`, and which headers may travel. I decide no Location.
Rules: nothing is joined before a real 101 (CVE-2018-1002105); a redirect is never followed nor shown to the client
(CVE-2018-1002102, CVE-2020-8559); no credential and no identity of the client ever leaves the API server.
"""

import logging

from aiohttp import web
from multidict import CIMultiDict

from miniapiserver.endpoints.noderequest import NodeRequest
from miniapiserver.errors import PlainInternal
from miniapiserver.kubelet import Target
from wire.errors import UpgradeRefused, WireError
from wire.protocol.http1 import Head
from wire.relay import relay
from wire.stream import Stream
from wire.upgrade import TakenOver, refusal, request_upgrade, take_over

log = logging.getLogger("apiserver.upgrade")

IDENTITY_PREFIXES = ("x-remote-", "impersonate-")
CREDENTIALS = frozenset({"authorization"})
BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
HOP_BY_HOP = frozenset({
    "connection", "proxy-connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip


async def splice(request: web.BaseRequest, info: NodeRequest, target: Target, path: str) -> web.StreamResponse:
    """Forward the request to `path` at the target and join the connections. Raises PlainInternal."""
    try:
        backend = await info.connect(target)
    except (WireError, OSError) as error:
        raise PlainInternal(f"error dialing backend: {error}") from error
    try:
        return await _forward(request, info, backend, path)
    finally:
        backend.abort()


async def _forward(request: web.BaseRequest, info: NodeRequest, backend: Stream, path: str) -> web.StreamResponse:
    headers = forwarded_headers(request, for_upgrade=True)
    host = request.headers.get("Host", "")
    try:
        status, head, backend = await request_upgrade(backend, request.method, path, headers, host=host)
    except WireError as error:
        raise PlainInternal(f"error dialing backend: {error}") from error
    if status >= 400:
        return refused_response(await refusal(request.method, head, backend))
    if status != 101 or not _matches(request, head):
        raise PlainInternal(f"invalid upgrade response: status code {status}")
    client = await take_over(request, raw_head(head))
    try:
        result = await relay(client, backend, half_close=False)
    finally:
        client.abort()
    log.debug("splice.end %s %s/%s %s in=%d out=%d error=%s", info.resource, info.namespace, info.name,
              info.subresource, result.a_to_b, result.b_to_a, result.error)  # fmt: skip
    return TakenOver()


def _matches(request: web.BaseRequest, head: Head) -> bool:
    asked = {name.strip().lower() for value in request.headers.getall("Upgrade", ()) for name in value.split(",")}
    return head.get("upgrade").strip().lower() in asked


def raw_head(head: Head) -> bytes:
    lines = [f"HTTP/1.1 {head.status} {head.reason}".rstrip(), *(f"{name}: {value}" for name, value in head.headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def refused_response(refused: UpgradeRefused) -> web.Response:
    """The backend's refusal for the client, once, and then the end of the connection."""
    kept = CIMultiDict(
        (name, value) for name, value in refused.headers
        if name not in HOP_BY_HOP and name not in ("content-length", "location")
    )  # fmt: skip
    response = web.Response(status=refused.status, body=refused.body, headers=kept)
    response.force_close()
    return response


def forwarded_headers(request: web.BaseRequest, *, for_upgrade: bool) -> list[tuple[str, str]]:
    """The client's headers as a backend may see them: no Host, no length, no credential, no identity."""
    named = {part.strip().lower() for value in request.headers.getall("Connection", ()) for part in value.split(",")}
    dropped = CREDENTIALS | {"host", "content-length", "x-forwarded-for"}
    if not for_upgrade:
        dropped |= HOP_BY_HOP | named
    headers = []
    for name, value in request.headers.items():
        low = name.lower()
        if low in dropped or low.startswith(IDENTITY_PREFIXES):
            continue
        if low == "sec-websocket-protocol":
            value = _without_bearer(value)
            if not value:
                continue
        headers.append((name, value))
    return [*headers, ("X-Forwarded-For", _forwarded_for(request))]


def _without_bearer(value: str) -> str:
    names = [name.strip() for name in value.split(",")]
    return ", ".join(name for name in names if name and not name.startswith(BEARER_PROTOCOL))


def _forwarded_for(request: web.BaseRequest) -> str:
    known = request.headers.getall("X-Forwarded-For", [])
    return ", ".join([*known, request.remote or ""])
