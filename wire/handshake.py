"""Refusals of an upgrade, before a byte of the new protocol was sent.

A handshake that fails is answered in HTTP: the exception carries the answer, and the handler returns it.
Every answer has a length and ends the connection, for an upgrading client reads a refusal to its end.
"""

from aiohttp import web

from wire.errors import WireError
from wire.protocol.remotecommand import go_list
from wire.websocket_session import closing_response


class HandshakeRefused(WireError):
    """Return `response` to the client; nothing was taken over."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(f"handshake refused: {response.status} {response.text or ''}".rstrip())
        self.response = response


def upgrade_required() -> HandshakeRefused:
    # The kubelet's responder knows no status but 500 (apimachinery `proxy.ErrorResponder` in `kubelet/server`).
    return HandshakeRefused(closing_response(500, b"Upgrade request required"))


def no_stream_protocol(request: web.BaseRequest) -> HandshakeRefused:
    text = f"unable to upgrade: header X-Stream-Protocol-Version does not exist in request ({request.method})"
    return HandshakeRefused(closing_response(400, text.encode()))


def no_common_protocol(offered: list[str], served: list[str]) -> HandshakeRefused:
    text = "unable to upgrade: unable to negotiate protocol: "
    text += f"client supports {go_list(offered)}, server accepts {go_list(served)}"
    response = closing_response(403, text.encode())
    for name in served:
        response.headers.add("X-Accepted-Stream-Protocol-Versions", name)
    return HandshakeRefused(response)


def no_websocket_protocol() -> HandshakeRefused:
    # Upstream's server answers a bare 403 here; the length is for clients that would wait for a body.
    return HandshakeRefused(closing_response(403))
