"""Clients that leave in the middle of anything leave nothing behind: descriptors, processes, memory, gauges."""

import asyncio
import contextlib
import random
import re
from collections.abc import Iterator

import pytest

from miniplane.testing import clusters
from tests.e2e.hostile import NAMESPACE, POD, Peer, frame, head, upgrade

pytestmark = pytest.mark.e2e

YES = f"{POD}/exec?command=yes&stdin=1&stdout=1&container=c"
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
KEPT = "A: b\r\n"

LEAVING = {
    "watch": head("GET", f"{NAMESPACE}/pods?watch=1", KEPT),
    "list of many": head("GET", "/api/v1/events", KEPT),
    "discovery": head("GET", "/openapi/v2", KEPT),
    "logs -f": head("GET", f"{POD}/log?follow=1", KEPT),
    "exec over WebSocket": upgrade(YES, V5),
    "exec over SPDY": upgrade(YES, V4),
    "attach": upgrade(f"{POD}/attach?stdout=1&container=c", V5),
    "port-forward over SPDY": upgrade(f"{POD}/portforward", "portforward.k8s.io"),
    "port-forward in a tunnel": upgrade(f"{POD}/portforward", "SPDY/3.1+portforward.k8s.io"),
    "half a request": b"GET /api/v1/pods HT",
    "half a body": head("POST", f"{NAMESPACE}/configmaps", "Content-Length: 100000\r\n") + b"{",
    "a create": head("POST", f"{NAMESPACE}/configmaps", "Content-Length: 64\r\n")
    + b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"left"}}',
}
AT_ONCE, ROUNDS = 12, 3


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with clusters(lambda: tmp_path_factory.mktemp("leaks")) as make:
        made = Peer.of(make())
        asyncio.run(made.running_pod())
        asyncio.run(calm(made))
        yield made


async def calm(peer: Peer) -> None:
    """Controllers and kubelet have opened the watches they keep, which they do in waves, up to a second apart."""
    server, last, quiet = peer.process("miniapiserver"), -1, 0
    for _ in range(200):
        now = server.descriptors
        quiet, last = (quiet + 1 if now == last else 0), now
        if quiet == 30:
            return
        await asyncio.sleep(0.1)


async def leave(peer: Peer, request: bytes) -> None:
    """Ask, perhaps hear something, and be gone: at a random moment, without a word."""
    with contextlib.suppress(OSError):
        async with peer.connection() as (reader, writer):
            writer.write(request)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.choice((0.001, 0.02, 0.08))):
                    await reader.read(100)


async def settled(peer: Peer, before: tuple[int, int, set[int]]) -> tuple[int, int, set[int]]:
    """What is held once everything had time to end; at once when it is no more than before."""
    for _ in range(60):
        now = held(peer)
        if now[0] <= before[0] + 2 and now[1] <= before[1] + 2 and now[2] <= before[2]:
            break
        await asyncio.sleep(0.1)
    return now


def held(peer: Peer) -> tuple[int, int, set[int]]:
    server, kubelet = peer.process("miniapiserver"), peer.process("node-1")
    return server.descriptors, kubelet.descriptors, kubelet.descendants()


@pytest.mark.parametrize("what", LEAVING)
async def test_a_client_that_leaves_leaves_nothing_behind(peer: Peer, what: str) -> None:
    await asyncio.gather(*[leave(peer, LEAVING[what]) for _ in range(AT_ONCE)])
    await asyncio.sleep(0.3)
    before = held(peer)
    # The pod itself starts a `sleep` again and again: only what is new and stays counts.
    before = (*before[:2], before[2] | peer.process("node-1").descendants())
    for _ in range(ROUNDS):
        await asyncio.gather(*[leave(peer, LEAVING[what]) for _ in range(AT_ONCE)])
    after = await settled(peer, before)
    assert after[0] <= before[0] + 2 and after[1] <= before[1] + 2
    assert len(after[2]) <= len(before[2]) + 2


async def test_port_forward_left_with_data_in_flight(peer: Peer) -> None:
    """The legacy channels: a port is dialled as soon as the upgrade is done, then data nobody will take."""
    before = held(peer)
    request = upgrade(f"{POD}/portforward?ports=9", V4 + " ") + frame(2, b"\0" + b"x" * 60_000) * 4
    for _ in range(5):
        await asyncio.gather(*[leave(peer, request) for _ in range(6)])
    after = await settled(peer, before)
    assert after[0] <= before[0] + 2 and after[1] <= before[1] + 2


async def test_gauges_return_to_where_they_were(peer: Peer) -> None:
    async def streams() -> dict[str, float]:
        page = (await peer.exchange(head("GET", "/metrics"))).decode()
        found = re.findall(r'^apiserver_longrunning_requests\{(.*resource="pods".*)\} (\S+)$', page, re.MULTILINE)
        return {labels: float(value) for labels, value in found if 'subresource=""' not in labels}

    for _ in range(30):
        if not any((await streams()).values()):
            break
        await asyncio.sleep(0.1)
    assert await streams() and not any((await streams()).values())


async def test_memory_stays_flat_under_hundreds_of_execs(peer: Peer) -> None:
    server, kubelet = peer.process("miniapiserver"), peer.process("node-1")

    async def burst(times: int) -> int:
        for _ in range(times):
            await asyncio.gather(*[leave(peer, upgrade(YES, protocol)) for protocol in (V4, V5) for _ in range(6)])
        return server.resident + kubelet.resident

    warm = await burst(6)
    assert await burst(16) - warm < 40 << 20  # 192 sessions; each held its TLS buffers for ten seconds once


async def test_strangers_do_not_fill_the_metrics(peer: Peer) -> None:
    async def size() -> int:
        return len(await peer.exchange(head("GET", "/metrics")))

    before = await size()
    for number in range(50):
        await peer.exchange(head("GET", f"/apis/made{number}.up/v1/things{number}"))
    assert await size() - before < 4096


async def test_the_logs_tell_no_secret_and_no_traceback(peer: Peer) -> None:
    secret = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "stringData": {"password": "hunter2"}}
    assert (await peer.ask("POST", f"{NAMESPACE}/secrets", secret))[0] == 201
    await peer.exchange(head("GET", "/api", "Authorization: Bearer hunter2-token\r\nConnection: close\r\n"))
    _, token = await peer.ask("POST", f"{NAMESPACE}/serviceaccounts/default/token", {
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}})  # fmt: skip
    issued = token["status"]["token"]
    bearer = f"Authorization: Bearer {issued}\r\nConnection: close\r\n"
    await peer.exchange(head("GET", f"{NAMESPACE}/pods", bearer))
    await peer.exchange(head("GET", f"{NAMESPACE}/pods", bearer.replace("Authorization:", "Authorization :")))
    for path in (peer.cluster.state.path / "logs").iterdir():
        text = path.read_text()
        for forbidden in ("hunter2", issued, "Traceback"):
            assert forbidden not in text, f"{path.name}: {text[text.index(forbidden) - 200 :][:2000]}"


async def test_an_api_server_that_restarts_under_streams_ends_quickly_and_well(peer: Peer) -> None:
    """Watches end, streams end, the process exits 0, and everybody can come back."""
    watches = [asyncio.create_task(peer.exchange(LEAVING["watch"], 20)) for _ in range(10)]
    execs = [asyncio.create_task(peer.stream(upgrade(YES, protocol), linger=20)) for protocol in (V4, V5)]
    logs = asyncio.create_task(peer.exchange(LEAVING["logs -f"], 20))
    await asyncio.sleep(0.7)
    begun = asyncio.get_running_loop().time()
    await asyncio.to_thread(peer.cluster.restart, "miniapiserver")
    await asyncio.gather(*watches, *execs, logs)
    assert asyncio.get_running_loop().time() - begun < 8
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                if (await peer.ask("GET", "/readyz", seconds=2))[0] == 200:
                    break
            await asyncio.sleep(0.1)
    (entry,) = [entry for entry in peer.cluster.status()["processes"] if entry["name"] == "miniapiserver"]
    assert "Traceback" not in peer.cluster.log("miniapiserver")
    assert entry["lastExit"] == "exit code 0"
