"""Bodies on their way out: media type, compression, headers.

My job: bytes of JSON (or a dict) → an aiohttp response as upstream writes it (`handlers/responsewriters`). The
filters and every endpoint end here.
"""

import asyncio
import zlib
from typing import Any

import orjson
import yaml
from aiohttp import web
from multidict import CIMultiDict

from miniapiserver.endpoints.negotiation import JSON, PROTOBUF, YAML
from miniapiserver.errors import APIError, InternalError
from miniapiserver.request import Request
from miniapiserver.schema import protobuf

#: Upstream's `defaultGzipThresholdBytes`: below, compressing costs more than it saves.
GZIP_FROM_BYTES = 128 * 1024
GZIP_LEVEL = 1
#: Above this much, compression moves to a thread so that the loop goes on serving.
GZIP_THREAD_FROM_BYTES = 1024 * 1024


#: Upstream's `truncateAtTotalRunes` and `truncateItemRunes`: clients refuse heads without end.
WARNINGS_TOTAL = 4 * 1024
WARNING_LENGTH = 256


def headers(request: Request, content_type: str) -> CIMultiDict[str]:
    found = CIMultiDict((("Audit-Id", request.audit_id), ("Cache-Control", "no-cache, private"),
                         ("Content-Type", content_type)))
    for text in shortened(request.warnings):
        found.add("Warning", warning_header(text))
    return found


def shortened(warnings: list[str]) -> list[str]:
    """Each text once; when there is too much of them, each cut and no more than fit (apiserver
    `filters/warning.go`)."""
    unique = list(dict.fromkeys(warnings))
    if sum(map(len, unique)) <= WARNINGS_TOTAL:
        return unique
    kept, room = [], WARNINGS_TOTAL
    for text in (text[:WARNING_LENGTH] for text in unique):
        if len(text) > room:
            break
        kept.append(text)
        room -= len(text)
    return kept


def warning_header(text: str) -> str:
    """RFC 7234 section 5.5. A control character would end or break the head: it becomes a space."""
    printable = "".join(char if char >= " " and char != "\x7f" else " " for char in text)
    escaped = printable.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


async def json_bytes(request: Request, body: bytes, code: int = 200, media_type: str = JSON) -> web.Response:
    """Answer JSON bytes in the negotiated media type."""
    if media_type == YAML:
        body = yaml.safe_dump(orjson.loads(body), sort_keys=True).encode()
    elif media_type == PROTOBUF:
        body = protobuf.encode(orjson.loads(body))
    elif _wants_pretty(request):
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2) + b"\n"
    found = headers(request, media_type)
    if len(body) >= GZIP_FROM_BYTES and "gzip" in request.http.headers.get("Accept-Encoding", ""):
        body = await compressed(body)
        found["Content-Encoding"] = "gzip"
        found["Vary"] = "Accept-Encoding"
    return web.Response(body=body, status=code, headers=found)


async def compressed(body: bytes) -> bytes:
    if len(body) < GZIP_THREAD_FROM_BYTES:
        return _gzip(body)
    return await asyncio.get_running_loop().run_in_executor(None, _gzip, body)


def _gzip(body: bytes) -> bytes:
    return zlib.compress(body, GZIP_LEVEL, wbits=31)


def _wants_pretty(request: Request) -> bool:
    if "pretty" in request.query:
        return request.flag("pretty")
    return request.user_agent.startswith(("curl", "Wget", "Mozilla/5.0"))


async def json_object(request: Request, body: Any, code: int = 200, media_type: str = JSON) -> web.Response:
    return await json_bytes(request, orjson.dumps(body), code, media_type)


def text(request: Request, body: str, code: int = 200) -> web.Response:
    found = headers(request, "text/plain; charset=utf-8")
    found["X-Content-Type-Options"] = "nosniff"
    return web.Response(body=body.encode(), status=code, headers=found)


def not_found_page(request: Request) -> web.Response:
    """What upstream's path recorder says for a path nobody serves."""
    return text(request, "404 page not found\n", 404)


def failure(request: Request, error: APIError) -> web.Response:
    found = headers(request, JSON)
    if error.code == 403:
        found["X-Content-Type-Options"] = "nosniff"
    if error.retry_after is not None:
        found["Retry-After"] = str(error.retry_after)
    return web.Response(body=orjson.dumps(error.status()), status=error.code, headers=found)


def unexpected(request: Request, error: BaseException) -> web.Response:
    """A bug of ours: the client learns its type, the log has the rest."""
    return failure(request, InternalError.because(type(error).__name__))
