"""pods/exec and pods/attach: from the client's upgrade to the kubelet's.

My job: the order of checks, and which way a request takes: translated from WebSocket v5 to SPDY for a kubelet that
knows only that, mediated between two SPDY peers, or spliced as it is.
Rule: an upgrade by GET needs `create` as well (kubernetes 1.35), or `get` alone would run commands.
"""

from aiohttp import web

from miniapiserver.endpoints.noderequest import JSON, NodeRequest
from miniapiserver.endpoints.upgradeaware import refused_response, splice
from miniapiserver.errors import BadRequest, PlainInternal
from miniapiserver.kubelet import ConnectionInfo, Target, Trust
from miniapiserver.location import command_options, command_path, container_of, first, host_of
from wire.errors import UpgradeRefused, WireError
from wire.net import join_host_port
from wire.protocol.remotecommand import V5, Wanted
from wire.translate import Backend, mediate_command, translate_command
from wire.upgrade import is_spdy, is_upgrade, is_websocket
from wire.websocket_session import offered_protocols

#: The feature a node declares when its kubelet takes v5 and the tunnel itself (kubernetes 1.36).
EXTEND_WEBSOCKETS = "ExtendWebSocketsToKubelet"


async def handle(request: web.BaseRequest, info: NodeRequest) -> web.StreamResponse:
    """Raises the errors of upstream in upstream's order."""
    options = command_options(info.query)
    await check_connect(request, info)
    pod = await info.objects.get_pod(info.namespace, info.name)
    container = container_of(pod, options.container)
    node = await info.objects.get_node(host_of(pod))
    target = kubelet_target(info.path.connection_info(node), f"pods/{info.subresource}")
    require_upgrade(request)
    location = f"{command_path(info.subresource, info.namespace, info.name, container)}?{options.query()}"
    wanted = Wanted(options.stdin, options.stdout, options.stderr, options.tty)
    if is_spdy(request.headers):
        return await _mediated(request, wanted, backend_of(info, target, location))
    is_v5 = is_websocket(request.headers) and V5.name in offered_protocols(request)
    if is_v5 and not takes_websockets(node):
        return await translate_command(request, wanted, backend_of(info, target, location))
    return await splice(request, info, target, location)


async def _mediated(request: web.BaseRequest, wanted: Wanted, backend: Backend) -> web.StreamResponse:
    try:
        return await mediate_command(request, wanted, backend)
    except UpgradeRefused as refused:
        return passed_on(refused)
    except (WireError, OSError) as error:
        raise PlainInternal(f"error dialing backend: {error}") from error


def passed_on(refused: UpgradeRefused) -> web.Response:
    """A kubelet's refusal for the client; a redirect is none that a client may see. Raises PlainInternal."""
    if refused.status < 400:
        raise PlainInternal(f"invalid upgrade response: status code {refused.status}") from refused
    return refused_response(refused)


async def check_connect(request: web.BaseRequest, info: NodeRequest) -> None:
    """What is refused before the pod is looked up. Raises BadRequest, Forbidden."""
    if first(info.query, "dryRun") is not None:
        raise BadRequest("dryRun is not supported")
    if request.method != "POST":
        await info.authorize_create()


def require_upgrade(request: web.BaseRequest) -> None:
    if not is_upgrade(request.headers):
        raise BadRequest("Upgrade request required")


def takes_websockets(node: JSON) -> bool:
    return EXTEND_WEBSOCKETS in ((node.get("status") or {}).get("declaredFeatures") or ())


def kubelet_target(kubelet: ConnectionInfo, purpose: str) -> Target:
    return Target(kubelet.host, kubelet.port, Trust.KUBELET, purpose)


def backend_of(info: NodeRequest, target: Target, location: str) -> Backend:
    return Backend(lambda: info.connect(target), location, join_host_port(target.host, target.port))
