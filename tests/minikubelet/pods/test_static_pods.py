"""Static pods and their mirrors."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kubeletfakes import eventually

from minikubelet.pods.staticpods import InvalidManifest, StaticPods, read_manifest
from wire.informer import Informer

PODS = "/api/v1/namespaces/default/pods"
MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: etcd, labels: {a: b}}
spec:
  containers: [{name: c, image: app}]
"""


@pytest.fixture
async def folder(node: Any, tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "manifests"
    path.mkdir()
    pods = Informer(node.around.client, "/api/v1/pods", fieldSelector="spec.nodeName=node-1")
    static = StaticPods(path, "node-1", node.around.client, node.workers, node.clock, pods,
                        lambda: {"metadata": {"name": "node-1", "uid": "node-uid"}})
    tasks = [asyncio.create_task(pods.run()), asyncio.create_task(static.run())]
    await pods.synced.wait()
    yield path
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def write(path: Path, text: str = MANIFEST) -> None:
    path.write_text(text)


async def test_a_manifest_becomes_a_running_pod_and_a_mirror_with_its_status(node: Any, folder: Path) -> None:
    write(folder / "etcd.yaml")
    await node.clock.advance(1.1)
    await eventually(lambda: node.runtime.named("c"))
    mirror = await eventually(lambda: node.api.get(PODS, "etcd-node-1"))
    annotations = mirror["metadata"]["annotations"]
    assert annotations["kubernetes.io/config.source"] == "file"
    assert annotations["kubernetes.io/config.mirror"] == annotations["kubernetes.io/config.hash"]
    assert "kubernetes.io/config.seen" in annotations
    assert mirror["metadata"]["ownerReferences"][0] == {
        "apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "node-uid", "controller": True}
    assert mirror["metadata"]["labels"] == {"a": "b"}
    await eventually(lambda: node.api.get(PODS, "etcd-node-1")["status"]["phase"] == "Running")
    assert len(node.runtime.started) == 1


async def test_a_changed_file_restarts_the_pod_under_a_new_mirror(node: Any, folder: Path) -> None:
    write(folder / "etcd.yaml")
    await node.clock.advance(1.1)
    first = await eventually(lambda: node.api.get(PODS, "etcd-node-1"))
    before = first["metadata"]["uid"]
    write(folder / "etcd.yaml", MANIFEST.replace("image: app", "image: app2, args: [x]"))
    await node.clock.advance(1.1)
    await eventually(lambda: len(node.runtime.named("c")) == 2 and node.runtime.named("c")[0].exit_status)
    await eventually(lambda: node.api.get(PODS, "etcd-node-1")["metadata"]["uid"] != before)


async def test_a_deleted_mirror_comes_back_and_the_pod_runs_on(node: Any, folder: Path) -> None:
    write(folder / "etcd.yaml")
    await node.clock.advance(1.1)
    before = (await eventually(lambda: node.api.get(PODS, "etcd-node-1")))["metadata"]["uid"]
    node.api.delete_pod("etcd-node-1", 30)
    await eventually(lambda: node.api.get(PODS, "etcd-node-1")["metadata"]["uid"] != before)
    assert node.runtime.named("c")[0].exit_status is None


async def test_a_removed_file_ends_the_pod_and_its_mirror(node: Any, folder: Path) -> None:
    write(folder / "etcd.yaml")
    await node.clock.advance(1.1)
    await eventually(lambda: node.api.get(PODS, "etcd-node-1"))
    (folder / "etcd.yaml").unlink()
    await node.clock.advance(1.1)
    await eventually(lambda: node.runtime.named("c")[0].exit_status)
    await eventually(lambda: node.api.get(PODS, "etcd-node-1") is None)


async def test_a_file_that_turns_to_garbage_changes_nothing_that_runs(node: Any, folder: Path) -> None:
    write(folder / "etcd.yaml")
    await node.clock.advance(1.1)
    await eventually(lambda: node.runtime.named("c"))
    write(folder / "etcd.yaml", "{")
    await node.clock.advance(1.1)
    assert node.runtime.named("c")[0].exit_status is None


@pytest.mark.parametrize("text", ["", "{", "- a", "kind: Service\napiVersion: v1", "kind: Pod\napiVersion: v1",
                                  "kind: Pod\napiVersion: v1\nmetadata: {name: x}\nspec: {containers: []}"])
def test_what_is_no_pod_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path / "x.yaml", text)
    with pytest.raises(InvalidManifest):
        read_manifest(tmp_path / "x.yaml", "node-1", "now")
