"""The map's web server: one page, one stream of events, for whoever knows the address.

My job: loopback only; a random token is part of every path, and the Host header must be ours, so that neither another
user's guess nor a foreign page whose name was pointed at 127.0.0.1 sees anything. The page may load nothing and talk to
nobody but me (Content-Security-Policy, by the hashes of its own script and style).
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import re
import secrets
from importlib import resources
from typing import Final, Self

from aiohttp import web

from miniplane.map.feed import Feed
from miniplane.state import StateDir
from wire.http import HTTPServer

HOST: Final = "127.0.0.1"
HEARTBEAT: Final = 15.0
_SECTION: Final = re.compile(rb"<(script|style)>(.*?)</\1>", re.S)


class MapServer:
    """`async with` it; `url` is the way in."""

    def __init__(self, state: StateDir, port: int = 0) -> None:
        self._asked_port = port
        self._token = secrets.token_urlsafe(24)
        self._page = resources.files("miniplane.map").joinpath("map.html").read_bytes()
        self._policy = content_security_policy(self._page)
        self._feed = Feed(state)
        self._stack = contextlib.AsyncExitStack()
        self._port = 0

    async def __aenter__(self) -> Self:
        server = await self._stack.enter_async_context(HTTPServer(self._handle, grace=0.1))
        self._port = await server.listen(HOST, self._asked_port)
        following = asyncio.create_task(self._feed.run(), name="map feed")
        self._stack.push_async_callback(_ended, following)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}/{self._token}/"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Host") not in (f"{HOST}:{self._port}", f"localhost:{self._port}"):
            return web.Response(status=421, text="not a name of mine\n")
        _, token, *rest = request.path.split("/", 2)
        if not hmac.compare_digest(token.encode(), self._token.encode()) or request.method != "GET":
            return web.Response(status=404, text="nothing here\n")
        match rest:
            case [""]:
                return web.Response(body=self._page, content_type="text/html", charset="utf-8", headers=self._headers())
            case ["events"]:
                return await self._events(request)
        return web.Response(status=404, text="nothing here\n")

    def _headers(self) -> dict[str, str]:
        return {
            "Content-Security-Policy": self._policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers=self._headers() | {"Content-Type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for event in self._feed.events(HEARTBEAT):
                await response.write(event)
        return response


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait((task,))


def content_security_policy(page: bytes) -> str:
    """Nothing from anywhere, but the page's own script and style, and events from where it came."""
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _SECTION.findall(page):
        allowed[kind.decode()].append(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'")
    return "; ".join((
        "default-src 'none'", "connect-src 'self'", f"script-src {' '.join(allowed['script'])}",
        f"style-src {' '.join(allowed['style'])}", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ))  # fmt: skip
