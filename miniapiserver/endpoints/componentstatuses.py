"""componentstatuses: is the rest of the control plane there?

My job: GET and LIST of the one resource that nobody stores: each answer is a fresh question to the scheduler, the
controller manager and the storage (kubernetes `registry/core/componentstatus`). Deprecated since v1.19, still served.
"""

import asyncio
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from miniapiserver.apiserver import APIServer
from miniapiserver.endpoints import views
from miniapiserver.endpoints.answers import answer, representation_of
from miniapiserver.endpoints.listoptions import parse
from miniapiserver.endpoints.negotiation import View
from miniapiserver.endpoints.responses import json_bytes
from miniapiserver.errors import MethodNotAllowed, PlainInternal
from miniapiserver.request import Request
from miniapiserver.resources.resource import Resource
from miniapiserver.selectors import parse_field_selector, parse_label_selector, predicate

JSON = dict[str, Any]

#: Where upstream's programs serve their health, on the machine of the API server.
PORTS = {"controller-manager": 10257, "scheduler": 10259}
ETCD = "etcd-0"
PROBE_TIMEOUT = 20.0


async def componentstatuses(server: APIServer, request: Request, row: Resource) -> web.StreamResponse:
    """Raises MethodNotAllowed, NotAcceptable, BadRequest; 500 for a component nobody knows, as upstream."""
    info = request.info
    if info.verb not in ("get", "list"):
        raise MethodNotAllowed("the server does not allow this method on the requested resource", details={})
    representation = representation_of(request)
    if info.verb == "get":
        if info.name not in (*PORTS, ETCD):
            raise PlainInternal(f"Component not found: {info.name}")
        found = {"kind": row.kind, "apiVersion": row.api_version} | await _component(server, info.name)
        return await answer(server, request, row, orjson.dumps(found), representation, 200)
    options = parse(request.query, watching=False)
    selects = predicate(parse_label_selector(options.label_selector),
                        parse_field_selector(options.field_selector, row.field_names))
    items = await asyncio.gather(*(_component(server, name) for name in (*PORTS, ETCD)
                                   if selects is None or selects(_Selectable(name))))
    if representation.view is not View.OBJECT:
        body = views.transform_list(row, items, {}, representation, views.include_object(request.query),
                                    server.clock.seconds())
    else:
        body = {"kind": f"{row.kind}List", "apiVersion": row.api_version, "metadata": {}, "items": items}
    return await json_bytes(request, orjson.dumps(body), 200, representation.media_type)


class _Selectable:
    """What selectors can see of a component: its name, and no labels."""

    def __init__(self, name: str) -> None:
        self.labels: dict[str, str] = {}
        self.fields = {"metadata.name": name, "metadata.namespace": ""}


async def _component(server: APIServer, name: str) -> JSON:
    problem = await (_storage_problem(server) if name == ETCD else _probe(PORTS[name]))
    condition = {"type": "Healthy", "status": "False" if problem else "True", "message": problem or "ok"}
    return {"metadata": {"name": name}, "conditions": [condition]}


async def _storage_problem(server: APIServer) -> str:
    """The storage of this server stands where upstream has etcd."""
    checks = [check for check in server.health.checks("livez") if check.name == "etcd"]
    return "".join([await check.problem() for check in checks])


async def _probe(port: int) -> str:
    """What is wrong with the component that should serve its health on `port`; "" when it says it is fine."""
    url = f"https://127.0.0.1:{port}/healthz"
    try:
        # Not verified, as upstream: these serve self-signed certificates, on loopback, and nothing is told to them.
        async with (aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PROBE_TIMEOUT)) as session,
                    session.get(url, ssl=False) as response):
            return "" if response.status == 200 else (await response.text()).strip()
    except aiohttp.ClientConnectorError:
        return f'Get "{url}": dial tcp 127.0.0.1:{port}: connect: connection refused'
    except (aiohttp.ClientError, TimeoutError) as error:
        return f'Get "{url}": {error}'
