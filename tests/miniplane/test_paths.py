"""`miniplane paths`: what a ledger says, as a table and as an exit code."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from miniplane.cli import main
from miniplane.ledgers import Entry
from miniplane.paths import failing, lines, rows
from miniplane.terminal import Paint, byte_count, plain, table
from miniplane.testing import MakeCluster, TestCluster


def entry(protection: str, **facts: Any) -> Entry:
    known = {"from": "kube-apiserver", "to": "127.0.10.1:10250", "purpose": "pods/log", "path": "direct",
             "credentials": "none", "state": "open", "error": None, "bytesIn": 700, "bytesOut": 300}  # fmt: skip
    return Entry("miniapiserver", known | {"protection": protection} | facts)


def test_connections_of_one_kind_share_a_row_and_the_least_protected_come_first() -> None:
    standing = [entry("verified"), entry("verified", state="closed"), entry("verified")]
    first, second = rows([*standing, entry("plain", purpose="pods/proxy")])
    assert (first.entry["purpose"], first.transferred) == ("pods/proxy", 1000)
    assert (second.states, second.transferred) == ({"open": 2, "closed": 1}, 3000)


def test_the_table_says_in_words_what_it_says_in_colour() -> None:
    found = lines([entry("unverified", credentials="client certificate CN=kube-apiserver-kubelet-client")], Paint(True))
    assert re.split(r"  +", plain(found[1])) == [
        "kube-apiserver", "127.0.10.1:10250", "pods/log", "direct", "~ encrypted, not verified",
        "CN=kube-apiserver-kubelet-client", "1.0 kB", "open",
    ]  # fmt: skip
    assert plain(found[-1]) == "1 encrypted, not verified; 1 open to whoever sits on the network."
    assert found[1] != plain(found[1])
    assert lines([entry("unverified")], Paint(False))[1] == plain(lines([entry("unverified")], Paint(True))[1])


@pytest.mark.parametrize(
    ("protection", "path", "fail_on", "fails"),
    [
        ("plain", "direct", "plain", True), ("plain", "direct", "unverified", True),
        ("unverified", "direct", "plain", False), ("unverified", "direct", "unverified", True),
        ("verified", "direct", "unverified", False), ("none", "direct", "unverified", False),
        # What a tunnel carries was not on the network to be read.
        ("plain", "konnectivity", "plain", False), ("unverified", "ssh", "unverified", False),
    ],
)  # fmt: skip
def test_fail_on_counts_what_lay_open(protection: str, path: str, fail_on: str, fails: bool) -> None:
    assert bool(failing([entry(protection, path=path)], fail_on)) is fails


def test_bytes_have_three_digits_and_columns_line_up() -> None:
    assert [byte_count(n) for n in (0, 999, 1000, 123_456, 2_500_000)] == ["0 B", "999 B", "1.0 kB", "123 kB", "2.5 MB"]
    assert table([("a", "bb"), ("ccc", "d")], gap=1) == ["a   bb", "ccc d"]


def run(cluster: TestCluster, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["paths", "--state-dir", str(cluster.state.path), *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_real_cluster_shows_both_directions(make_cluster: MakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """One cluster verified, one as kubeadm leaves it: `--fail-on unverified` tells them apart."""
    for kubelet_ca, protection, expected in ((True, "verified", 0), (False, "unverified", 5)):
        cluster = make_cluster(kubelet_ca=kubelet_ca)
        code, out, _ = run(cluster, capsys, "--json")
        found = json.loads(out)
        to_kubelet = [one for one in found if one["from"] == "kube-apiserver" and one["purpose"] == "pods/log"]
        to_server = [one for one in found if one["process"] == "node-1" and one["state"] == "open"]
        assert (code, to_kubelet[0]["protection"], to_server[0]["protection"]) == (0, protection, "verified")
        code, out, err = run(cluster, capsys, "--fail-on", "unverified")
        assert code == expected
        assert ("encrypted, not verified" in err) is (expected == 5)
        metrics = metrics_page(cluster)
        assert re.search(rf'^miniplane_node_connections{{path="direct",protection="{protection}"}} 1$', metrics, re.M)
        assert re.search(r'^miniplane_node_connection_bytes_total{.*direction="received"} [1-9]', metrics, re.M)
        cluster.down()


def metrics_page(cluster: TestCluster) -> str:
    from miniplane.apiclient import APIClient

    with APIClient.from_kubeconfig(Path(cluster.kubeconfig)) as client:
        return client.get("/metrics").body.decode()
