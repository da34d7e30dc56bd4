"""Events on their way to the API server."""

import asyncio
from typing import Any

from kubeletfakes import FakeClock, eventually
from kubeletstub import StubAPI

from minikubelet.config import Config
from minikubelet.events import BURST, NORMAL, EventRecorder, Involved
from wire.apiclient import Client

POD = Involved("Pod", "default", "web", "uid-1")
PATH = "/api/v1/namespaces/default/events"


async def record(config: Config, *messages: str, api: StubAPI) -> list[dict[str, Any]]:
    config.kubeconfig.write_text(api.kubeconfig())
    async with Client.from_kubeconfig(config.kubeconfig) as client:
        recorder = EventRecorder(client, "node-1", FakeClock())
        sending = asyncio.create_task(recorder.run())
        for message in messages:
            recorder.record(POD, NORMAL, "Started", message)
        recorder.record(Involved("Node", "", "node-1", "node-1"), NORMAL, "Starting", "last")
        await eventually(lambda: [item for item in api.objects.values() if item["message"] == "last"])
        sending.cancel()
        await asyncio.wait([sending])
    return [item for (path, _), item in api.objects.items() if path == PATH and item["message"] != "last"]


async def test_an_event_names_its_object_source_and_count(config: Config) -> None:
    async with StubAPI() as api:
        [event] = await record(config, "hello", api=api)
    assert event["involvedObject"] == {
        "kind": "Pod", "namespace": "default", "name": "web", "uid": "uid-1", "apiVersion": "v1"}
    assert event["source"] == {"component": "kubelet", "host": "node-1"}
    assert (event["type"], event["reason"], event["message"], event["count"]) == ("Normal", "Started", "hello", 1)


async def test_the_same_event_again_raises_the_count(config: Config) -> None:
    async with StubAPI() as api:
        [event] = await record(config, "hello", "hello", "hello", api=api)
    assert event["count"] == 3


async def test_an_object_that_tells_too_much_is_cut_short(config: Config) -> None:
    async with StubAPI() as api:
        events = await record(config, *(f"message {number}" for number in range(100)), api=api)
    assert len(events) == BURST


async def test_a_refused_event_stops_no_other(config: Config) -> None:
    async with StubAPI() as api:
        api.fail_next = [(PATH, 403)]
        events = await record(config, "one", "two", api=api)
    assert [event["message"] for event in events] == ["two"]
