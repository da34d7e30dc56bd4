"""Nodes that are gone and nodes that lie: clear errors in time, and no request to where it must not go."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from miniplane.testing import clusters
from tests.e2e.hostile import NAMESPACE, POD, Peer, head, upgrade

pytestmark = pytest.mark.e2e

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
#: What upstream gives a dial; ours gives a TLS handshake ten.
DIAL_TIMEOUT = 30.0


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with clusters(lambda: tmp_path_factory.mktemp("gone")) as make:
        made = Peer.of(make())
        asyncio.run(made.running_pod())
        yield made


async def lying_node(peer: Peer, name: str, address: str, port: int = 10250) -> None:
    status = {
        "addresses": [{"type": "InternalIP", "address": address}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    await peer.ask("POST", "/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}})
    assert (await peer.ask("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}))[0] == 200


async def test_a_kubelet_that_stands_still_costs_an_error_and_no_hang(peer: Peer) -> None:
    kubelet = peer.process("node-1").pid
    command = f"{POD}/exec?command=id&stdout=1"
    asked = [peer.stream(upgrade(command, protocol), seconds=DIAL_TIMEOUT + 5) for protocol in (V4, V5)]
    os.kill(kubelet, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        streams = await asyncio.gather(*asked)
        assert time.monotonic() - begun < DIAL_TIMEOUT + 5
        for status, rest, _ in streams:
            assert status == 500 and b'"Failure"' in rest and b"timeout" in rest
        assert (await peer.ask("GET", "/readyz"))[0] == 200
    finally:
        os.kill(kubelet, signal.SIGCONT)


async def unused_address(peer: Peer) -> str:
    """In the range where this cluster's nodes may be, and nobody's."""
    _, node = await peer.ask("GET", "/api/v1/nodes/node-1")
    own = next(entry["address"] for entry in node["status"]["addresses"] if entry["type"] == "InternalIP")
    return f"{own.rpartition('.')[0]}.200"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "169.254.169.254", "169.254.0.1", "fe80::1", "0.0.0.0", "224.0.0.1"]
)
@pytest.mark.parametrize("suffix", ["", ":10250", ":80"])
async def test_a_node_that_claims_a_forbidden_address_is_not_dialled(peer: Peer, address: str, suffix: str) -> None:
    await lying_node(peer, "liar", address)
    begun = time.monotonic()
    code, body = await peer.ask("GET", f"/api/v1/nodes/liar{suffix}/proxy/pods")
    assert (code, body["kind"]) == (400, "Status")
    assert time.monotonic() - begun < 2


async def test_a_listener_that_is_no_kubelet_sees_no_request(peer: Peer) -> None:
    seen = bytearray()

    async def canary(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            seen.extend(await reader.read(65536))
        writer.close()

    address = await unused_address(peer)
    async with await asyncio.start_server(canary, address, 0) as listener:
        await lying_node(peer, "canary", address, listener.sockets[0].getsockname()[1])
        code, body = await peer.ask("GET", "/api/v1/nodes/canary/proxy/pods")
        assert code >= 500 and body["kind"] == "Status"
        assert seen.startswith(b"\x16\x03") and b"HTTP/1.1" not in seen  # a TLS hello, and nothing behind it


async def test_a_node_with_another_nodes_address_gets_nothing_of_its_pods(peer: Peer) -> None:
    _, node = await peer.ask("GET", "/api/v1/nodes/node-1")
    addresses = {entry["type"]: entry["address"] for entry in node["status"]["addresses"]}
    await lying_node(
        peer, "thief", addresses["InternalIP"], node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    )
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "stolen"}, "spec": {
        "nodeName": "thief", "containers": [{"name": "c", "image": "busybox", "command": ["sleep", "9"]}]}}  # fmt: skip
    await peer.ask("POST", f"{NAMESPACE}/pods", pod)
    code, body = await peer.ask("GET", f"{NAMESPACE}/pods/stolen/log")
    assert (code, body["kind"]) == (404, "Status")


async def test_a_kubelet_that_is_killed_ends_its_streams_with_an_error(peer: Peer) -> None:
    kubelet = peer.process("node-1").pid
    command = f"{POD}/exec?command=cat&stdin=1&stdout=1"
    running = asyncio.create_task(peer.stream(upgrade(command, V5), linger=10))
    follow = asyncio.create_task(peer.exchange(head("GET", f"{POD}/log?follow=1")))
    await asyncio.sleep(0.5)
    os.kill(kubelet, signal.SIGKILL)
    _, rest, closed = await running
    assert closed and b"Success" not in rest and not rest.endswith(b"\x88\x02\x03\xe8")  # 1000 would be a good end
    assert b"tick" in await follow
    async with asyncio.timeout(20):  # the supervisor brings it back
        while (await peer.ask("GET", f"{POD}/log?tailLines=1"))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_a_node_nobody_listens_for_is_an_error_at_once(peer: Peer) -> None:
    await lying_node(peer, "empty", await unused_address(peer), 1)
    code, body = await peer.ask("GET", "/api/v1/nodes/empty/proxy/pods")
    assert (code, body["reason"]) == (503, "ServiceUnavailable")
    assert "connection refused" in body["message"]


async def test_the_cluster_is_still_well(peer: Peer) -> None:
    assert (await peer.ask("GET", "/readyz"))[0] == 200
    assert "Traceback" not in peer.cluster.log("miniapiserver")
