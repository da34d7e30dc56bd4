"""Request bodies, read and decoded.

My job: bytes off the connection within the limit, then an object of the expected kind with the field problems
handled as the client asked (Ignore, Warn, Strict). The writing endpoints call me.
"""

from typing import Any

from aiohttp import HttpVersion11, web

from miniapiserver.errors import BadRequest, RequestEntityTooLarge
from miniapiserver.registry.options import WriteOptions
from miniapiserver.request import Request
from miniapiserver.schema.decode import decode, strict_failure

JSON = dict[str, Any]

#: Upstream's --max-resource-write-bytes... `MaxRequestBodyBytes`.
LARGEST_BODY = 3 * 1024 * 1024


async def read(request: Request) -> bytes:
    """Raises RequestEntityTooLarge, BadRequest (the client left or lied about the length)."""
    length = request.http.content_length
    if length is not None and length > LARGEST_BODY:
        raise _too_large()
    if request.http.headers.get("Expect", "").lower() == "100-continue" and request.http.version >= HttpVersion11:
        await invite_body(request.http)
    try:
        return await request.http.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except (web.RequestPayloadError, ConnectionError) as error:
        raise BadRequest(f"the request body could not be read: {error}") from error


async def invite_body(http: web.BaseRequest) -> None:
    """`100 Continue`: only now is the body wanted, so a client that waits for it sends none to a refusal."""
    await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    http.writer.output_size = 0  # no part of the answer (aiohttp does the same)


def _too_large() -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"Request entity too large: limit is {LARGEST_BODY}")


async def read_object(request: Request, group: str, version: str, kind: str, options: WriteOptions, *,
                      also: str = "") -> JSON:
    """The body as an object of this kind. Raises BadRequest, UnsupportedMediaType, RequestEntityTooLarge.

    `also` is an older apiVersion of the same shape that is taken too, in JSON: kubectl 1.20 evicts with policy/v1beta1.
    """
    body = await read(request)
    if also:
        body = body.replace(b'"%b"' % also.encode(), b'"%b/%b"' % (group.encode(), version.encode()), 1)
    obj, problems = decode(body, request.http.headers.get("Content-Type", ""), group, version, kind)
    report(request, obj, kind, problems, options)
    if request.audit is not None:
        request.audit.request_object = obj
    return obj


def report(request: Request, obj: JSON, kind: str, problems: list[str], options: WriteOptions) -> None:
    """Field problems as the client asked for them. Raises BadRequest when it asked for Strict."""
    if not problems or options.field_validation == "Ignore":
        return
    if options.field_validation == "Strict":
        raise strict_failure(obj, kind, problems)
    request.warnings.extend(problems)
