"""Services as clients meet them: virtual IPs, node ports, endpoints that come and go, an API server that restarts."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from miniplane.testing import TestCluster, clusters
from tests.e2e.kubectl import Kubectl, installed

pytestmark = pytest.mark.e2e

#: Each pod answers with its own name.
NAMED = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: busybox
        command: [sh, -c, 'echo $NAME > /tmp/index.html; exec python3 -m http.server --bind $IP --directory /tmp 8080']
        env:
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


def eventually(check: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `check` returns once it is true. A poll: what is waited for is other programs' work."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    with clusters(lambda: tmp_path_factory.mktemp("services")) as make:
        yield make(nodes=2)


@pytest.fixture(scope="module")
def kubectl(cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    kubectls = installed()
    if not kubectls:
        pytest.skip("no kubectl on this machine")
    version = max(kubectls)
    found = Kubectl(kubectls[version], version, cluster.kubeconfig, "default", tmp_path_factory.mktemp("home"))
    found("apply", "-f", "-", stdin=NAMED)
    found("rollout", "status", "deployment/web", "--timeout=60s")
    return found


@dataclass(frozen=True, slots=True)
class Web:
    """The Service of this module: three pods on two nodes."""

    kubectl: Kubectl

    def get(self, *what: str) -> Any:
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    @property
    def vip(self) -> tuple[str, int]:
        return self.get("service", "web")["spec"]["clusterIP"], 80

    @property
    def node_port(self) -> int:
        return int(self.get("service", "web")["spec"]["ports"][0]["nodePort"])

    def node_addresses(self) -> dict[str, str]:
        return {item["metadata"]["name"]: item["status"]["addresses"][0]["address"]
                for item in self.get("nodes")["items"]}

    def pods(self) -> dict[str, str]:
        """Name → node, of those that are to stay."""
        return {item["metadata"]["name"]: item["spec"]["nodeName"]
                for item in self.get("pods", "-l", "app=web")["items"]
                if "deletionTimestamp" not in item["metadata"]}

    def spec(self, **changes: object) -> None:
        self.kubectl("patch", "service", "web", "--type=merge", "-p", json.dumps({"spec": changes}))


@pytest.fixture
def web(kubectl: Kubectl) -> Iterator[Web]:
    made = Web(kubectl)
    yield made
    made.spec(sessionAffinity="None", sessionAffinityConfig=None, externalTrafficPolicy="Cluster",
              internalTrafficPolicy="Cluster")
    kubectl("scale", "deployment/web", "--replicas=3")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: asked(made.vip, 30).keys() == made.pods().keys())


def ask(address: tuple[str, int]) -> str:
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/", timeout=5) as answer:
        return str(answer.read().decode().strip())


def asked(address: tuple[str, int], times: int) -> Counter[str]:
    """Who answered how often. Nobody at all counts as `refused`."""
    found: Counter[str] = Counter()
    for _ in range(times):
        try:
            found[ask(address)] += 1
        except OSError:
            found["refused"] += 1
    return found


def test_a_cluster_ip_spreads_over_its_three_endpoints(web: Web) -> None:
    eventually(lambda: set(asked(web.vip, 30)) == set(web.pods()))
    found = asked(web.vip, 90)
    assert set(found) == set(web.pods())
    assert min(found.values()) > 10


def test_a_node_port_is_open_on_every_node_and_on_localhost(web: Web) -> None:
    for address in (*web.node_addresses().values(), "127.0.0.1"):
        assert ask((address, web.node_port)) in web.pods()


def test_a_client_with_affinity_stays_until_its_pod_ends_and_then_another_serves(web: Web) -> None:
    web.spec(sessionAffinity="ClientIP")
    eventually(lambda: len(asked(web.vip, 10)) == 1)
    [first] = asked(web.vip, 30)
    web.kubectl("delete", "pod", first, "--wait=false")
    eventually(lambda: ask(web.vip) != first)
    assert len(asked(web.vip, 30)) == 1


def test_while_a_pod_dies_the_others_serve_without_a_failure(web: Web) -> None:
    """Between its death and the endpoint slice that says so, its refusals are passed over."""
    victim = next(iter(web.pods()))
    web.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
    found = asked(web.vip, 200)
    assert "refused" not in found
    eventually(lambda: victim not in asked(web.vip, 20))


def test_without_endpoints_a_client_is_refused_at_once(web: Web) -> None:
    web.kubectl("scale", "deployment/web", "--replicas=0")
    eventually(lambda: asked(web.vip, 1) == {"refused": 1})
    started = time.monotonic()
    with pytest.raises(ConnectionRefusedError), contextlib.closing(socket.create_connection(web.vip, timeout=5)):
        pass
    assert time.monotonic() - started < 0.5


def test_a_local_node_port_is_answered_by_the_nodes_own_pods_only(web: Web) -> None:
    web.spec(externalTrafficPolicy="Local")
    pods = web.pods()
    for node, address in web.node_addresses().items():
        own = {name for name, where in pods.items() if where == node}
        wanted = own or {"refused"}
        eventually(partial(_is_answered_by, (address, web.node_port), wanted))


def _is_answered_by(address: tuple[str, int], wanted: set[str]) -> bool:
    return set(asked(address, 20)) == wanted


def test_half_of_a_connection_may_end_before_the_other(web: Web) -> None:
    with socket.create_connection(web.vip, timeout=5) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.0 200")
    assert answer.strip().rpartition(b"\n")[2].decode() in web.pods()


def kubernetes(cluster: TestCluster) -> tuple[int, str]:
    """What the virtual IP of the API server says to a client that verifies it."""
    context = ssl.create_default_context(cafile=str(cluster.state.path / "pki" / "ca.crt"))
    vip = re.sub(r".*service-cluster-ip-range=([\d.]+)\.0/16.*", r"\1.1", _argv_of_the_api_server(cluster))
    # Not urllib: it forgets the socket of a handshake that the restarting server cut off.
    address = (vip, 443)
    with socket.create_connection(address, 5) as plain, context.wrap_socket(plain, server_hostname=vip) as tls:
        tls.sendall(f"GET /version HTTP/1.0\r\nHost: {vip}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: tls.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)["major"]


def _argv_of_the_api_server(cluster: TestCluster) -> str:
    [row] = [row for row in cluster.status()["processes"] if row["name"] == "miniapiserver"]
    with open(f"/proc/{row['pid']}/cmdline") as file:
        return file.read().replace("\0", " ")


def test_the_virtual_ip_of_the_api_server_outlives_its_restart(cluster: TestCluster, kubectl: Kubectl) -> None:
    assert kubernetes(cluster) == (200, "1")
    cluster.restart("miniapiserver")

    def is_back() -> bool:
        with contextlib.suppress(OSError, ValueError, IndexError):
            return kubernetes(cluster) == (200, "1")
        return False

    eventually(is_back)
    eventually(lambda: kubectl.run("get", "--raw", "/readyz").returncode == 0)


def test_when_the_kubelet_that_listens_is_killed_another_takes_over(cluster: TestCluster, web: Web) -> None:
    def leader() -> int:
        """The process that has the virtual IP's socket."""
        host, port = web.vip
        wanted = f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"
        with open("/proc/net/tcp") as file:
            inodes = {line.split()[9] for line in file if line.split()[1] == wanted and line.split()[3] == "0A"}
        for row in filter(lambda row: row.get("pid"), cluster.status()["processes"]):
            for fd in os.listdir(f"/proc/{row['pid']}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{row['pid']}/fd/{fd}")[8:-1] in inodes:
                        return int(row["pid"])
        return 0

    first = leader()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: asked(web.vip, 1).keys() - {"refused"}, seconds=5.0)
    assert leader() not in (0, first)


@pytest.fixture
def in_the_kernel(tmp_path: Path) -> Iterator[tuple[list[str], Path]]:
    """A cluster in a network namespace of its own whose kubelets write nftables rules: how to enter it, kubeconfig."""
    programs = [shutil.which(name) for name in ("nft", "ip", "kubectl")]
    if os.geteuid() != 0 or None in programs:
        pytest.skip("needs root, nft, ip and kubectl")
    name = f"mp-test-{uuid.uuid4().hex[:8]}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    enter = ["ip", "netns", "exec", name]
    settings = tmp_path / "cluster.yaml"
    settings.write_text("apiVersion: miniplane/v1alpha1\nkind: Cluster\n"
                        "extraArgs: {minikubelet: [--proxy-mode=nftables]}\n")
    miniplane, options = [*enter, sys.executable, "-m", "miniplane"], ["--state-dir", str(tmp_path), "--name", "nft"]
    try:
        subprocess.run([*enter, "ip", "link", "set", "lo", "up"], check=True)
        subprocess.run([*miniplane, "up", *options, "--config", str(settings), "--nodes=2"], check=True,
                       capture_output=True, timeout=120)
        yield enter, tmp_path / "clusters" / "nft"
    finally:
        subprocess.run([*miniplane, "down", *options], capture_output=True, timeout=60)
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_the_kernel_does_the_same_where_the_machine_allows_it(in_the_kernel: tuple[list[str], Path]) -> None:
    enter, home = in_the_kernel

    def run(*argv: str, stdin: str = "") -> str:
        return subprocess.run([*enter, *argv], input=stdin, capture_output=True, text=True, timeout=90).stdout

    def kubectl(*words: str, stdin: str = "") -> str:
        return run("kubectl", "--kubeconfig", str(home / "admin.conf"), *words, stdin=stdin)

    kubectl("apply", "-f", "-", stdin=NAMED)
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    pods = set(kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.name}").split())
    vip, node_port = kubectl("get", "service", "web", "-o",
                             "jsonpath={.spec.clusterIP} {.spec.ports[0].nodePort}").split()
    many = "import sys, urllib.request\nfor _ in range(30): print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    for url in (f"http://{vip}", f"http://127.0.10.1:{node_port}"):
        eventually(lambda url=url: set(run(sys.executable, "-c", many, url).split()) == pods)  # type: ignore[misc]
    kubernetes = kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
    verified = ("import ssl, sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], "
                "context=ssl.create_default_context(cafile=sys.argv[2])).status)")
    assert run(sys.executable, "-c", verified, f"https://{kubernetes}/version", str(home / "pki" / "ca.crt")) == "200\n"
    kubectl("scale", "deployment/web", "--replicas=0")
    once = ("import sys, socket\ntry: socket.create_connection((sys.argv[1], 80), timeout=3)\n"
            "except OSError as error: print(type(error).__name__)")
    eventually(lambda: run(sys.executable, "-c", once, vip) == "ConnectionRefusedError\n")


def test_the_proxy_says_that_it_is_well(web: Web) -> None:
    for address in web.node_addresses().values():
        found = json.loads(eventually(partial(_text, f"http://{address}:10256/healthz")))
        assert (found["healthy"], found["nodeEligible"], found["status"]["IPv4"]["healthy"]) == (True, True, True)
        assert _text(f"http://{address}:10249/proxyMode") == "userspace"


def _text(url: str) -> str:
    """Empty while nobody answers: the kubelet may just have been started again."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())
    return ""
