"""Kubeconfigs are written, read and merged; SSH keys are read by OpenSSH itself."""

import base64
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from certs import kubeconfig
from certs.errors import InvalidKey, KubeconfigError
from certs.kubeconfig import Entry, load, merge, parse, remove, render
from certs.layout import Layout
from certs.sshkeys import known_hosts_line, new_ssh_key, public_line

OURS = Entry.with_certificate("miniplane", "miniplane-admin", "https://127.0.0.1:6443", b"CA", b"CERT", b"KEY")
THEIRS = """\
apiVersion: v1
kind: Config
clusters: [{name: work, cluster: {server: "https://work:6443"}}]
contexts: [{name: work, context: {cluster: work, user: me, namespace: team}}]
users: [{name: me, user: {token: secret}}]
current-context: work
"""


def ours(folder: Path) -> kubeconfig.Kubeconfig:
    return parse(render(OURS), folder / "admin.conf")


def test_what_is_rendered_is_yaml_with_the_same_meaning() -> None:
    assert yaml.safe_load(render(OURS)) == OURS.document()


def test_credentials_are_read_inline_and_from_files(tmp_path: Path) -> None:
    inline = ours(tmp_path).credentials()
    assert (inline.server, inline.ca, inline.client_cert, inline.client_key) == (
        "https://127.0.0.1:6443", b"CA", b"CERT", b"KEY",
    )  # fmt: skip
    (tmp_path / "both.pem").write_bytes(b"BOTH")
    entry = Entry.with_files("c", "u", "https://x", b"CA", Path("both.pem"), Path("both.pem"))
    assert parse(render(entry), tmp_path / "kubelet.conf").credentials().client_cert == b"BOTH"


def test_merging_keeps_what_is_there_switches_and_saves_a_backup(tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text(THEIRS)
    backup = merge(target, ours(tmp_path))
    merged = load(target)
    assert merged.current_context == "miniplane"
    assert merged.credentials("work").token == "secret" and merged.credentials().ca == b"CA"
    assert backup is not None and backup.read_text() == THEIRS
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_merging_twice_changes_nothing_more(tmp_path: Path) -> None:
    target = tmp_path / "config"
    merge(target, ours(tmp_path))
    before = target.read_bytes()
    assert merge(target, ours(tmp_path)) is None and target.read_bytes() == before


def test_merging_into_nothing_makes_the_folder(tmp_path: Path) -> None:
    assert merge(tmp_path / ".kube" / "config", ours(tmp_path)) is None
    assert load(tmp_path / ".kube" / "config").credentials().client_key == b"KEY"


def test_a_symlinked_kubeconfig_stays_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").write_text(THEIRS)
    (tmp_path / "config").symlink_to(tmp_path / "real")
    merge(tmp_path / "config", ours(tmp_path))
    assert (tmp_path / "config").is_symlink() and "miniplane" in (tmp_path / "real").read_text()


def test_removing_takes_out_what_merging_put_in(tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text(THEIRS)
    merge(target, ours(tmp_path))
    assert remove(target, "miniplane") and not remove(target, "miniplane")
    left = yaml.safe_load(target.read_text())
    assert [entry["name"] for entry in left["users"]] == ["me"] and left["current-context"] == ""


def test_a_held_lock_is_an_error_and_not_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeconfig, "LOCK_PATIENCE", 0.0)
    (tmp_path / "config.lock").touch()
    with pytest.raises(KubeconfigError, match="held by another program"):
        merge(tmp_path / "config", ours(tmp_path))
    assert (tmp_path / "config.lock").exists() and not (tmp_path / "config").exists()


@pytest.mark.parametrize("content", ["- a", "{", "a: &a [*a]", "current-context: x", "contexts: 3"])
def test_a_malformed_kubeconfig_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(KubeconfigError):
        parse(content.encode(), tmp_path / "config").credentials()


def test_data_that_is_no_base64_is_an_error(tmp_path: Path) -> None:
    content = render(OURS).replace(base64.b64encode(b"CERT"), b"!!!!")
    with pytest.raises(KubeconfigError, match="client-certificate-data"):
        parse(content, tmp_path / "config").credentials()


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_kubectl_reads_every_kubeconfig(issued: Layout) -> None:
    for path in issued.state_dir.rglob("*.conf"):
        command = ["kubectl", "--kubeconfig", str(path), "config", "current-context"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "miniplane\n"


def test_a_new_ssh_key_is_what_ssh_keygen_says_it_is(tmp_path: Path) -> None:
    pair = new_ssh_key("node-1")
    (tmp_path / "key").write_bytes(pair.private)
    (tmp_path / "key").chmod(0o600)
    said = subprocess.run(["ssh-keygen", "-y", "-f", str(tmp_path / "key")], capture_output=True, text=True, check=True)
    assert said.stdout.split()[:2] == pair.public.split()[:2] == public_line(pair.private, "key").split()


def test_known_hosts_lines_carry_the_port_when_it_is_unusual() -> None:
    public = new_ssh_key("x").public
    key = public.split()[1]
    assert known_hosts_line("node-1", 22, public) == f"node-1 ssh-ed25519 {key}"
    assert known_hosts_line("node-1", 2222, public) == f"[node-1]:2222 ssh-ed25519 {key}"


def test_garbage_is_no_ssh_key() -> None:
    with pytest.raises(InvalidKey):
        public_line(b"garbage", "key")
    with pytest.raises(InvalidKey):
        known_hosts_line("h", 22, "ssh-ed25519 !!!")
