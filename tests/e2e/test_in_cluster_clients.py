"""Pods with the official clients: `load_incluster_config()`, and nothing else, against the virtual IP."""

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
import yaml

from miniplane.testing import TestCluster, clusters
from tests.e2e.clientlibraries import client_libraries
from tests.e2e.kubectl import Kubectl, installed

pytestmark = pytest.mark.e2e

#: Word for word what https://github.com/kubernetes-client/python/blob/master/examples/in_cluster_config.py does.
OFFICIAL = """
from kubernetes import client, config
config.load_incluster_config()
v1 = client.CoreV1Api()
print("Listing pods with their IPs:")
ret = v1.list_pod_for_all_namespaces(watch=False)
for i in ret.items:
    print("%s\\t%s\\t%s" % (i.status.pod_ip, i.metadata.namespace, i.metadata.name))
"""
ASYNCIO = """
import asyncio
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.api_client import ApiClient
async def main():
    config.load_incluster_config()
    async with ApiClient() as api:
        v1 = client.CoreV1Api(api)
        print("Listing pods with their IPs:")
        ret = await v1.list_pod_for_all_namespaces()
        for i in ret.items:
            print(i.status.pod_ip, i.metadata.namespace, i.metadata.name, sep="\\t")
asyncio.run(main())
"""
#: The same client with a CA that has not signed for the API server: %s is what makes the difference.
OTHER_CA = """
import urllib3
from kubernetes import client, config
from kubernetes.config import incluster_config
incluster_config.SERVICE_CERT_FILENAME = "/other/ca.crt"
config.load_incluster_config()
configuration = client.Configuration.get_default_copy()
configuration.verify_ssl = %s
configuration.retries = 0
urllib3.disable_warnings()
try:
    found = client.CoreV1Api(client.ApiClient(configuration)).list_pod_for_all_namespaces()
    print("listed", len(found.items) > 0)
except urllib3.exceptions.MaxRetryError as error:
    print(type(error.reason).__name__, error.reason)
"""
#: Only what Python has: who answers on the virtual IP, and is it whom the injected CA has signed for.
PLAIN = """
import json, os, ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
request = urllib.request.Request(f"https://{host}:{port}/api/v1/namespaces/{open(account + 'namespace').read()}/pods",
                                 headers={"Authorization": "Bearer " + open(account + "token").read()})
found = json.load(urllib.request.urlopen(request, context=ssl.create_default_context(cafile=account + "ca.crt")))
print(json.dumps([host, port, found["kind"]]))
"""

#: Twenty connections to the virtual IP with the pod's token: how many answers, how many refusals to talk.
TWENTY = """
import json, os, ssl, sys, urllib.error, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
context = ssl.create_default_context(cafile=account + "ca.crt")
if not %s:
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
answered = refused = 0
for _ in range(20):
    request = urllib.request.Request("https://" + os.environ["KUBERNETES_SERVICE_HOST"] + "/api/v1/pods",
                                     headers={"Authorization": "Bearer " + open(account + "token").read()})
    try:
        urllib.request.urlopen(request, context=context).read()
        answered += 1
    except urllib.error.URLError as error:
        refused += isinstance(error.reason, ssl.SSLCertVerificationError)
print(json.dumps([answered, refused]))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    with clusters(lambda: tmp_path_factory.mktemp("incluster")) as make:
        yield make(nodes=2)


@pytest.fixture(scope="module")
def kubectl(cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """One version is enough: it only carries pods there and their output back."""
    kubectls = installed()
    if not kubectls:
        pytest.skip("no kubectl on this machine")
    version = max(kubectls)
    found = Kubectl(kubectls[version], version, cluster.kubeconfig, "default", tmp_path_factory.mktemp("home"))
    found("create", "clusterrole", "pod-reader", "--verb=get,list,watch", "--resource=pods")
    found("create", "serviceaccount", "reader")
    found("create", "clusterrolebinding", "reader", "--clusterrole=pod-reader", "--serviceaccount=default:reader")
    return found


Run = Callable[..., str]


@pytest.fixture
def run(kubectl: Kubectl) -> Run:
    def pod(name: str, script: str, *, account: str = "reader", other_ca: str = "") -> str:
        """What a pod with this script says before it ends."""
        mounts = [{"name": "clients", "mountPath": "/clients", "readOnly": True}]
        volumes = [{"name": "clients", "hostPath": {"path": client_libraries()}}]
        if other_ca:
            kubectl("create", "configmap", f"{name}-ca", f"--from-file=ca.crt={other_ca}")
            mounts.append({"name": "other", "mountPath": "/other"})
            volumes.append({"name": "other", "configMap": {"name": f"{name}-ca"}})
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "serviceAccountName": account, "restartPolicy": "Never", "volumes": volumes, "containers": [{
                "name": "c", "image": "miniplane.local/echo", "command": [sys.executable, "-c", script],
                "env": [{"name": "PYTHONPATH", "value": "/clients"}], "volumeMounts": mounts}]}}
        kubectl("apply", "-f", "-", stdin=yaml.safe_dump(manifest))
        answer = kubectl.run("wait", "--for=jsonpath={.status.containerStatuses[0].state.terminated}",
                             f"pod/{name}", "--timeout=60s")
        assert answer.returncode == 0, answer.stderr + kubectl("describe", "pod", name)
        return kubectl("logs", name)

    return pod


def test_the_official_client_lists_pods_from_within(run: Run, kubectl: Kubectl) -> None:
    lines = run("official", OFFICIAL).splitlines()
    assert lines[0] == "Listing pods with their IPs:"
    assert any(line.endswith("\tdefault\tofficial") for line in lines)


def test_the_asyncio_client_lists_pods_from_within(run: Run) -> None:
    lines = run("asynchronous", ASYNCIO).splitlines()
    assert lines[0] == "Listing pods with their IPs:"
    assert any(line.endswith("\tdefault\tasynchronous") for line in lines)


def test_a_pod_whose_account_may_not_list_pods_is_told_so(run: Run) -> None:
    said = run("forbidden", OFFICIAL, account="default")
    assert 'User \\"system:serviceaccount:default:default\\" cannot list resource \\"pods\\"' in said
    assert "403" in said


def test_the_virtual_ip_is_the_services_first_address_and_its_certificate_holds(run: Run, kubectl: Kubectl) -> None:
    vip = kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
    assert json.loads(run("plain", PLAIN)) == [vip, "443", "PodList"]


def test_a_client_that_trusts_another_ca_does_not_talk_to_the_api_server(run: Run, other_ca: Path) -> None:
    said = run("distrustful", OTHER_CA % True, other_ca=str(other_ca))
    assert said.startswith("SSLError")
    assert "CERTIFICATE_VERIFY_FAILED" in said


def test_it_is_the_verification_that_kept_it_from_talking(run: Run, other_ca: Path) -> None:
    """The twin: the same wrong CA, and nobody looks."""
    assert run("careless", OTHER_CA % False, other_ca=str(other_ca)) == "listed True\n"


@pytest.fixture(scope="module")
def other_ca(cluster: TestCluster) -> Path:
    """A real CA, of this very cluster, that is not the one of the API server's certificate."""
    return cluster.state.path / "pki" / "front-proxy-ca.crt"


class Interceptor:
    """A man in the middle of the virtual IP: TLS by a CA of his own, for the very address. Lives as long as a test."""

    def __init__(self, address: str, vip: str) -> None:
        self.read: list[bytes] = []
        self.handshakes = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert(vip, "kubernetes.default.svc").configure_cert(self._context)
        self._listener = socket.create_server((address, 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.handshakes += 1
            with client, contextlib.suppress(OSError), self._context.wrap_socket(client, server_side=True) as secure:
                secure.settimeout(5)
                self.read.append(secure.recv(65536))
                secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def interceptor(kubectl: Kubectl) -> Iterator[Interceptor]:
    """Somebody who may write EndpointSlices has made himself an endpoint of the API server's Service."""
    # An address like a pod's: others on loopback the API server takes from nobody.
    address = kubectl("get", "node", "node-1", "-o", "jsonpath={.spec.podCIDR}").replace(".0/24", ".200")
    made = Interceptor(address, kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"))
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "middle", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": made.port, "protocol": "TCP"}]}))
    yield made
    kubectl("delete", "endpointslice", "middle")
    made.close()


def test_a_man_in_the_middle_of_the_virtual_ip_reads_nothing_of_a_pod_that_verifies(
        run: Run, interceptor: Interceptor) -> None:
    answered, refused = json.loads(run("verifying", TWENTY % True))
    assert answered + refused == 20
    assert refused == interceptor.handshakes > 0
    assert interceptor.read == []


def test_it_is_the_verification_that_kept_him_from_reading(run: Run, interceptor: Interceptor) -> None:
    """The twin: nobody looks, and he has the pod's token."""
    assert json.loads(run("trusting", TWENTY % False)) == [20, 0]
    assert interceptor.read
    assert all(b"\r\nAuthorization: Bearer ey" in head for head in interceptor.read)


@pytest.fixture
def unprivileged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """A cluster none of whose processes may bind ports below 1024, even if we are root."""
    setpriv, kubectls = shutil.which("setpriv"), installed()
    if setpriv is None or not kubectls:
        pytest.skip("needs setpriv and kubectl")
    state, home = tmp_path_factory.mktemp("unprivileged"), tmp_path_factory.mktemp("home")
    dropped = [setpriv, "--bounding-set=-net_bind_service"] if os.geteuid() == 0 else []
    miniplane = [sys.executable, "-m", "miniplane"]
    options = ["--state-dir", str(state), "--name", "low"]
    started = subprocess.run([*dropped, *miniplane, "up", *options, "--json"], capture_output=True, text=True,
                             timeout=120)
    try:
        assert started.returncode == 0, started.stderr
        kubeconfig, version = state / "clusters" / "low" / "admin.conf", max(kubectls)
        yield Kubectl(kubectls[version], version, kubeconfig, "default", home)
    finally:
        subprocess.run([*miniplane, "down", *options], check=True, capture_output=True, timeout=60)


@pytest.mark.skipif(int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 443,
                    reason="anybody may bind port 443 here")
def test_pods_find_the_api_server_where_port_443_is_refused(unprivileged: Kubectl) -> None:
    """A kubelet that may not bind the virtual IP's port says so, and tells pods another, certified address."""
    kubectl = unprivileged
    kubectl("create", "clusterrolebinding", "view", "--clusterrole=view", "--serviceaccount=default:default")
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"}, "spec": {
            "restartPolicy": "Never", "containers": [{
                "name": "c", "image": "miniplane.local/echo", "command": [sys.executable, "-c", PLAIN]}]}}))
    kubectl("wait", "--for=jsonpath={.status.containerStatuses[0].state.terminated}", "pod/plain", "--timeout=60s")
    server = kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
    assert json.loads(kubectl("logs", "plain")) == ["127.0.0.1", server.rpartition(":")[2], "PodList"]
    events = kubectl("get", "events", "--field-selector=reason=ServiceAddressRefused", "-o",
                     "jsonpath={.items[*].message}")
    assert "cannot be listened on: Permission denied" in events
    assert f"pods reach the API server at {server.removeprefix('https://')}" in events
