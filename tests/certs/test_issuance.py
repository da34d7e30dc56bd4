"""`init`: everything is issued, kept, renewed; and what is not ours is refused with nothing written."""

import os
import stat
import subprocess
import sys
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme
from issued_state import ACCESS, CLUSTER, NOW, issue, snapshot

from certs import kubeconfig
from certs.authority import load_certificate
from certs.errors import AuthorityError, CertsError, ForeignCertificate, InvalidCertificate, KeyMismatch, StateDirError
from certs.inspection import check, describe
from certs.issuance import Action, is_bootstrap_token
from certs.layout import Layout
from certs.profiles import Cluster, NodeAddress

DAY = timedelta(days=1)


def actions(outcomes: list, action: Action) -> set[str]:
    return {outcome.name for outcome in outcomes if outcome.action is action}


def test_everything_is_issued_with_kubeadms_names(issued: Layout) -> None:
    for name in ("ca", "front-proxy-ca", "front-proxy-client", "apiserver", "apiserver-kubelet-client"):
        assert (issued.pki / f"{name}.crt").exists() and (issued.pki / f"{name}.key").exists()
    assert (issued.pki / "sa.pub").exists() and (issued.pki / "sa.key").exists()
    confs = {path.name for path in issued.state_dir.glob("*.conf")}
    assert {"admin.conf", "controller-manager.conf", "scheduler.conf", "bootstrap-kubelet.conf"} <= confs
    assert is_bootstrap_token(issued.bootstrap_token.read_text().strip())
    assert check(issued, NOW) and not [finding for finding in check(issued, NOW) if finding.problem]


def test_private_keys_are_readable_by_their_owner_only(issued: Layout) -> None:
    public = {".crt", ".pub"}
    for path in snapshot(issued.state_dir):
        if path.suffix not in public:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_api_servers_names_are_upstreams(issued: Layout) -> None:
    assert describe(issued.apiserver.cert).names == (
        "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
        "localhost", "127.96.0.1", "127.0.0.1",
    )  # fmt: skip


def test_a_nodes_certificates_name_the_node_and_its_address(issued: Layout) -> None:
    serving = describe(issued.node("node-1").serving.cert)
    assert serving.names == ("node-1", "127.0.10.1") and serving.usages == ("server auth",)
    assert serving.subject == "CN=system:node:node-1,O=system:nodes"
    client = describe(issued.node("node-1").client)
    assert client.usages == ("client auth",) and client.subject == serving.subject


def test_identities_are_who_the_table_says(issued: Layout) -> None:
    subjects = {
        path.name: describe(path).subject for path in issued.state_dir.glob("*.conf") if "boot" not in path.name
    }
    assert subjects["admin.conf"] == "CN=kubernetes-admin,O=system:masters"
    assert subjects["controller-manager.conf"] == "CN=system:kube-controller-manager"
    assert subjects["scheduler.conf"] == "CN=system:kube-scheduler"
    assert describe(issued.apiserver_kubelet_client.cert).subject == "CN=kube-apiserver-kubelet-client"


def test_a_cluster_ca_certificate_does_not_open_the_konnectivity_doors(issued: Layout) -> None:
    """Upstream accepts any certificate of the CA it is given: a kubelet's must not be one of them."""
    issuers = {describe(issued.pair(name).cert).issuer for name in ("konnectivity-server", "konnectivity-front")}
    assert issuers.isdisjoint({describe(issued.node("node-1").client).issuer})


def test_openssl_agrees_with_the_chain(issued: Layout) -> None:
    command = ["openssl", "verify", "-purpose", "sslserver", "-verify_ip", "127.0.10.1", "-no_check_time"]
    files = ["-CAfile", str(issued.ca.cert), str(issued.node("node-1").serving.cert)]
    assert subprocess.run([*command, *files], capture_output=True, check=False).returncode == 0


def test_a_second_init_changes_nothing(issued: Layout) -> None:
    before = snapshot(issued.state_dir)
    outcomes = issue(issued.state_dir)
    assert {outcome.action for outcome in outcomes} == {Action.KEPT}
    assert snapshot(issued.state_dir) == before


def test_what_is_about_to_expire_is_renewed_with_a_new_key(issued: Layout) -> None:
    old = issued.apiserver.key.read_bytes()
    outcomes = issue(issued.state_dir, now=NOW + 300 * DAY)
    assert "apiserver" in actions(outcomes, Action.RENEWED) and "ca" in actions(outcomes, Action.KEPT)
    assert issued.apiserver.key.read_bytes() != old
    assert not [finding for finding in check(issued, NOW + 300 * DAY) if finding.problem]


def test_a_renewed_ca_keeps_its_key_so_that_old_leaves_still_verify(issued: Layout) -> None:
    key, leaf = issued.ca.key.read_bytes(), issued.apiserver.cert.read_bytes()
    later = NOW + 3000 * DAY
    assert "ca" in actions(issue(issued.state_dir, now=later), Action.RENEWED)
    assert issued.ca.key.read_bytes() == key
    load_certificate(leaf, "old").verify_directly_issued_by(load_certificate(issued.ca.cert.read_bytes(), "new"))


def test_other_names_make_another_certificate(issued: Layout) -> None:
    wider = Cluster(CLUSTER.service_cidr, ("127.0.0.1", "api.example"), CLUSTER.nodes)
    assert actions(issue(issued.state_dir, wider), Action.RENEWED) == {
        "apiserver", "konnectivity-server", "konnectivity-front",
    }  # fmt: skip
    assert "api.example" in describe(issued.apiserver.cert).names


def test_a_node_added_later_joins_the_same_ca(issued: Layout) -> None:
    nodes = (*CLUSTER.nodes, NodeAddress("node-2", "127.0.10.2"))
    outcomes = issue(issued.state_dir, Cluster(CLUSTER.service_cidr, CLUSTER.sans, nodes))
    assert "node-2/kubelet" in actions(outcomes, Action.ISSUED) and "ca" in actions(outcomes, Action.KEPT)
    assert issued.ssh_known_hosts.read_text().count("node-2 ssh-ed25519") == 1


def test_another_server_address_rewrites_kubeconfigs_and_keeps_certificates(issued: Layout) -> None:
    before = kubeconfig.load(issued.admin).credentials()
    issue(issued.state_dir, access=type(ACCESS)("miniplane", "https://127.0.0.1:443"))
    after = kubeconfig.load(issued.admin).credentials()
    assert (after.server, after.client_cert) == ("https://127.0.0.1:443", before.client_cert)


def test_etcd_certificates_are_issued_when_an_etcd_is_ours(tmp_path: Path) -> None:
    issue(tmp_path, Cluster(CLUSTER.service_cidr, etcd="127.0.10.254"))
    layout = Layout(tmp_path)
    assert "127.0.10.254" in describe(layout.pair("etcd/server").cert).names
    assert describe(layout.pair("apiserver-etcd-client").cert).issuer == "CN=etcd-ca"


@pytest.mark.parametrize("half", ["cert", "key"])
def test_half_a_ca_is_an_error_and_nothing_is_written(issued: Layout, half: str) -> None:
    getattr(issued.ca, half).unlink()
    before = snapshot(issued.state_dir)
    with pytest.raises(AuthorityError, match="exists without"):
        issue(issued.state_dir)
    assert snapshot(issued.state_dir) == before


def test_a_key_of_another_certificate_is_an_error(issued: Layout) -> None:
    issued.apiserver.key.write_bytes(issued.front_proxy_client.key.read_bytes())
    before = snapshot(issued.state_dir)
    with pytest.raises(KeyMismatch, match=r"apiserver\.crt"):
        issue(issued.state_dir, now=NOW + 300 * DAY)
    assert snapshot(issued.state_dir) == before


def test_a_ca_key_of_another_ca_is_an_error(issued: Layout) -> None:
    issued.ca.key.write_bytes(issued.front_proxy_ca.key.read_bytes())
    with pytest.raises(KeyMismatch, match=r"ca\.key is not the private key of .*ca\.crt"):
        issue(issued.state_dir)


def test_a_service_account_key_that_does_not_match_is_an_error(issued: Layout, tmp_path: Path) -> None:
    issue(tmp_path / "other")
    issued.service_account.cert.write_bytes(Layout(tmp_path / "other").service_account.cert.read_bytes())
    with pytest.raises(KeyMismatch, match=r"sa\.key"):
        issue(issued.state_dir)


def test_a_foreign_certificate_is_an_error_not_overwritten(issued: Layout) -> None:
    attacker = trustme.CA().issue_cert("kubernetes")
    issued.apiserver.cert.write_bytes(attacker.cert_chain_pems[0].bytes())
    issued.apiserver.key.write_bytes(attacker.private_key_pem.bytes())
    before = snapshot(issued.state_dir)
    with pytest.raises(ForeignCertificate, match=r"apiserver\.crt was not signed by .*ca\.crt"):
        issue(issued.state_dir)
    assert snapshot(issued.state_dir) == before


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_damaged_certificate_is_an_error_that_names_the_file(issued: Layout, content: bytes) -> None:
    issued.ca.cert.write_bytes(content)
    with pytest.raises(InvalidCertificate, match=r"ca\.crt"):
        issue(issued.state_dir)


def test_a_leaf_in_a_cas_place_is_an_error(issued: Layout) -> None:
    issued.ca.cert.write_bytes(issued.apiserver.cert.read_bytes())
    issued.ca.key.write_bytes(issued.apiserver.key.read_bytes())
    with pytest.raises(AuthorityError, match="not a CA"):
        issue(issued.state_dir)


def test_a_disk_that_fails_halfway_leaves_nothing_half_written(issued: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real, count = snapshot(issued.state_dir), os.replace, 0

    def failing(source: object, target: object) -> None:
        nonlocal count
        count += 1
        if count > 5:
            raise OSError(28, "No space left on device")
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(StateDirError, match="No space left on device"):
        issue(issued.state_dir, now=NOW + 300 * DAY)
    assert snapshot(issued.state_dir) == before


def test_a_first_init_that_fails_leaves_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(source: object, target: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(StateDirError):
        issue(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").rglob("*")] == [".certs.lock"]


@pytest.mark.parametrize("name", ["../x", "UPPER", "", "a/b", "-a", "a..b"])
def test_a_node_name_cannot_lead_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(CertsError, match="DNS-1123"):
        issue(tmp_path, Cluster(ip_network("127.96.0.0/16"), (), (NodeAddress(name, "127.0.10.1"),)))


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "certs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prints_a_table_and_exits_0(tmp_path: Path) -> None:
    done = run("init", "--state-dir", str(tmp_path / "run"), "--nodes", "node-1=127.0.10.1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == ["NAME", "ACTION", "EXPIRES", "FILE"]
    assert run("check", "--state-dir", str(tmp_path / "run")).returncode == 0


def test_a_state_dir_under_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("init", "--state-dir", str(tmp_path / "file" / "run"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"certs: write {tmp_path}/file/run: Not a directory\n"


def test_check_names_what_is_wrong_and_exits_1(issued: Layout) -> None:
    issued.apiserver.key.chmod(0o644)
    done = run("check", "--state-dir", str(issued.state_dir))
    assert done.returncode == 1 and "others can read apiserver.key" in done.stdout


def test_bad_nodes_are_a_usage_error() -> None:
    assert run("init", "--nodes", "node-1").returncode == 2
