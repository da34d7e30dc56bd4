"""A node joins with a token and a hash, and believes nobody whom they do not prove."""


import ipaddress
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from miniplane.testing import TestCluster, clusters
from tests.e2e.node_identity import Caller, eventually

pytestmark = pytest.mark.e2e

JSON = dict[str, Any]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    with clusters(lambda: tmp_path_factory.mktemp("joining")) as make:
        yield make()


@pytest.fixture(scope="module")
def admin(cluster: TestCluster) -> Caller:
    return Caller.of(cluster.kubeconfig)


def user(caller: Caller) -> str:
    answer = caller.post("/apis/authentication.k8s.io/v1/selfsubjectreviews",
                         {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"})
    assert answer["code"] == 201, answer
    name: str = answer["status"]["userInfo"]["username"]
    return name


def test_a_node_joins_with_nothing_but_a_token_and_a_hash(cluster: TestCluster, admin: Caller, tmp_path: Path) -> None:
    argv = subprocess.run([sys.executable, "-m", "miniplane", "join-command", f"--state-dir={cluster.state.path}"],
                          check=True, capture_output=True, text=True).stdout.split()
    first = admin.get("/api/v1/nodes/node-1")["status"]["addresses"][0]["address"]
    address = str(ipaddress.ip_address(first) + 70)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "miniplane", *argv[1:], "--name=joiner",
                                    f"--node-ip={address}", f"--directory={tmp_path / 'node'}"], stdout=log, stderr=log)
    try:
        def is_ready() -> bool:
            node = admin.get("/api/v1/nodes/joiner")
            conditions = (node["status"].get("conditions") or ()) if node["code"] == 200 else ()
            return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

        eventually(is_ready, 30)
        # The API server verifies the certificate that the kubelet got for its own address.
        proxied = "/api/v1/nodes/joiner/proxy/healthz"
        eventually(lambda: admin.get(proxied) == {"text": "ok", "code": 200})
        assert user(Caller.of(tmp_path / "node" / "kubelet.conf")) == "system:node:joiner"
    finally:
        process.terminate()
        assert process.wait(20) == 0
        admin("DELETE", "/api/v1/nodes/joiner")


@pytest.mark.parametrize(("change", "why"), [
    ({"--token": "abcdef.0123456789abcdef"}, "has no signature of token abcdef"),
    ({"--discovery-token-ca-cert-hash": "sha256:" + "0" * 64}, "somebody else may be answering")])
def test_a_node_does_not_join_a_cluster_it_cannot_believe(
        change: dict[str, str], why: str, cluster: TestCluster, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    from miniplane import join, tokens

    monkeypatch.setattr(join, "SIGNED_WITHIN", 0.5)
    words = tokens.join_command(cluster.state, (cluster.state.path / "bootstrap-token").read_text().strip()).split()
    flags = dict(zip(words[4::2], words[5::2], strict=True)) | change
    host, port = join.endpoint(words[3])
    asked = join.Join(host, port, flags["--token"], (flags["--discovery-token-ca-cert-hash"],), "x", "127.0.0.1",
                      tmp_path)
    with pytest.raises(join.JoinError, match=why):
        join.discover(asked)


def test_a_wrong_secret_behind_a_known_token_id_is_noticed(cluster: TestCluster, tmp_path: Path) -> None:
    from miniplane import join, tokens

    token = (cluster.state.path / "bootstrap-token").read_text().strip()
    words = tokens.join_command(cluster.state, token).split()
    host, port = join.endpoint(words[3])
    right = join.Join(host, port, token, (words[-1],), "x", "127.0.0.1", tmp_path)
    assert join.discover(right).server == cluster.url
    with pytest.raises(join.JoinError, match="not signed by token"):
        join.discover(join.Join(host, port, f"{token[:7]}{secrets.token_hex(8)}", (words[-1],), "x", "127.0.0.1",
                                tmp_path))
