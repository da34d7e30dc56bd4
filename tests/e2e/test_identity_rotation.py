"""Certificates that live for seconds, under load: streams go on, and nobody is ever turned away."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from miniplane.testing import MakeCluster, TestCluster
from tests.e2e.node_identity import Caller, eventually

pytestmark = pytest.mark.e2e

JSON = dict[str, Any]
LIFETIME = 16
ROTATIONS = 2
PODS = "/api/v1/namespaces/default/pods"


@contextmanager
def joined(cluster: TestCluster, admin: Caller, folder: Path) -> Iterator[Path]:
    """A node whose certificates all come from the signer; its log."""
    argv = subprocess.run([sys.executable, "-m", "miniplane", "join-command", f"--state-dir={cluster.state.path}"],
                          check=True, capture_output=True, text=True).stdout.split()
    first = admin.get("/api/v1/nodes/node-1")["status"]["addresses"][0]["address"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "miniplane", *argv[1:], "--name=spinner",
                                    f"--node-ip={ip_address(first) + 71}", f"--directory={folder / 'node'}"],
                                   stdout=log, stderr=log)
    try:
        eventually(lambda: is_ready(admin), 30)
        yield folder / "log"
    finally:
        process.terminate()
        process.wait(20)


def is_ready(admin: Caller) -> bool:
    node = admin.get("/api/v1/nodes/spinner")
    conditions = (node["status"].get("conditions") or ()) if node["code"] == 200 else ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def run(admin: Caller, name: str, script: str) -> None:
    container = {"name": "c", "image": "local", "command": ["sh", "-c", script], "stdin": True}
    body = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": {
        "nodeName": "spinner", "terminationGracePeriodSeconds": 0, "containers": [container]}}
    assert admin.post(PODS, body)["code"] == 201
    eventually(lambda: (admin.get(f"{PODS}/{name}").get("status") or {}).get("phase") == "Running")


def stored(log: Path, prefix: str) -> int:
    lines = log.read_text().splitlines()
    return sum(1 for line in lines if "certificate.stored" in line and f"{prefix}-current.pem" in line)


class Reader:
    """The lines of a process, as they come."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.lines: list[str] = []
        self.process = process
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def kubectl(cluster: TestCluster, *words: str) -> Reader:
    return Reader(subprocess.Popen(["kubectl", "--kubeconfig", str(cluster.kubeconfig), *words], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))


def refusals(admin: Caller) -> float:
    """How often the API server has answered 401."""
    text = admin.get("/metrics")["text"]
    lines = [line for line in text.splitlines() if line.startswith("apiserver_request_total{") and 'code="401"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_streams_outlive_the_certificates_they_began_with(make_cluster: MakeCluster, tmp_path: Path) -> None:
    signing = (f"--cluster-signing-duration={LIFETIME}s", "--cluster-signing-minimum=5s")
    cluster = make_cluster(extra_args={"minicontroller": signing})
    admin = Caller.of(cluster.kubeconfig)
    with joined(cluster, admin, tmp_path) as log:
        run(admin, "ticker", "i=0; while true; do echo tick $i; i=$((i+1)); sleep 0.1; done")
        run(admin, "echo", "cat")
        assert Caller.with_token(cluster, "nonsense").get("/api")["code"] == 401
        begun, refused = time.time(), refusals(admin)
        assert refused >= 1  # it does count them
        client, serving = stored(log, "kubelet-client"), stored(log, "kubelet-server")
        logs, attached = kubectl(cluster, "logs", "-f", "ticker"), kubectl(cluster, "attach", "-i", "echo")
        try:
            sent = converse(attached, lambda: min(stored(log, "kubelet-client") - client,
                                                  stored(log, "kubelet-server") - serving) >= ROTATIONS)
            assert logs.process.poll() is None and attached.process.poll() is None
        finally:
            logs.close()
            attached.close()
        assert [line for line in attached.lines if line.startswith("line ")] == [f"line {n}" for n in range(sent)]
        ticks = [line for line in logs.lines if line.startswith("tick ")]
        assert ticks == [f"tick {n}" for n in range(len(ticks))]
        assert len(ticks) > (time.time() - begun) * 4
        assert is_ready(admin)
        # What was opened with the old certificates ended by itself; new streams find the new ones.
        assert admin.get(f"{PODS}/ticker/log?tailLines=1")["code"] == 200
        assert refusals(admin) == refused
        assert "Unauthorized" not in log.read_text()


def converse(attached: Reader, is_over: Any) -> int:
    """Say a line now and then until `is_over`, and wait for the last answer; how many lines there were."""
    assert attached.process.stdin is not None
    count, deadline = 0, time.monotonic() + 90
    while not is_over():
        assert time.monotonic() < deadline, "the certificates were not rotated"
        attached.process.stdin.write(f"line {count}\n")
        attached.process.stdin.flush()
        count += 1
        time.sleep(0.2)
    eventually(lambda: f"line {count - 1}" in attached.lines)
    return count
