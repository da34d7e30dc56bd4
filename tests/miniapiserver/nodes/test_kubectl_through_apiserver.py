"""Real kubectls through the API server's endpoints to a kubelet: spliced, translated and unwrapped."""

import asyncio
import os
from pathlib import Path

import pytest
from aiohttp import web
from node_cluster import cluster, kubectl_flags
from stub_kubelet import echo_server, handle
from test_real_kubectl import SPDY_ONLY, WEBSOCKET, forwarding, kubectls, run
from wire_certificates import Certificates

pytestmark = pytest.mark.e2e

#: Transport of the client × what the node declares: spliced SPDY, translated v5, spliced v5.
PATHS = [
    pytest.param(SPDY_ONLY, (), id="spdy"),
    pytest.param(WEBSOCKET, (), id="websocket-translated"),
    pytest.param(WEBSOCKET, ("ExtendWebSocketsToKubelet",), id="websocket-spliced"),
]
NEWEST = pytest.mark.parametrize("kubectl", [pytest.param(path, id=Path(path).name) for path in kubectls()[-1:]])
EACH = pytest.mark.parametrize("kubectl", [pytest.param(path, id=Path(path).name) for path in kubectls()])


@EACH
@pytest.mark.parametrize(("transport", "features"), PATHS)
async def test_exec_keeps_outputs_stdin_and_exit_code(
    kubectl: str, transport: dict[str, str], features: tuple[str, ...], tmp_path: Path, certificates: Certificates
) -> None:
    payload = os.urandom(500_000)
    async with cluster(certificates, handle, *features, tls=True) as made:
        flags = kubectl_flags(made, certificates, tmp_path)
        argv = [kubectl, *flags, "exec", "-i", "p", "-c", "c", "--", "sh", "-c", "cat; echo err >&2; exit 7"]
        code, out, err = await run(argv, transport, payload)
        assert (code, out) == (7, payload)
        assert b"err\n" in err
        entries = made.ledger.snapshot()
        assert entries[0]["verifiedBy"] == certificates.ca
        assert entries[0]["credentials"] == "client certificate " + entries[0]["credentials"].split(" ", 2)[2]
        assert "CN=kube-apiserver-kubelet-client" in entries[0]["credentials"]
        assert entries[0]["bytesIn"] > len(payload)


@EACH
@pytest.mark.parametrize(("transport", "features"), PATHS)
async def test_port_forward_carries_connections(
    kubectl: str, transport: dict[str, str], features: tuple[str, ...], tmp_path: Path, certificates: Certificates
) -> None:
    async def talk(port: int, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        payload = bytes([number]) * 500_000
        writer.write(payload)
        writer.write_eof()
        assert await reader.read(-1) == payload
        writer.close()

    async with cluster(certificates, handle, *features, tls=True) as made, echo_server() as pod_port:
        flags = kubectl_flags(made, certificates, tmp_path)
        argv = [kubectl, *flags, "port-forward", "--address", "127.0.0.1", "pod/p", f":{pod_port}"]
        async with forwarding(argv, transport) as (port, _), asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(talk(port, number))


@NEWEST
@pytest.mark.parametrize(("transport", "features"), PATHS)
async def test_kubelet_that_dies_in_the_middle_is_no_success(
    kubectl: str, transport: dict[str, str], features: tuple[str, ...], tmp_path: Path, certificates: Certificates
) -> None:
    async with cluster(certificates, handle, *features, tls=True) as made:
        flags = kubectl_flags(made, certificates, tmp_path)
        code, _, err = await run([kubectl, *flags, "exec", "p", "--", "--crash"], transport)
        assert code == 1
        assert b"container is gone" in err


@EACH
@pytest.mark.parametrize(("transport", "features"), PATHS)
async def test_connection_to_the_kubelet_that_breaks_is_no_success(
    kubectl: str, transport: dict[str, str], features: tuple[str, ...], tmp_path: Path, certificates: Certificates
) -> None:
    """Left alone, kubectl takes a SPDY connection that just ends for exit code 0."""
    connections = []

    async def kubelet(request: web.BaseRequest) -> web.StreamResponse:
        connections.append(request.transport)
        return await handle(request)

    async with cluster(certificates, kubelet, *features, tls=True) as made:
        flags = kubectl_flags(made, certificates, tmp_path)
        argv = [kubectl, *flags, "exec", "p", "--", "sh", "-c", "echo started; sleep 20"]
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=os.environ | transport
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"started\n"
        connections[-1].abort()
        assert await process.stdout.read() == b""
        assert await process.wait() == 1


@NEWEST
async def test_kubelet_that_is_gone_is_named(kubectl: str, tmp_path: Path, certificates: Certificates) -> None:
    async with cluster(certificates, None, tls=True) as made:
        flags = kubectl_flags(made, certificates, tmp_path)
        code, _, err = await run([kubectl, *flags, "exec", "p", "--", "true"], SPDY_ONLY)
        assert code == 1
        assert b"error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused" in err
        code, _, err = await run([kubectl, *flags, "exec", "p", "--", "true"], WEBSOCKET)
        assert code == 1
        assert b"dial tcp 127.0.0.1:1: connect: connection refused" in err
