"""The table of streams over every egress, and what clients see when the path breaks."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from miniplane.testing import TestCluster, clusters
from tests.e2e import egress
from tests.e2e.kubectl import Kubectl, installed
from tests.miniapiserver.egress.sshds import descendants

pytestmark = pytest.mark.e2e

KUBECTLS = installed()
EGRESSES = ("direct", "ssh", "ssh-embedded", "konnectivity", "konnectivity-tcp", "konnectivity-grpc")
#: Whose death breaks the path.
CARRIERS = {
    "ssh": ("sshd-node-1",), "ssh-embedded": ("sshd-node-1",),
    "konnectivity": ("konnectivity-agent-node-1", "konnectivity-server"),
    "konnectivity-tcp": ("konnectivity-agent-node-1", "konnectivity-server"),
    "konnectivity-grpc": ("konnectivity-agent-node-1", "konnectivity-server"),
}  # fmt: skip
FAULTS = [(name, carrier) for name, carriers in CARRIERS.items() for carrier in carriers]
RECONNECTED_WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class Way:
    """A cluster of one egress, and a kubectl with the table's pods in it."""

    egress: str
    cluster: TestCluster
    kubectl: Kubectl

    def kill(self, process: str) -> None:
        """With its children: OpenSSH has one for each connection."""
        pid = next(one["pid"] for one in self.cluster.status()["processes"] if one["name"] == process)
        for each in (pid, *descendants(pid)):
            os.kill(each, signal.SIGKILL)


@pytest.fixture(scope="module", params=EGRESSES)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    yield from open_way(request.param, tmp_path_factory)


def open_way(name: str, folders: pytest.TempPathFactory, **settings: str) -> Iterator[Way]:
    if not KUBECTLS:
        pytest.skip("no kubectl on this machine")
    if name == "ssh" and shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        pytest.skip("no OpenSSH sshd on this machine")
    version = max(KUBECTLS)
    with clusters(lambda: folders.mktemp("e")) as make:
        cluster = make(egress=name, **settings)
        kubectl = Kubectl(KUBECTLS[version], version, cluster.kubeconfig, "streams", folders.mktemp("home"))
        yield Way(name, cluster, egress.pods(kubectl))


@pytest.mark.parametrize("stream", egress.STREAMS)
def test_every_stream_passes(way: Way, stream: str) -> None:
    egress.STREAMS[stream](way.kubectl)


def test_no_connection_took_another_path(way: Way) -> None:
    egress.logs(way.kubectl)
    expected = "konnectivity" if "konnectivity" in way.egress else "ssh" if "ssh" in way.egress else "direct"
    assert egress.paths(way.cluster) == {expected}


def test_tunnels_are_in_readyz_and_metrics(way: Way) -> None:
    if "ssh" not in way.egress:
        assert "ssh-tunnels" not in way.kubectl("get", "--raw", "/readyz?verbose")
        return
    assert "[+]ssh-tunnels ok" in way.kubectl("get", "--raw", "/readyz?verbose")
    assert 'apiserver_ssh_tunnel_up{node="node-1"} 1' in way.kubectl("get", "--raw", "/metrics")


def test_the_api_servers_key_opens_channels_into_its_node_and_nothing_else(way: Way) -> None:
    if "ssh" not in way.egress or shutil.which("ssh") is None:
        pytest.skip("needs an SSH egress and OpenSSH's client")
    record, pki = way.cluster.state.require_record(), way.cluster.state.path / "pki" / "ssh"
    node = record.ranges.node_ip(1)
    base = ["ssh", "-F", "/dev/null", "-p", str(record.place.ssh_port), "-i", str(pki / "id_ed25519"),
            "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={pki / 'known_hosts'}",
            "-o", "HostKeyAlias=node-1"]

    def says(*words: str) -> tuple[int, str]:
        done = subprocess.run([*base, *words, node], input="", capture_output=True, text=True, timeout=20)
        return done.returncode, done.stderr

    assert says("-W", f"{node}:10250")[0] == 0
    assert "prohibited" in says("-W", f"127.0.0.1:{record.place.port}")[1]
    assert "prohibited" in says("-W", f"{record.ranges.node_ip(2)}:10250")[1]
    done = subprocess.run([*base, node, "id"], input="", capture_output=True, text=True, timeout=20)
    assert done.returncode != 0 and "uid=" not in done.stdout


# -- faults


@pytest.fixture(scope="module", params=CARRIERS)
def breakable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    yield from open_way(request.param, tmp_path_factory)


def recovers(way: Way) -> None:
    """The supervisor needs 0.2 s to start a program again; the path must be back two seconds after that program is."""
    deadline = time.monotonic() + 8.0
    up_since = None
    while True:
        if all(one["state"] == "running" for one in way.cluster.status()["processes"]):
            up_since = up_since or time.monotonic()
        answer = way.kubectl.run("logs", "shell")
        if answer.returncode == 0:
            break
        assert time.monotonic() < deadline, answer.stderr
    assert up_since is None or time.monotonic() - up_since < RECONNECTED_WITHIN + 1.5, "kubectl itself needs a second"


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
def test_a_broken_path_is_an_error_for_every_stream_and_comes_back(breakable: Way, which: int) -> None:
    carriers = CARRIERS[breakable.egress]
    if which >= len(carriers):
        pytest.skip("one process carries this egress")
    carrier, kubectl = carriers[which], breakable.kubectl
    follow = subprocess.Popen(kubectl.argv("logs", "-f", "talker", "-c", "one"), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=kubectl.environment)
    attached = subprocess.Popen(kubectl.argv("attach", "-i", "mirror"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=kubectl.environment)
    running = subprocess.Popen(kubectl.argv("exec", "shell", "--", "sh", "-c", "echo on; sleep 60"),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=kubectl.environment)
    bulk = subprocess.Popen(kubectl.argv("exec", "shell", "--", "cat", "/dev/zero"), stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=kubectl.environment)
    with follow, attached, running, bulk, kubectl.start("port-forward", "pod/flood", ":8080") as forwarding:
        assert follow.stdout and attached.stdin and attached.stdout and running.stdout
        try:
            assert egress.SECRET in follow.stdout.readline()
            assert running.stdout.readline() == "on\n"
            attached.stdin.write("there\n")
            attached.stdin.flush()
            assert attached.stdout.readline() == "there\n"
            with socket.create_connection(("127.0.0.1", forwarding.port()), timeout=20) as flooded:
                assert _received(flooded, until=32 << 20) >= 32 << 20  # in the middle of what has no end
                breakable.kill(carrier)
                ends = {"logs -f": follow, "attach": attached, "exec": running, "bulk exec": bulk}
                errors = {name: process.communicate(timeout=20)[1] for name, process in ends.items()}
                assert _received(flooded) < 1 << 30, "it has ended"
            assert "lost connection to pod" in forwarding.output.read()
        finally:
            for process in (follow, attached, running, bulk):
                process.kill()
    assert {name: process.returncode for name, process in ends.items()} == dict.fromkeys(ends, 1), errors
    assert all("error" in text.lower() for text in errors.values()), errors
    recovers(breakable)


def _received(sock: socket.socket, until: int = 1 << 30) -> int:
    """How many bytes come, before the end if that is earlier; a reset is an end, too."""
    got = 0
    try:
        while got < until and (data := sock.recv(1 << 16)):
            got += len(data)
    except ConnectionError:
        pass
    return got


def test_many_dials_at_once_while_the_path_breaks_all_end(breakable: Way) -> None:
    base = f"/api/v1/namespaces/{breakable.kubectl.namespace}/pods/echo:8080/proxy/"
    with breakable.kubectl.start("proxy", "--port=0") as proxy:
        port = int(re.search(r":(\d+)", proxy.output.readline())[1])  # type: ignore[index]
        codes: list[int] = []

        def ask() -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
                sock.sendall(f"GET {base} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                answer = b""
                while data := sock.recv(65536):
                    answer += data
            codes.append(int(answer.split(b" ")[1]))
            if codes[-1] == 200:  # what is said to be whole is whole
                length = int(re.search(rb"content-length: (\d+)", answer.lower())[1])  # type: ignore[index]
                assert len(answer.partition(b"\r\n\r\n")[2]) == length

        threads = [threading.Thread(target=ask) for _ in range(100)]
        for number, thread in enumerate(threads):
            thread.start()
            if number == 50:
                breakable.kill(CARRIERS[breakable.egress][0])
        for thread in threads:
            thread.join(30)
        assert len(codes) == 100, "every dial has ended"
        assert set(codes) <= {200, 500, 502, 503}, codes
    recovers(breakable)


def test_without_a_tunnel_it_is_503_and_no_other_path_is_taken(tmp_path_factory: pytest.TempPathFactory) -> None:
    for way in open_way("ssh-embedded", tmp_path_factory):
        known_hosts = way.cluster.state.path / "pki" / "ssh" / "known_hosts"
        pinned = known_hosts.read_text()
        known_hosts.write_text("")
        way.kill("sshd-node-1")
        says = egress.eventually(lambda way=way: _unknown_host_key(way))
        assert "via ssh node-1: no tunnel" in says
        raw = way.kubectl.run("get", "--raw", "/api/v1/nodes/node-1/proxy/healthz", "-v=6")
        assert "503" in raw.stderr, raw.stderr
        assert way.kubectl.run("get", "--raw", "/readyz").returncode == 1
        assert egress.paths(way.cluster) == {"ssh"}
        known_hosts.write_text(pinned)
        recovers(way)


def _unknown_host_key(way: Way) -> str:
    text = way.kubectl.run("logs", "shell").stderr
    return text if "unknown host key" in text else ""


def test_files_of_the_nodes_ends_are_readable_by_nobody_else(way: Way) -> None:
    for folder in (way.cluster.state.path / "pki" / "ssh", *way.cluster.state.path.glob("nodes/*/ssh")):
        loose = [path for path in Path(folder).iterdir() if path.suffix != ".pub" and path.stat().st_mode & 0o077]
        assert [path.name for path in loose if path.name != "sshd_config"] == []
