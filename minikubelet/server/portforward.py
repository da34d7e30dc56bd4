"""/portForward/{namespace}/{pod}: TCP connections to a pod's ports.

My job: find the pod, dial its port. I own nothing past the dial. Neighbours: `wire.portforward` speaks to the client
and relays. Rule: the pod's own address first, then loopback, where a process that binds `localhost` listens.
"""

from aiohttp import web

from minikubelet.pods.workers import PodWorkers
from minikubelet.server.answers import HTTPError
from minikubelet.server.lookup import find_pod
from wire.connections import Ledger
from wire.errors import DialError
from wire.net import dial_tcp, join_host_port
from wire.portforward import accept_portforward
from wire.stream import Stream, open_stream
from wire.upgrade import TakenOver, is_upgrade

LOOPBACK = "127.0.0.1"


async def port_forward(request: web.BaseRequest, workers: PodWorkers, ledger: Ledger, namespace: str, pod: str,
                       uid: str | None) -> web.StreamResponse:
    worker = find_pod(workers, namespace, pod, uid)
    if not is_upgrade(request.headers):
        raise HTTPError(500, "Upgrade request required")

    async def dial(port: int) -> Stream:
        try:
            return await _connect(worker.pod_ip or LOOPBACK, port, ledger)
        except DialError:
            return await _connect(LOOPBACK, port, ledger)

    def describe(port: int, error: Exception) -> str:
        return f"error forwarding port {port} to pod {worker.ref.name}, uid {worker.ref.uid}: {error}"

    # Leaving waits until the client has left.
    async with accept_portforward(request, dial, describe=describe):
        pass
    return TakenOver()


async def _connect(host: str, port: int, ledger: Ledger) -> Stream:
    entry = ledger.record(source="kubelet", target=join_host_port(host, port), purpose="port-forward")
    try:
        stream = await open_stream(await dial_tcp(host, port))
    except BaseException as error:
        entry.close(error)
        raise
    entry.connected(stream)
    return stream
