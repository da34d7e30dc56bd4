"""What a node cannot do, one by one, each beside what it can."""

import contextlib
import http.client
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from certs.authority import Authority
from certs.requests import new_csr, new_key
from miniplane.testing import TestCluster, clusters
from tests.e2e.node_identity import CSRS, SERVING_SIGNER, Caller, certificate, csr, eventually, new_node

pytestmark = pytest.mark.e2e

JSON = dict[str, Any]
SECRETS, PODS = "/api/v1/namespaces/default/secrets", "/api/v1/namespaces/default/pods"
SYSTEM = "/api/v1/namespaces/kube-system"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    with clusters(lambda: tmp_path_factory.mktemp("identity")) as make:
        yield make()


@pytest.fixture(scope="module")
def admin(cluster: TestCluster) -> Caller:
    return Caller.of(cluster.kubeconfig)


@pytest.fixture(scope="module")
def bootstrap(cluster: TestCluster) -> Caller:
    return Caller.of(cluster.state.path / "bootstrap-kubelet.conf")


@pytest.fixture(scope="module")
def n1(bootstrap: Caller, admin: Caller) -> Caller:
    """A node without a kubelet: n1, with a pod bound to it that uses the secret `mine`."""
    node = new_node(bootstrap, "n1")
    assert node.post("/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}})["code"] == 201
    for name in ("mine", "theirs"):
        assert admin.post(SECRETS, {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name},
                                    "stringData": {"k": name}})["code"] == 201
    for name, where, secret in (("on-n1", "n1", "mine"), ("elsewhere", "node-9", "theirs")):
        body = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": {
            "nodeName": where, "containers": [{"name": "c", "image": "none"}],
            "volumes": [{"name": "s", "secret": {"secretName": secret}}]}}
        assert eventually(partial(created, admin, body))
    return node


def created(admin: Caller, body: JSON) -> bool:
    return admin.post(PODS, body)["code"] in (201, 409)


def user(caller: Caller) -> str:
    answer = caller.post("/apis/authentication.k8s.io/v1/selfsubjectreviews",
                         {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"})
    assert answer["code"] == 201, answer
    name: str = answer["status"]["userInfo"]["username"]
    return name


# --- secrets and objects of others


def test_a_node_reads_its_pods_secrets_and_no_others(n1: Caller) -> None:
    assert n1.get(f"{SECRETS}/mine")["code"] == 200
    refused = n1.get(f"{SECRETS}/theirs")
    assert refused["code"] == 403
    assert "no relationship found between node 'n1' and this object" in refused["message"]
    assert n1.get(SECRETS)["code"] == 403


def test_a_node_changes_itself_and_no_other_node(n1: Caller) -> None:
    assert n1.merge("/api/v1/nodes/n1", {"metadata": {"annotations": {"a": "b"}}})["code"] == 200
    refused = n1.merge("/api/v1/nodes/node-1", {"metadata": {"annotations": {"a": "b"}}})
    assert refused["code"] == 403
    assert n1("DELETE", "/api/v1/nodes/node-1")["code"] == 403


def test_a_node_gives_itself_no_label_that_steers_workloads(n1: Caller) -> None:
    assert n1.merge("/api/v1/nodes/n1", {"metadata": {"labels": {"my.example/rack": "7"}}})["code"] == 200
    for label in ("node-restriction.kubernetes.io/trusted", "node-role.kubernetes.io/control-plane"):
        refused = n1.merge("/api/v1/nodes/n1", {"metadata": {"labels": {label: "yes"}}})
        assert refused["code"] == 403
        assert f"is not allowed to modify labels: {label}" in refused["message"]


def test_a_node_does_not_untaint_itself(n1: Caller, admin: Caller) -> None:
    taint = {"spec": {"taints": [{"key": "quarantine", "effect": "NoSchedule"}]}}
    assert admin.merge("/api/v1/nodes/n1", taint)["code"] == 200
    refused = n1.merge("/api/v1/nodes/n1", {"spec": {"taints": []}})
    assert (refused["code"], "is not allowed to modify taints" in refused["message"]) == (403, True)


def test_a_node_asks_for_tokens_of_its_own_pods_only(n1: Caller, admin: Caller) -> None:
    def asked(pod: str) -> JSON:
        uid = admin.get(f"{PODS}/{pod}")["metadata"]["uid"]
        return n1.post("/api/v1/namespaces/default/serviceaccounts/default/token", {
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {
                "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}}})

    own = asked("on-n1")
    assert own["code"] == 201, own
    assert user(Caller(n1.url, n1.ca, headers={"Authorization": f"Bearer {own['status']['token']}"})) == (
        "system:serviceaccount:default:default")
    assert asked("elsewhere")["code"] == 403


def test_a_node_deletes_its_own_pods_only(n1: Caller) -> None:
    assert n1("DELETE", f"{PODS}/elsewhere")["code"] == 403
    assert n1("DELETE", f"{PODS}/on-n1?dryRun=All")["code"] == 200


# --- certificates


def test_a_node_renews_its_own_certificate_and_gets_none_in_another_name(n1: Caller) -> None:
    key = new_key()
    renewed = certificate(n1, "renewal", csr("renewal", "system:node:n1", key), key)
    assert user(renewed) == "system:node:n1"
    refused = n1.post(CSRS, csr("other", "system:node:node-1", key))
    assert (refused["code"], "can only create a node CSR with CN=system:node:n1" in refused["message"]) == (403, True)


@pytest.mark.parametrize(("name", "more"), [
    ("foreign-usages", {"usages": ("digital signature", "client auth", "server auth")}),
    ("foreign-organization", {"organization": "system:masters"}),
    ("foreign-sans", {"ips": ("10.0.0.1",)})])
def test_a_request_beyond_the_signers_rules_is_never_signed(
        name: str, more: JSON, bootstrap: Caller, admin: Caller) -> None:
    assert bootstrap.post(CSRS, csr(name, "system:node:n2", new_key(), **more))["code"] == 201
    approved = admin.get(f"{CSRS}/{name}")
    assert (approved.get("status") or {}).get("conditions") is None  # nobody approves it by himself
    condition = {"type": "Approved", "status": "True", "reason": "X", "message": "a careless human"}
    assert admin("PUT", f"{CSRS}/{name}/approval", approved | {"status": {"conditions": [condition]}})["code"] == 200

    def failed() -> JSON | None:
        status = admin.get(f"{CSRS}/{name}").get("status") or {}
        return next((item for item in status.get("conditions") or () if item["type"] == "Failed"), None)

    assert eventually(failed)["reason"] == "SignerValidationFailure"
    assert not (admin.get(f"{CSRS}/{name}").get("status") or {}).get("certificate")


@pytest.mark.parametrize("request_pem", [
    b"", b"garbage", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff" * 100])
def test_garbage_is_no_certificate_request(request_pem: bytes, bootstrap: Caller) -> None:
    assert bootstrap.post(CSRS, csr("garbage", "", b"", request=request_pem))["code"] == 422


def test_a_serving_certificate_is_for_ones_own_addresses(n1: Caller, admin: Caller) -> None:
    own = {"status": {"addresses": [{"type": "InternalIP", "address": "127.0.10.99"}]}}
    assert n1.merge("/api/v1/nodes/n1/status", own)["code"] == 200
    usages = ("digital signature", "server auth")
    key = new_key()
    fine = csr("serving", "system:node:n1", key, signer=SERVING_SIGNER, usages=usages, ips=("127.0.10.99",))
    certificate(n1, "serving", fine, key)
    foreign = csr("stolen", "system:node:n1", key, signer=SERVING_SIGNER, usages=usages, ips=("127.0.10.1",))
    assert n1.post(CSRS, foreign)["code"] == 201
    again = csr("serving2", "system:node:n1", key, signer=SERVING_SIGNER, usages=usages, ips=("127.0.10.99",))
    certificate(n1, "serving2", again, key)  # the approver has seen what came before it
    assert not (admin.get(f"{CSRS}/stolen").get("status") or {}).get("conditions")


# --- credentials


def signed(cluster: TestCluster, lifetime: float, ago: timedelta = timedelta(0)) -> Caller:
    """A node's certificate straight from the CA's key: valid but for what a test asks."""
    pki, key = cluster.state.path / "pki", new_key()
    authority = Authority.load(pki / "ca.crt", pki / "ca.key")
    request = new_csr(key, "system:node:n1", ["system:nodes"])
    cert = authority.sign(request, ["digital signature", "client auth"], lifetime, datetime.now(UTC) - ago)
    return replace(Caller.anonymous(cluster), cert=cert, key=key)


def test_an_expired_certificate_opens_nothing_and_does_not_become_anonymous(cluster: TestCluster) -> None:
    assert user(signed(cluster, 3600)) == "system:node:n1"
    expired = signed(cluster, 3600, timedelta(hours=2))
    assert expired.get("/api")["code"] == 401
    assert expired.get("/livez")["code"] == 401  # anonymous may see this; a bad credential may not
    assert Caller.anonymous(cluster).get("/livez")["code"] == 200


def test_a_certificate_expires_while_its_connection_is_open(cluster: TestCluster) -> None:
    short = signed(cluster, 2)
    target = urlsplit(short.url)
    assert target.hostname
    connection = http.client.HTTPSConnection(target.hostname, target.port or 443, context=short.context(), timeout=20)

    def status() -> int:
        connection.request("GET", "/livez")
        response = connection.getresponse()
        response.read()
        return response.status

    try:
        assert status() == 200
        eventually(lambda: status() == 401, 15)
    finally:
        connection.close()


def test_a_certificate_of_another_ca_opens_nothing(cluster: TestCluster, tmp_path: Path) -> None:
    key = new_key()
    other = Authority.create("kubernetes", datetime.now(UTC))
    cert = other.sign(new_csr(key, "system:node:n1", ["system:nodes"]), ["digital signature", "client auth"], 3600,
                      datetime.now(UTC))
    stranger = replace(Caller.anonymous(cluster), cert=cert, key=key)
    with contextlib.suppress(ssl.SSLError, ConnectionError, http.client.HTTPException):
        assert stranger.get("/api")["code"] == 401


def test_a_serving_certificate_is_no_clients(cluster: TestCluster) -> None:
    pki = cluster.state.path / "pki"
    server = replace(Caller.anonymous(cluster), cert=(pki / "apiserver.crt").read_bytes(),
                     key=(pki / "apiserver.key").read_bytes())
    with contextlib.suppress(ssl.SSLError, ConnectionError, http.client.HTTPException):
        assert server.get("/api")["code"] == 401


def test_a_bootstrap_token_asks_for_a_certificate_and_does_nothing_else(bootstrap: Caller) -> None:
    assert bootstrap.post(CSRS + "?dryRun=All", csr("dry", "system:node:n3", new_key()))["code"] == 201
    for path in ("/api/v1/pods", SECRETS, "/api/v1/nodes", f"{SYSTEM}/secrets"):
        assert bootstrap.get(path)["code"] == 403, path
    refused = bootstrap.post("/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n3"}})
    assert refused["code"] == 403
    assert bootstrap.post(CSRS, csr("admin", "admin", new_key(), organization="system:masters",
                                    signer="kubernetes.io/kube-apiserver-client"))["code"] == 403


def test_a_deleted_bootstrap_token_opens_nothing(cluster: TestCluster) -> None:
    miniplane = [sys.executable, "-m", "miniplane", "token"]
    where = [f"--state-dir={cluster.state.path}"]
    made = subprocess.run([*miniplane, "create", *where], check=True, capture_output=True, text=True).stdout.strip()
    caller = Caller.with_token(cluster, made)
    assert user(caller) == f"system:bootstrap:{made[:6]}"
    wrong = made[:-1] + ("a" if made[-1] != "a" else "b")
    assert Caller.with_token(cluster, wrong).get("/api")["code"] == 401
    listed = subprocess.run([*miniplane, "list", *where], check=True, capture_output=True, text=True).stdout
    assert made[:6] in listed and made[7:] not in listed
    subprocess.run([*miniplane, "delete", *where, made], check=True, capture_output=True)
    # The server may remember a good answer for ten seconds, as upstream; nobody new is believed.
    eventually(lambda: caller.get("/api")["code"] == 401, 15)


def test_an_expired_bootstrap_token_is_refused_and_removed(cluster: TestCluster, admin: Caller) -> None:
    made = subprocess.run([sys.executable, "-m", "miniplane", "token", "create", f"--state-dir={cluster.state.path}",
                           "--ttl=1s"], check=True, capture_output=True, text=True).stdout.strip()
    eventually(lambda: admin.get(f"{SYSTEM}/secrets/bootstrap-token-{made[:6]}")["code"] == 404)
    assert Caller.with_token(cluster, made).get("/api")["code"] == 401


def test_a_pods_token_dies_with_the_pod(cluster: TestCluster, admin: Caller) -> None:
    body = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "short"}, "spec": {
        "schedulerName": "nobody", "containers": [{"name": "c", "image": "none"}]}}
    uid = admin.post(PODS, body)["metadata"]["uid"]
    token = admin.post("/api/v1/namespaces/default/serviceaccounts/default/token", {
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "short", "uid": uid}}})["status"]["token"]
    assert user(Caller.with_token(cluster, token)) == "system:serviceaccount:default:default"
    admin("DELETE", f"{PODS}/short?gracePeriodSeconds=0")
    assert admin.post(PODS, body)["code"] == 201  # a namesake does not revive it
    eventually(lambda: Caller.with_token(cluster, token).get("/api")["code"] == 401, 15)
    admin("DELETE", f"{PODS}/short?gracePeriodSeconds=0")


def test_the_front_proxys_headers_count_from_nobody_else(cluster: TestCluster, n1: Caller) -> None:
    smuggled = {"X-Remote-User": "admin", "X-Remote-Group": "system:masters", "X-Remote-Uid": "0",
                "x-remote-extra-scopes": "all"}
    anonymous = Caller(n1.url, n1.ca, headers=smuggled)
    assert anonymous.get(SECRETS)["code"] == 403
    assert 'User "system:anonymous"' in anonymous.get(SECRETS)["message"]
    assert user(Caller(n1.url, n1.ca, n1.cert, n1.key, smuggled)) == "system:node:n1"
    pki = cluster.state.path / "pki"
    proxy = Caller(n1.url, n1.ca, (pki / "front-proxy-client.crt").read_bytes(),
                   (pki / "front-proxy-client.key").read_bytes(), smuggled)
    assert user(proxy) == "admin"
