"""One object on its way to the client.

My job: the view and media type a request negotiated, applied to an object's bytes. Every endpoint that answers an
object ends here.
"""

import orjson
from aiohttp import web

from miniapiserver.apiserver import APIServer
from miniapiserver.endpoints import views
from miniapiserver.endpoints.negotiation import Representation, View, negotiate
from miniapiserver.endpoints.responses import json_bytes
from miniapiserver.request import Request
from miniapiserver.resources.resource import Resource


def representation_of(request: Request, *, transformable: bool = True) -> Representation:
    """Raises NotAcceptable."""
    return negotiate(request.http.headers.get("Accept", ""), transformable=transformable)


async def answer(server: APIServer, request: Request, row: Resource, data: bytes, representation: Representation,
                 code: int) -> web.Response:
    """One object in the negotiated view."""
    if request.audit is not None:
        request.audit.response_object = orjson.loads(data)
    if representation.view is not View.OBJECT:
        data = orjson.dumps(views.transform(row, orjson.loads(data), representation,
                                            views.include_object(request.query), server.clock.seconds()))
    return await json_bytes(request, data, code, representation.media_type)
