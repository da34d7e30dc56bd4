"""The own Node: registered, reported, alive."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubeletfakes import FakeClock, FakeRuntime, eventually
from kubeletstub import StubAPI

from minikubelet import machine
from minikubelet.config import Config
from minikubelet.node import Node, NodeFacts
from wire.apiclient import Client

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@pytest.fixture
async def running(config: Config) -> AsyncIterator[Any]:
    """(api, clock, start): `start` runs a Node until the test ends."""
    clock = FakeClock()
    started: list[asyncio.Task[None]] = []
    async with StubAPI() as api:
        config.root_dir.mkdir()
        config.kubeconfig.write_text(api.kubeconfig())
        async with Client.from_kubeconfig(config.kubeconfig) as client:
            def start(not_ready: str = "") -> Node:
                facts = NodeFacts(FakeRuntime(clock).capabilities(), list, lambda: not_ready, 10250)
                node = Node(config, client, clock, facts)
                started.append(asyncio.create_task(node.run()))
                return node

            yield api, clock, start
            for task in started:
                task.cancel()
            await asyncio.wait(started)


async def test_one_post_makes_a_ready_node_with_all_it_has(running: Any) -> None:
    api, _, start = running
    start()
    node = await eventually(lambda: api.get("/api/v1/nodes", "node-1"))
    assert api.requests[0][:2] == ("POST", "/api/v1/nodes")
    assert {item["type"]: item["status"] for item in node["status"]["conditions"]} == {
        "Ready": "True", "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False",
        "ContainerIsolation": "True"}
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "node-1"
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert node["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.36.")
    assert node["status"]["capacity"].keys() == {"cpu", "memory", "pods", "ephemeral-storage"}


async def test_a_node_of_an_earlier_run_is_taken_over_with_foreign_labels_kept(running: Any) -> None:
    api, _, start = running
    api.put("/api/v1/nodes", {"metadata": {"name": "node-1", "labels": {"mine": "x"}}, "spec": {"unschedulable": True},
                              "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})
    start()
    node = await eventually(lambda: (found := api.get("/api/v1/nodes", "node-1"))["status"].get("nodeInfo") and found)
    assert node["metadata"]["labels"]["mine"] == "x"
    assert node["metadata"]["labels"]["kubernetes.io/os"] == "linux"
    assert node["spec"]["unschedulable"] is True
    ready = next(item for item in node["status"]["conditions"] if item["type"] == "Ready")
    assert ready["status"] == "True"


async def test_registration_is_tried_until_the_api_server_answers(running: Any) -> None:
    api, clock, start = running
    api.fail_next = [("/nodes", 500)] * 3
    start()
    for _ in range(4):
        await eventually(lambda: clock._sleepers or api.get("/api/v1/nodes", "node-1"))
        await clock.advance(1)
    await eventually(lambda: api.get("/api/v1/nodes", "node-1"))


async def test_the_lease_is_renewed_every_ten_seconds_and_owned_by_the_node(running: Any) -> None:
    api, clock, start = running
    start()
    lease = await eventually(lambda: api.get(LEASES, "node-1"))
    first = lease["spec"]["renewTime"]
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseDurationSeconds"]) == ("node-1", 40)
    assert lease["metadata"]["ownerReferences"][0]["kind"] == "Node"
    await clock.advance(10.5)
    await eventually(lambda: api.get(LEASES, "node-1")["spec"]["renewTime"] > first)


async def test_the_status_is_sent_again_after_five_minutes_though_nothing_changed(
        running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api, clock, start = running
    monkeypatch.setattr(machine, "pressure", lambda root: machine.Pressure(False, False, False))
    start()
    await eventually(lambda: api.get(LEASES, "node-1"))

    def patches() -> int:
        return sum(method == "PATCH" and path.endswith("/status") for method, path, _ in api.requests)

    await clock.advance(60)
    assert patches() == 0
    await clock.advance(250)
    await eventually(lambda: patches() == 1)


async def test_pressure_is_reported_at_the_next_round(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api, clock, start = running
    start()
    await eventually(lambda: api.get(LEASES, "node-1"))
    monkeypatch.setattr(machine, "pressure", lambda root: machine.Pressure(True, False, False))
    await clock.advance(10.5)
    await eventually(lambda: next(item for item in api.get("/api/v1/nodes", "node-1")["status"]["conditions"]
                                  if item["type"] == "MemoryPressure")["status"] == "True")


async def test_a_node_that_cannot_run_pods_says_why(running: Any) -> None:
    api, _, start = running
    start("container runtime is down")
    node = await eventually(lambda: api.get("/api/v1/nodes", "node-1"))
    ready = next(item for item in node["status"]["conditions"] if item["type"] == "Ready")
    assert (ready["status"], ready["message"]) == ("False", "container runtime is down")
