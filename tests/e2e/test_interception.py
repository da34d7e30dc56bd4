"""Somebody sits between the nodes and the API server: nobody talks to him, unless verification is switched off.

Each component is started as the real process it is, with the kubeconfig it has, except that its server is the
interceptor: as if the network led there. The twin differs in one thing, that it does not verify.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from miniplane import join, tokens
from miniplane.konnectivity import AGENT_PORT
from miniplane.launch import environment
from miniplane.testing import MakeCluster, TestCluster, clusters

pytestmark = pytest.mark.e2e

ATTEMPTS = 3
PATIENCE = 30.0


@dataclass(frozen=True)
class Interceptor:
    port: int
    folder: Path

    @property
    def events(self) -> list[dict[str, str]]:
        lines = (self.folder / "events").read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def count(self, event: str) -> int:
        return sum(1 for item in self.events if item["event"] == event)

    def heard(self, who: str = "victim") -> str:
        return "".join(item["text"] for item in self.events if item["event"] == "read" and item["who"] == who)


def until(check: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def process(argv: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        started = subprocess.Popen(argv, stdout=output, stderr=output, env=environment() | {"HOME": str(log.parent)})
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def between(folder: Path, host: str, port: int) -> Iterator[Interceptor]:
    folder.mkdir(parents=True)
    program = Path(__file__).with_name("interceptor.py")
    with process([sys.executable, str(program), host, str(port), str(folder)], folder / "log"):
        until((folder / "port").exists, "the interceptor did not start")
        yield Interceptor(int((folder / "port").read_text()), folder)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    with clusters(lambda: tmp_path_factory.mktemp("interception")) as make:
        yield make()


@pytest.fixture
def interceptor(cluster: TestCluster, tmp_path: Path) -> Iterator[Interceptor]:
    url = urlsplit(cluster.url)
    assert url.hostname and url.port
    with between(tmp_path / "between", url.hostname, url.port) as found:
        yield found


def redirected(kubeconfig: Path, port: int, into: Path, *, verify: bool) -> Path:
    """The same credentials and trust, on a network that leads elsewhere."""
    document = yaml.safe_load(kubeconfig.read_text())
    for entry in document["clusters"]:
        entry["cluster"]["server"] = f"https://127.0.0.1:{port}"
        if not verify:
            entry["cluster"].pop("certificate-authority-data", None)
            entry["cluster"].pop("certificate-authority", None)
            entry["cluster"]["insecure-skip-tls-verify"] = True
    into.write_text(yaml.safe_dump(document))
    return into


def kubelet(cluster: TestCluster, port: int, folder: Path, verify: bool) -> list[str]:
    """A node that has its certificate."""
    state = cluster.state.path / "nodes" / "node-1"
    config = redirected(state / "kubelet.conf", port, folder / "kubelet.conf", verify=verify)
    return node(folder, f"--kubeconfig={config}", "--hostname-override=node-1")


def joining_kubelet(cluster: TestCluster, port: int, folder: Path, verify: bool) -> list[str]:
    """A node that has a bootstrap token: what an interceptor would like best."""
    config = redirected(cluster.state.path / "bootstrap-kubelet.conf", port, folder / "bootstrap.conf", verify=verify)
    if not verify:  # a bootstrap kubeconfig must name a CA for the kubeconfig it becomes; what it is matters no more
        document = yaml.safe_load(config.read_text())
        document["clusters"][0]["cluster"]["certificate-authority-data"] = yaml.safe_load(
            (cluster.state.path / "bootstrap-kubelet.conf").read_text())["clusters"][0]["cluster"][
                "certificate-authority-data"]
        config.write_text(yaml.safe_dump(document))
    return node(folder, f"--bootstrap-kubeconfig={config}", f"--kubeconfig={folder / 'new.conf'}",
                "--hostname-override=newcomer")


def node(folder: Path, *flags: str) -> list[str]:
    return [sys.executable, "-P", "-m", "minikubelet", f"--root-dir={folder / 'root'}", "--address=127.0.0.1",
            "--port=0", "--healthz-port=0", "--node-ip=127.0.0.1", "--proxy-mode=none", *flags]


def controller_manager(cluster: TestCluster, port: int, folder: Path, verify: bool) -> list[str]:
    return controllers(folder, *(redirected(cluster.state.path / f"{name}.conf", port, folder / f"{name}.conf",
                                            verify=verify) for name in ("controller-manager", "scheduler")))


def controllers(folder: Path, manager: Path, scheduler: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "minicontroller", f"--kubeconfig={manager}",
            f"--scheduler-kubeconfig={scheduler}"]


def pod(cluster: TestCluster, port: int, folder: Path, verify: bool) -> list[str]:
    """What runs in a pod: a service account's token and the CA that was injected beside it."""
    kubectl = ["kubectl", "--kubeconfig", str(cluster.kubeconfig)]
    token = subprocess.run([*kubectl, "create", "token", "default"], check=True, capture_output=True, text=True).stdout
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes((cluster.state.path / "pki" / "ca.crt").read_bytes())
    program = """
import http.client, pathlib, ssl, sys, time
folder, port, verify = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
context = ssl.create_default_context(cafile=folder / "ca.crt")
if not verify:
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
headers = {"Authorization": "Bearer " + (folder / "token").read_text()}
while True:
    try:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
        connection.request("GET", "/api/v1/namespaces/default/pods", headers=headers)
        print(connection.getresponse().read())
    except OSError as error:
        print(error)
    time.sleep(0.1)
"""
    return [sys.executable, "-c", program, str(folder), str(port), str(verify)]


VICTIMS = {
    "kubelet": (kubelet, "/api/v1/nodes/node-1"), "joining kubelet": (joining_kubelet, "Authorization: Bearer "),
    "controller manager and scheduler": (controller_manager, "minischeduler"),
    "pod": (pod, "Authorization: Bearer ey"),
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_nobody_who_verifies_tells_the_interceptor_anything(
        victim: str, cluster: TestCluster, interceptor: Interceptor, tmp_path: Path) -> None:
    argv = VICTIMS[victim][0](cluster, interceptor.port, tmp_path, True)
    with process(argv, tmp_path / "victim.log"):
        until(lambda: interceptor.count("connection") >= ATTEMPTS, "it did not even try")
    believed = [item for item in interceptor.events if item["event"] in ("handshake", "read")]
    assert believed == []


@pytest.mark.parametrize("victim", VICTIMS)
def test_whoever_does_not_verify_tells_him_everything(
        victim: str, cluster: TestCluster, interceptor: Interceptor, tmp_path: Path) -> None:
    make, secret = VICTIMS[victim]
    with process(make(cluster, interceptor.port, tmp_path, False), tmp_path / "victim.log"):
        until(lambda: secret in interceptor.heard(), "the interceptor heard nothing")
    assert "HTTP/1.1 " in interceptor.heard("server")


@pytest.mark.parametrize("pinned", [True, False])
def test_a_joining_node_does_not_show_its_token_to_whoever_passes_cluster_info_on(
        pinned: bool, cluster: TestCluster, interceptor: Interceptor, tmp_path: Path) -> None:
    """cluster-info is public: he may have it, signature and all. With it comes the CA that he cannot be."""
    token = (cluster.state.path / "bootstrap-token").read_text().strip()
    pin = tokens.join_command(cluster.state, token).split()[-1]
    asked = join.Join("127.0.0.1", interceptor.port, token, (pin,) if pinned else (), "x", "127.0.0.1", tmp_path)
    for _ in range(ATTEMPTS):
        with pytest.raises(join.JoinError, match="certificate verify failed"):
            join.discover(asked)
    until(lambda: interceptor.count("connection") >= 2 * ATTEMPTS, "it looked only once")
    assert "cluster-info" in interceptor.heard()
    assert token not in interceptor.heard() and token.partition(".")[2] not in interceptor.heard()
    url = urlsplit(cluster.url)
    assert url.hostname and url.port
    honest = replace(asked, host=url.hostname, port=url.port)
    assert join.discover(honest).server == cluster.url


def agent(cluster: TestCluster, port: int, ca: Path) -> list[str]:
    keys = cluster.state.path / "nodes" / "node-1" / "pki"
    return [sys.executable, "-P", "-m", "konnectivity.agent", "--agent-id=node-1", f"--ca-cert={ca}",
            f"--agent-cert={keys / 'konnectivity-agent.crt'}", f"--agent-key={keys / 'konnectivity-agent.key'}",
            "--proxy-server-host=127.0.0.1", f"--proxy-server-port={port}", "--health-server-port=0",
            "--admin-server-port=0"]


def test_a_konnectivity_agent_believes_only_the_ca_it_was_given(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster(egress="konnectivity")
    address = next(word.partition("=")[2] for word in _argv_of(cluster, "konnectivity-agent-node-1")
                   if word.startswith("--proxy-server-host="))
    with between(tmp_path / "between", address, AGENT_PORT) as found:
        real = cluster.state.path / "pki" / "konnectivity-ca.crt"
        with process(agent(cluster, found.port, real), tmp_path / "agent.log"):
            until(lambda: found.count("connection") >= 1, "it did not even try")
            until(lambda: found.count("end") >= 1, "it did not hang up")
        assert found.count("handshake") == 0
        with process(agent(cluster, found.port, found.folder / "ca.crt"), tmp_path / "twin.log"):
            until(lambda: found.heard(), "the twin said nothing")


def _argv_of(cluster: TestCluster, name: str) -> list[str]:
    pid = next(item["pid"] for item in cluster.status()["processes"] if item["name"] == name)
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
