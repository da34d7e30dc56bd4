"""A real kube-apiserver in front of everything else of ours; opt-in: KONNECTIVITY_UPSTREAM_BIN names the folder of
kube-apiserver (1.36 was tried).

It takes the place of ours, with the flags and files `up` gives ours: its egress selector dials through our Konnectivity
server in each front mode, it presents its client certificate to our kubelet and verifies that one's, and our kubelet,
controllers and scheduler are its clients. What it keeps lies under a prefix of its own in the same etcd.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from miniplane.cluster import programs
from miniplane.testing import TestCluster, clusters

FOLDER = os.environ.get("KONNECTIVITY_UPSTREAM_BIN", "")
PROGRAM = Path(FOLDER) / "kube-apiserver"
KUBECTL = shutil.which("kubectl")

pytestmark = pytest.mark.upstream
if not FOLDER or not PROGRAM.exists():
    pytest.skip("KONNECTIVITY_UPSTREAM_BIN holds no kube-apiserver", allow_module_level=True)
if KUBECTL is None:
    pytest.skip("no kubectl on this machine", allow_module_level=True)

# What ours knows and kube-apiserver does not.
OURS_ALONE = ("--bootstrap-token-file", "--connections-socket", "--proxy-allow-cidrs")
NODE = "node-1"


@dataclass
class Upstream:
    """A kubectl's view of the real API server, and the cluster whose other processes work for it."""

    kubeconfig: Path
    cluster: TestCluster

    def argv(self, *words: str) -> list[str]:
        return [str(KUBECTL), "--kubeconfig", str(self.kubeconfig), *words]

    def __call__(self, *words: str, stdin: str | None = None) -> str:
        done = subprocess.run(self.argv(*words), input=stdin, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def succeeds(self, *words: str) -> bool:
        return subprocess.run(self.argv(*words), capture_output=True, timeout=90).returncode == 0

    def agent(self) -> int:
        processes = self.cluster.status()["processes"]
        return next(int(one["pid"]) for one in processes if one["name"].startswith("konnectivity-agent"))


def changed(argv: Sequence[str], flags: dict[str, str], without: Sequence[str] = ()) -> list[str]:
    """`argv` with some `--flag=value`s replaced, added or left out."""
    rest = [word for word in argv if word.partition("=")[0] not in (*flags, *without)]
    return [*rest, *(f"{name}={value}" for name, value in flags.items())]


@contextlib.contextmanager
def running(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file, subprocess.Popen(argv, stdout=file, stderr=file) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def until(holds: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def is_ready(url: str, ca: Path) -> bool:
    try:
        context = ssl.create_default_context(cafile=ca)
        with urllib.request.urlopen(f"{url}/readyz", context=context, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module", params=["konnectivity", "konnectivity-tcp", "konnectivity-grpc"])
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    folder = tmp_path_factory.mktemp("upstream")
    with clusters(lambda: tmp_path_factory.mktemp("cluster")) as make, contextlib.ExitStack() as life:
        cluster = make(storage="etcd", egress=request.param)
        table = {row.name: row.argv for row in programs(cluster.cluster.record, cluster.state)}
        port = free_port()
        url = f"https://127.0.0.1:{port}"

        def pointed(name: str, source: Path) -> str:
            """A copy of a kubeconfig that names the real API server."""
            copy = folder / name
            copy.write_text(source.read_text().replace(cluster.url, url))
            copy.chmod(0o600)
            assert url in copy.read_text()
            return str(copy)

        flags = next(index for index, word in enumerate(table["miniapiserver"]) if word.startswith("--"))
        served = changed(
            table["miniapiserver"][flags:],
            {"--secure-port": str(port), "--etcd-prefix": "/upstream", "--audit-log-path": str(folder / "audit.log")},
            without=OURS_ALONE,
        )
        life.enter_context(running([str(PROGRAM), *served], folder / "kube-apiserver.log"))
        until(lambda: is_ready(url, cluster.state.path / "pki" / "ca.crt"), "kube-apiserver is ready")

        found = Upstream(Path(pointed("admin.conf", cluster.kubeconfig)), cluster)
        # Two identities and no more: ours have bindings of their own for that, kubeadm makes one for the other.
        for user, role in (
            ("system:kube-controller-manager", "cluster-admin"),
            ("kube-apiserver-kubelet-client", "system:kubelet-api-admin"),
        ):
            found("create", "clusterrolebinding", user.rpartition(":")[2], f"--clusterrole={role}", f"--user={user}")
        home = cluster.state.path
        controller = {
            "--kubeconfig": pointed("controller-manager.conf", home / "controller-manager.conf"),
            "--scheduler-kubeconfig": pointed("scheduler.conf", home / "scheduler.conf"),
        }
        life.enter_context(running(changed(table["minicontroller"], controller), folder / "minicontroller.log"))
        kubelet = {
            "--kubeconfig": pointed("kubelet.conf", home / "nodes" / NODE / "kubelet.conf"),
            "--port": str(free_port()),
            "--healthz-port": "0",
            "--root-dir": str(folder / "kubelet"),
            "--authorization-mode": "Webhook",
            "--anonymous-auth": "false",
            "--authentication-token-webhook": "true",
            "--proxy-mode": "none",
        }
        without = ("--config", "--connections-socket", "--pod-manifest-path")
        life.enter_context(running(changed(table[NODE], kubelet, without), folder / "minikubelet.log"))
        until(lambda: found.succeeds("get", "node", NODE), "the kubelet has registered its node")
        found("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=60s")
        found("create", "deployment", "ticker", "--image=miniplane.local/ticker")
        found("rollout", "status", "deployment/ticker", "--timeout=60s")
        yield found


def test_the_api_server_is_upstreams(upstream: Upstream) -> None:
    assert '"gitVersion": "v1.' in upstream("version", "-o", "json")
    assert "miniplane" not in upstream("get", "--raw", "/version")


def test_logs_come_through_our_konnectivity(upstream: Upstream) -> None:
    until(lambda: upstream("logs", "deploy/ticker"), "a line of the log")


def test_a_command_runs_with_its_input_and_its_exit_code(upstream: Upstream) -> None:
    read = ["exec", "-i", "deploy/ticker", "--", "sh", "-c", "cat; exit 7"]
    done = subprocess.run(upstream.argv(*read), input="hello\n", capture_output=True, text=True, timeout=60)
    assert done.stdout == "hello\n"
    assert done.returncode == 7
    assert "exit code 7" in done.stderr


def test_attach_shows_what_the_container_writes(upstream: Upstream) -> None:
    with subprocess.Popen(upstream.argv("attach", "deploy/ticker"), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)


def test_a_forwarded_port_carries_both_ways(upstream: Upstream) -> None:
    upstream("run", "echo", "--image=miniplane.local/echo", "--port=8080")
    upstream("wait", "--for=condition=Ready", "pod/echo", "--timeout=60s")
    argv = upstream.argv("port-forward", "pod/echo", ":8080")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            local = process.stdout.readline().split("->")[0].rpartition(":")[2].strip()
            request = urllib.request.Request(f"http://127.0.0.1:{local}/path", data=b"and back")
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert answer.status == 200
                assert b"and back" in answer.read()
        finally:
            process.send_signal(signal.SIGINT)


def test_without_the_agent_nothing_comes(upstream: Upstream) -> None:
    """The twin: the way is through our agent and nowhere else."""
    agent = upstream.agent()
    os.kill(agent, signal.SIGSTOP)
    try:
        argv = ["timeout", "3", *upstream.argv("exec", "deploy/ticker", "--", "echo", "hello")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        assert done.stdout == ""
    finally:
        os.kill(agent, signal.SIGCONT)
    until(lambda: upstream.succeeds("exec", "deploy/ticker", "--", "true"), "the way is open again")


def test_owners_that_are_deleted_wait_for_what_they_own(upstream: Upstream) -> None:
    """Our garbage collector and kubelet on upstream's watches, finalizers, preconditions and grace."""
    upstream("create", "deployment", "short", "--image=miniplane.local/sleeper", "--replicas=3")
    upstream("rollout", "status", "deployment/short", "--timeout=60s")
    upstream("delete", "deployment", "short", "--cascade=foreground", "--timeout=60s")
    assert not upstream("get", "replicasets", "-l", "app=short", "-o", "name")


def test_a_namespace_goes_with_its_content(upstream: Upstream) -> None:
    upstream("create", "namespace", "passing")
    upstream("-n", "passing", "create", "configmap", "something", "--from-literal=a=b")
    upstream("-n", "passing", "create", "deployment", "some", "--image=miniplane.local/sleeper")
    upstream("-n", "passing", "rollout", "status", "deployment/some", "--timeout=60s")
    upstream("delete", "namespace", "passing", "--timeout=60s")


def test_a_job_completes_and_a_daemon_runs_everywhere(upstream: Upstream) -> None:
    upstream("create", "job", "once", "--image=miniplane.local/sleeper", "--", "sh", "-c", "echo done")
    upstream("wait", "--for=condition=Complete", "job/once", "--timeout=60s")
    assert upstream("logs", "job/once") == "done\n"
    pods = {"metadata": {"labels": {"app": "daemon"}},
            "spec": {"containers": [{"name": "d", "image": "miniplane.local/sleeper"}]}}  # fmt: skip
    spec = {"selector": {"matchLabels": {"app": "daemon"}}, "template": pods}
    daemon = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "daemon"}, "spec": spec}
    upstream("apply", "-f", "-", stdin=json.dumps(daemon))
    upstream("rollout", "status", "daemonset/daemon", "--timeout=60s")


def test_a_rollout_replaces_pods_and_scales(upstream: Upstream) -> None:
    before = upstream("get", "pods", "-l", "app=ticker", "-o", "name")
    upstream("scale", "deployment", "ticker", "--replicas=2")
    upstream("rollout", "restart", "deployment/ticker")
    upstream("rollout", "status", "deployment/ticker", "--timeout=60s")
    pods = ("get", "pods", "-l", "app=ticker", "-o", "name")
    until(lambda: before.strip() not in upstream(*pods), "the old pod has gone")


def test_a_certificate_is_signed_for_who_may_have_it(upstream: Upstream) -> None:
    """Approved by kubectl, signed by our controller, published by upstream's validation."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    spec = {
        "request": base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
    }
    kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    upstream("apply", "-f", "-", stdin=json.dumps({**kind, "metadata": {"name": "somebody"}, "spec": spec}))
    upstream("certificate", "approve", "somebody")
    until(lambda: upstream("get", "csr", "somebody", "-o", "jsonpath={.status.certificate}"), "a certificate")


def test_nothing_of_ours_was_refused(upstream: Upstream) -> None:
    """Upstream validates, authorizes and admits what our kubelet and controllers write. The last test: it reads logs.

    No Service is made here: upstream takes no endpoint on loopback, where our pods are, and proxies to none.
    """
    for process in ("minicontroller", "minikubelet"):
        log = (upstream.kubeconfig.parent / f"{process}.log").read_text()
        assert not [line for line in log.splitlines() if re.search("ERROR|Forbidden|Invalid|Unauthorized", line)]
