"""The client libraries people use, each as its own documentation says."""

import asyncio
import contextlib
import gc
import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from miniplane.testing import TestCluster

pytestmark = [
    pytest.mark.e2e,
    # What the libraries do on the inside is not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]

NODE_MODULES = Path(__file__).parent.parent.parent / "build" / "node" / "node_modules"
NAMESPACE = "default"
#: Answers every line it is sent, so that attach has somebody to talk to.
LISTENER = ["sh", "-c", "echo started; while read line; do echo heard $line; done"]


def pod(name: str, **container: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "busybox", "command": LISTENER, "stdin": True} | container],
        },
    }


def eventually(check: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)
    return found


@pytest.fixture(autouse=True)
def no_litter() -> Iterator[None]:
    """Sockets a library leaves to the garbage collector are collected before another test is blamed for them."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="module")
def echo(two_nodes: TestCluster) -> Iterator[TestCluster]:
    """The cluster, with an HTTP echo pod called `echo`."""
    kubernetes = pytest.importorskip("kubernetes")
    kubernetes.config.load_kube_config(str(two_nodes.kubeconfig))
    core = kubernetes.client.CoreV1Api()
    core.create_namespaced_pod(NAMESPACE, pod("echo", image="miniplane.local/echo", command=None, stdin=False))
    eventually(lambda: core.read_namespaced_pod("echo", NAMESPACE).status.phase == "Running")
    yield two_nodes
    core.delete_namespaced_pod("echo", NAMESPACE)


def test_kubernetes_creates_watches_logs_execs_attaches_and_forwards(echo: TestCluster) -> None:
    import kubernetes
    from kubernetes.stream import portforward, stream

    kubernetes.config.load_kube_config(str(echo.kubeconfig))
    core = kubernetes.client.CoreV1Api()
    core.create_namespaced_pod(NAMESPACE, pod("py"))
    watch = kubernetes.watch.Watch()
    for event in watch.stream(
        core.list_namespaced_pod, NAMESPACE, field_selector="metadata.name=py", timeout_seconds=20
    ):
        if event["object"].status.phase == "Running":
            watch.stop()
    assert core.read_namespaced_pod_log("py", NAMESPACE) == "started\n"
    said = stream(
        core.connect_get_namespaced_pod_exec,
        "py",
        NAMESPACE,
        command=["sh", "-c", "echo out; echo err >&2; exit 3"],
        stderr=True,
        stdin=False,
        stdout=True,
        tty=False,
        _preload_content=False,
    )
    said.run_forever(timeout=20)
    assert (said.read_stdout(), said.read_stderr(), said.returncode) == ("out\n", "err\n", 3)
    attached = stream(
        core.connect_get_namespaced_pod_attach,
        "py",
        NAMESPACE,
        stderr=True,
        stdin=True,
        stdout=True,
        tty=False,
        _preload_content=False,
    )
    attached.write_stdin("hello\n")
    heard = eventually(lambda: attached.update(timeout=1) or (attached.peek_stdout() and attached.read_stdout()))
    assert "heard hello" in heard
    attached.close()
    forward = portforward(core.connect_get_namespaced_pod_portforward, "echo", NAMESPACE, ports="8080")
    http = forward.socket(8080)
    http.setblocking(True)
    http.sendall(b"GET /from-python HTTP/1.0\r\n\r\n")
    answer = b""
    while data := http.recv(65536):
        answer += data
    assert b"/from-python" in answer and forward.error(8080) is None
    core.delete_namespaced_pod("py", NAMESPACE)


async def test_kubernetes_asyncio_creates_watches_logs_and_execs(echo: TestCluster) -> None:
    aio = pytest.importorskip("kubernetes_asyncio")
    from kubernetes_asyncio.stream import WsApiClient

    await aio.config.load_kube_config(str(echo.kubeconfig))
    async with aio.client.ApiClient() as api, WsApiClient() as sockets:
        core = aio.client.CoreV1Api(api)
        await core.create_namespaced_pod(NAMESPACE, pod("aio"))
        async with aio.watch.Watch().stream(
            core.list_namespaced_pod, NAMESPACE, field_selector="metadata.name=aio", timeout_seconds=20
        ) as events:
            async for event in events:
                if event["object"].status.phase == "Running":
                    break
        assert await core.read_namespaced_pod_log("aio", NAMESPACE) == "started\n"
        said = await aio.client.CoreV1Api(sockets).connect_get_namespaced_pod_exec(
            "aio", NAMESPACE, command=["sh", "-c", "echo out"], stderr=True, stdin=False, stdout=True, tty=False
        )
        assert said == "out\n"
        await core.delete_namespaced_pod("aio", NAMESPACE)


async def test_kr8s_creates_waits_logs_execs_and_forwards(echo: TestCluster) -> None:
    pytest.importorskip("kr8s")
    import kr8s.asyncio
    from kr8s.asyncio.objects import Pod

    api = await kr8s.asyncio.api(kubeconfig=str(echo.kubeconfig))
    made = await Pod(pod("kr8s"), api=api)
    await made.create()
    await made.wait("condition=Ready", timeout=20)
    assert [line async for line in made.logs()] == ["started"]
    answer = await made.exec(["sh", "-c", "echo out; exit 3"], check=False)
    assert (answer.stdout, answer.returncode) == (b"out\n", 3)
    target = await Pod.get("echo", namespace=NAMESPACE, api=api)
    async with target.portforward(8080, local_port="auto") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /from-kr8s HTTP/1.0\r\n\r\n")
        assert b"/from-kr8s" in await asyncio.wait_for(reader.read(), 20)
        writer.close()
    await made.delete()


def test_lightkube_creates_watches_logs_applies_and_deletes(echo: TestCluster) -> None:
    pytest.importorskip("lightkube")
    from lightkube import Client, KubeConfig
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import ConfigMap, Pod

    client = Client(config=KubeConfig.from_file(str(echo.kubeconfig)), namespace=NAMESPACE, field_manager="lightkube")
    client.create(Pod.from_dict(pod("light")))
    for operation, found in client.watch(Pod, fields={"metadata.name": "light"}):
        if operation != "DELETED" and found.status and found.status.phase == "Running":
            break
    assert list(client.log("light")) == ["started\n"]
    client.apply(ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=ObjectMeta(name="light"), data={"a": "1"}))
    assert client.get(ConfigMap, "light").data == {"a": "1"}
    client.delete(ConfigMap, "light")
    client.delete(Pod, "light")


def test_client_node_creates_watches_logs_execs_attaches_and_forwards(echo: TestCluster, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (NODE_MODULES / "@kubernetes" / "client-node").is_dir():
        pytest.skip(
            "no @kubernetes/client-node (npm install --prefix build/node @kubernetes/client-node@1)"
        )
    script = NODE_MODULES.parent / "client_node.mjs"
    script.write_text((Path(__file__).parent / "client_node.mjs").read_text())
    answer = subprocess.run(
        [node, str(script), NAMESPACE],
        capture_output=True,
        text=True,
        timeout=90,
        env=dict(os.environ) | {"KUBECONFIG": str(echo.kubeconfig)},
    )
    assert answer.returncode == 0, answer.stderr + answer.stdout
    assert answer.stdout.split("\n")[:-1] == ["create", "watch", "logs", "exec 3", "attach", "portforward true"]


with warnings.catch_warnings(), contextlib.suppress(ImportError):
    # Imported here, because their import alone warns, and a warning is an error in our tests.
    warnings.simplefilter("ignore")
    import kr8s  # noqa: F401
    import kubernetes  # noqa: F401
    import kubernetes_asyncio  # noqa: F401
    import lightkube  # noqa: F401
