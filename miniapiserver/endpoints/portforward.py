"""pods/portforward: from the client's upgrade to the kubelet's.

My job: the order of checks, and whether the SPDY in a WebSocket is unwrapped here or by the kubelet.
"""

from aiohttp import web

from miniapiserver.endpoints.noderequest import NodeRequest
from miniapiserver.endpoints.remotecommand import (
    backend_of,
    check_connect,
    kubelet_target,
    passed_on,
    require_upgrade,
    takes_websockets,
)
from miniapiserver.endpoints.upgradeaware import splice
from miniapiserver.errors import PlainInternal
from miniapiserver.location import host_of, port_forward_path
from wire.errors import UpgradeRefused, WireError
from wire.protocol.tunnel import is_tunnel
from wire.translate import Backend, translate_tunnel
from wire.upgrade import is_websocket
from wire.websocket_session import offered_protocols


async def handle(request: web.BaseRequest, info: NodeRequest) -> web.StreamResponse:
    """Raises the errors of upstream in upstream's order."""
    location = port_forward_path(info.namespace, info.name, info.query)
    await check_connect(request, info)
    pod = await info.objects.get_pod(info.namespace, info.name)
    node = await info.objects.get_node(host_of(pod))
    target = kubelet_target(info.path.connection_info(node), "pods/portforward")
    require_upgrade(request)
    is_tunnelled = is_websocket(request.headers) and is_tunnel(offered_protocols(request))
    if is_tunnelled and not takes_websockets(node):
        return await _unwrapped(request, backend_of(info, target, location))
    return await splice(request, info, target, location)


async def _unwrapped(request: web.BaseRequest, backend: Backend) -> web.StreamResponse:
    try:
        return await translate_tunnel(request, backend)
    except UpgradeRefused as refused:
        return passed_on(refused)
    except (WireError, OSError) as error:
        raise PlainInternal(f"error dialing backend: {error}") from error
