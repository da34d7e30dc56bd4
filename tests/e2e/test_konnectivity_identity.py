"""Agents that show a service account token instead of a certificate, and servers that are counted by their leases.

Two servers of our own with the cluster's `konnectivity-server.conf`, beside a real API server: TokenReview with an
audience, RBAC, leases. Every refusal stands beside what is let in.
"""

import contextlib
import itertools
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from certs import kubeconfig
from miniplane.testing import TestCluster, clusters
from tests.e2e.node_identity import Caller, eventually

pytestmark = pytest.mark.e2e

JSON = dict[str, Any]
SYSTEM = "/api/v1/namespaces/kube-system"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
AUDIENCE, AGENT, OTHER = "system:konnectivity-server", "konnectivity-agent", "another-account"
SERVER_USER = "system:konnectivity-server"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    with clusters(lambda: tmp_path_factory.mktemp("konnectivity")) as make:
        yield make()


@pytest.fixture(scope="module")
def admin(cluster: TestCluster) -> Caller:
    caller = Caller.of(cluster.kubeconfig)
    for name in (AGENT, OTHER):
        account = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": name}}
        assert caller.post(f"{SYSTEM}/serviceaccounts", account)["code"] == 201
    return caller


def subject(kind: str, name: str) -> JSON:
    if kind == "User":
        return {"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"}
    return {"kind": kind, "name": name, "namespace": "kube-system"}


@pytest.fixture(scope="module")
def leases_allowed(admin: Caller) -> None:
    """Servers may keep leases, agents may read them."""
    for name, who, verbs in (
        ("server", subject("User", SERVER_USER), ["get", "list", "create", "update", "delete"]),
        ("agent", subject("ServiceAccount", AGENT), ["list", "watch"]),
    ):
        metadata = {"name": f"konnectivity-{name}-leases"}
        rules = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs}]
        path = f"{RBAC}/namespaces/kube-system"
        role = {"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata, "rules": rules}
        assert admin.post(f"{path}/roles", role)["code"] == 201
        bound = binding("RoleBinding", metadata["name"], "Role", metadata["name"], who)
        assert admin.post(f"{path}/rolebindings", bound)["code"] == 201


def binding(kind: str, name: str, role_kind: str, role: str, who: JSON) -> JSON:
    return {
        "kind": kind,
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [who],
    }


@pytest.fixture
def reviews_allowed(admin: Caller) -> Iterator[None]:
    """The servers' user may ask for TokenReviews."""
    name = "konnectivity-server"
    body = binding("ClusterRoleBinding", name, "ClusterRole", "system:auth-delegator", subject("User", SERVER_USER))
    assert admin.post(f"{RBAC}/clusterrolebindings", body)["code"] == 201
    yield
    admin("DELETE", f"{RBAC}/clusterrolebindings/{name}")


def token(admin: Caller, account: str, *audiences: str) -> str:
    spec = {"audiences": list(audiences), "expirationSeconds": 600} if audiences else {"expirationSeconds": 600}
    answer = admin.post(
        f"{SYSTEM}/serviceaccounts/{account}/token",
        {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec},
    )
    assert answer["code"] == 201
    return str(answer["status"]["token"])


# ---------------------------------------------------------------- processes


@dataclass
class Program:
    """A server or an agent; `health` is its health port."""

    process: subprocess.Popen[bytes]
    log: Path
    health: int

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    @property
    def is_ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def says(self, text: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return text in self.log.read_text()

    def metric(self, name: str) -> str:
        lines = self.get("/metrics")[1].splitlines()
        return next((line.split()[1] for line in lines if line.startswith(f"konnectivity_network_proxy_{name} ")), "")

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@dataclass
class Bench:
    """Starts programs of one test, in its folder."""

    cluster: TestCluster
    folder: Path
    ending: contextlib.ExitStack

    def pki(self, name: str) -> str:
        return str(self.cluster.state.path / "pki" / name)

    def _start(self, module: str, name: str, health: int, *flags: str) -> Program:
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            command = [sys.executable, "-m", module, *flags]
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        program = Program(process, log, health)
        self.ending.callback(program.end)
        return program

    def front(self, name: str) -> str:
        return str(self.folder / f"{name}.sock")

    def server(self, name: str, port: int, *flags: str) -> Program:
        health = free_port()
        server = self._start(
            "konnectivity.server", name, health, "--mode=http-connect", f"--uds-name={self.front(name)}",
            "--server-port=0", f"--server-id={name}", "--agent-bind-address=127.0.0.1", f"--agent-port={port}",
            f"--cluster-cert={self.pki('konnectivity-server.crt')}",
            f"--cluster-key={self.pki('konnectivity-server.key')}",
            "--agent-namespace=kube-system", f"--agent-service-account={AGENT}",
            f"--authentication-audience={AUDIENCE}",
            f"--kubeconfig={self.cluster.state.path / 'konnectivity-server.conf'}",
            "--health-bind-address=127.0.0.1", f"--health-port={health}", f"--admin-port={free_port()}", *flags,
        )  # fmt: skip
        eventually(lambda: server.says("server.ready"))
        return server

    def agent(self, name: str, port: int, shown: str, *flags: str) -> Program:
        health, path = free_port(), self.folder / f"{name}.token"
        path.write_text(shown)
        return self._start(
            "konnectivity.agent", name, health, f"--agent-id={name}", "--proxy-server-host=127.0.0.1",
            f"--proxy-server-port={port}", f"--ca-cert={self.pki('konnectivity-ca.crt')}",
            f"--service-account-token-path={path}", "--health-server-host=127.0.0.1",
            f"--health-server-port={health}", f"--admin-server-port={free_port()}", "--sync-interval=200ms", *flags,
        )  # fmt: skip


@pytest.fixture
def bench(cluster: TestCluster) -> Iterator[Bench]:
    # Not pytest's folder: a UNIX socket's name has little room.
    folder = Path(tempfile.mkdtemp(prefix="konn-"))
    with contextlib.ExitStack() as ending:
        ending.callback(shutil.rmtree, folder)
        yield Bench(cluster, folder, ending)


_given: set[int] = set()


def free_port() -> int:
    """A free port that nobody got before."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


@contextlib.contextmanager
def accepting(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A listener on loopback; every connection is served by a thread. Its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def balancer(*ports: int) -> Iterator[int]:
    """A load balancer: connections go to `ports` in turn, to the next one where nobody listens."""
    turn = itertools.cycle(ports)

    def serve(connection: socket.socket) -> None:
        with connection:
            for _ in ports:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", next(turn))) as other:
                    back = threading.Thread(target=pump, args=(other, connection), daemon=True)
                    back.start()
                    pump(connection, other)
                    back.join()
                    return

    with accepting(serve) as port:
        yield port


def echo(connection: socket.socket) -> None:
    with connection:
        pump(connection, connection)


def through(path: str, port: int) -> bytes:
    """What an echo on `port` answers, reached over the front at `path`."""
    with socket.socket(socket.AF_UNIX) as front:
        front.settimeout(10)
        front.connect(path)
        front.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % port)
        answer = front.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200"):
            return answer
        front.sendall(b"hello")
        return front.recv(5, socket.MSG_WAITALL)


# ---------------------------------------------------------------- tokens


@pytest.mark.usefixtures("reviews_allowed")
def test_an_agent_with_a_token_for_the_servers_is_let_in(bench: Bench, admin: Caller) -> None:
    port = free_port()
    server = bench.server("one", port)
    assert server.get("/readyz")[0] == 500
    bench.agent("agent", port, token(admin, AGENT, AUDIENCE))
    eventually(lambda: server.is_ready)
    with accepting(echo) as target:
        assert through(bench.front("one"), target) == b"hello"


@pytest.mark.usefixtures("reviews_allowed")
@pytest.mark.parametrize(
    ("account", "audiences", "reason"),
    [
        (AGENT, ("another-audience",), "token review: "),
        (AGENT, (), "token review: "),
        (OTHER, (AUDIENCE,), f"token of 'system:serviceaccount:kube-system:{OTHER}'"),
    ],
    ids=["another audience", "the API server's audience", "another service account"],
)
def test_an_agent_with_any_other_token_is_refused(
    bench: Bench, admin: Caller, account: str, audiences: tuple[str, ...], reason: str
) -> None:
    port = free_port()
    server = bench.server("one", port)
    agent = bench.agent("agent", port, token(admin, account, *audiences))
    eventually(lambda: server.says("agent.refused") and agent.says("server refused the call: authentication failed"))
    assert server.says("status=UNAUTHENTICATED")
    assert server.says(reason)
    assert server.get("/readyz")[0] == 500
    assert not agent.is_ready


@pytest.mark.usefixtures("reviews_allowed")
def test_a_token_no_api_server_made_is_refused(bench: Bench) -> None:
    port = free_port()
    server = bench.server("one", port)
    agent = bench.agent("agent", port, "abc.def.ghi")
    eventually(lambda: server.says("agent.refused") and agent.says("authentication failed"))
    assert not server.is_ready


def test_a_server_that_may_not_ask_lets_nobody_in(bench: Bench, admin: Caller) -> None:
    port = free_port()
    server = bench.server("one", port)
    agent = bench.agent("agent", port, token(admin, AGENT, AUDIENCE))
    eventually(lambda: server.says("forbidden") and agent.says("authentication is not available"))
    assert not server.is_ready


# ---------------------------------------------------------------- leases


@pytest.mark.usefixtures("reviews_allowed", "leases_allowed")
def test_an_agent_finds_every_server_that_has_a_lease(bench: Bench, admin: Caller) -> None:
    ports = {"one": free_port(), "two": free_port()}
    path = bench.folder / "agent.conf"
    kubeconfig.write(path, kubeconfig.Entry.with_token("agent", AGENT, admin.url, admin.ca, token(admin, AGENT)))
    servers = {name: bench.server(name, port, "--enable-lease-controller") for name, port in ports.items()}
    eventually(lambda: leases(admin) == {"konnectivity-proxy-server-one", "konnectivity-proxy-server-two"})
    with balancer(*ports.values()) as port, accepting(echo) as target:
        counting = (f"--kubeconfig={path}", "--count-server-leases")
        agent = bench.agent("agent", port, token(admin, AGENT, AUDIENCE), *counting)
        eventually(lambda: agent.metric("agent_open_server_connections") == "2")
        assert agent.metric("agent_known_server_count") == "2"
        for name, server in servers.items():
            assert server.is_ready
            assert through(bench.front(name), target) == b"hello"
        # A server that ends takes its lease along; the other one goes on.
        assert servers["two"].end() == 0
        assert leases(admin) == {"konnectivity-proxy-server-one"}
        eventually(lambda: agent.metric("agent_known_server_count") == "1", 30)
        assert through(bench.front("one"), target) == b"hello"


@pytest.mark.usefixtures("reviews_allowed")
def test_an_agent_that_does_not_count_leases_believes_the_server(bench: Bench, admin: Caller) -> None:
    ports = (free_port(), free_port())
    for name, at in zip(("one", "two"), ports, strict=True):
        bench.server(name, at, "--server-count=1")
    with balancer(*ports) as port:
        agent = bench.agent("agent", port, token(admin, AGENT, AUDIENCE))
        eventually(lambda: agent.is_ready)
        assert agent.metric("agent_known_server_count") == "1"
        assert agent.metric("agent_open_server_connections") == "1"


def leases(admin: Caller) -> set[str]:
    found = admin.get(f"{LEASES}?labelSelector=k8s-app%3Dkonnectivity-server")
    return {item["metadata"]["name"] for item in found["items"]}
