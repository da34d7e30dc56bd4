"""One node with a fake runtime, a fake clock and a stub API server."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubeletfakes import FakeClock, FakeRuntime, FakeVolumes
from kubeletstub import StubAPI

from minikubelet.config import Config, parse
from minikubelet.events import EventRecorder
from minikubelet.pods.addresses import PodAddresses
from minikubelet.pods.launch import ImageFacts
from minikubelet.pods.references import References
from minikubelet.pods.surroundings import ImageMissing, InvalidImageName, Surroundings
from minikubelet.pods.tokens import TokenRequests
from minikubelet.pods.workers import PodWorkers
from wire.apiclient import Client
from wire.informer import Informer

JSON = dict[str, Any]


class FakeImages:
    """`missing` cannot be had; `BAD` is no name; the rest is there."""

    def __init__(self) -> None:
        self.missing = {"missing"}

    async def find(self, name: str, *, has_command: bool) -> ImageFacts:
        if name == "BAD":
            raise InvalidImageName("invalid reference format")
        if name in self.missing:
            raise ImageMissing("not here")
        return ImageFacts(f"docker.io/library/{name}:latest", entrypoint=("/bin/entry",))


class FakeNode:
    def __init__(self) -> None:
        self.allocatable = {"cpu": "2", "memory": "1Gi", "pods": "10"}
        self.current: JSON = {"kind": "Node", "metadata": {"name": "node-1", "labels": {"disk": "ssd"}},
                              "status": {"allocatable": self.allocatable}}


@dataclass
class Node:
    api: StubAPI
    clock: FakeClock
    runtime: FakeRuntime
    images: FakeImages
    volumes: FakeVolumes
    workers: PodWorkers
    around: Surroundings
    config: Config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse([f"--kubeconfig={tmp_path / 'kubeconfig'}", "--hostname-override=node-1", "--node-ip=127.0.98.1",
                  f"--root-dir={tmp_path / 'root'}", "--pod-cidr=127.244.98.0/24", "--port=0", "--healthz-port=0"])


@pytest.fixture
async def node(config: Config) -> AsyncIterator[Node]:
    clock = FakeClock()
    runtime, images, volumes = FakeRuntime(clock), FakeImages(), FakeVolumes()
    async with StubAPI() as api:
        config.kubeconfig.write_text(api.kubeconfig())
        async with Client.from_kubeconfig(config.kubeconfig) as client:
            references = References(client)
            events = EventRecorder(client, "node-1", clock)
            services = Informer(client, "/api/v1/services")
            around = Surroundings(config, client, clock, runtime, images, lambda pod, folder: volumes, events,
                                  references, TokenRequests(client, clock),
                                  PodAddresses("127.244.98.0/24", "127.0.98.1"), services, FakeNode())
            workers = PodWorkers(around)
            pods = Informer(client, "/api/v1/pods", fieldSelector="spec.nodeName=node-1")
            pods.subscribe(workers.on_api_pod)
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(work) for work in (
                    references.run(), events.run(), services.run(), workers.run(), pods.run())]
                await services.synced.wait()
                yield Node(api, clock, runtime, images, volumes, workers, around, config)
                for task in running:
                    task.cancel()
