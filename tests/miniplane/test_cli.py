"""The command's words: what it prints, what it exits with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_cluster import SLEEPER, program, until

from miniplane import doctor as doctor_module
from miniplane.cli import main, parser
from miniplane.completion import paths, script, words
from miniplane.configfile import parse
from miniplane.errors import OptionsError
from miniplane.readiness import probe_pod, ready_nodes
from miniplane.state import Storage


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "miniplane", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ) | environment)


def test_a_wrong_word_is_exit_code_2_and_says_where_to_look() -> None:
    done = run("upp")
    assert done.returncode == 2 and "see miniplane --help" in done.stderr


def test_status_of_nothing_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--state-dir", str(tmp_path)]) == 3
    assert json.loads(capsys.readouterr().out)["running"] is False


def test_status_of_a_cluster_that_is_not_ready_is_exit_code_4(make_fake, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = make_fake(lambda state: [program("one", SLEEPER, state)])
    assert main(["status", "--state-dir", str(cluster.state.path)]) == 4
    printed = capsys.readouterr().out
    assert "one       running" in printed and "not ready" in printed


def test_down_of_nothing_is_fine(tmp_path: Path) -> None:
    done = run("down", "--state-dir", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (0, "nothing was running\n")
    assert not (tmp_path / "none").exists()


def test_restart_of_nothing_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restart", "miniapiserver", "--state-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"miniplane: no cluster runs in {tmp_path}: `miniplane up` starts one\n"


def test_a_state_dir_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("up", "--state-dir", str(tmp_path / "file" / "run"))
    assert done.returncode == 1 and done.stderr == f"miniplane: write {tmp_path}/file/run: Not a directory\n"


@pytest.mark.parametrize("name", ["../x", "A", "-a", ""])
def test_a_cluster_name_cannot_lead_outside(tmp_path: Path, name: str) -> None:
    done = run("up", f"--name={name}", "--state-dir", str(tmp_path / "run"))
    assert done.returncode == 1 and "--name" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_logs_are_shown_whole_or_their_end(make_fake, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = make_fake(lambda state: [program("one", "print(1); print(2); print(3)\n" + SLEEPER, state)])
    cluster.state.log("one").write_text("1\n2\n3\n")
    assert main(["logs", "one", "--tail", "2", "--state-dir", str(cluster.state.path)]) == 0
    assert capsys.readouterr().out == "2\n3\n"
    assert main(["logs", "two", "--state-dir", str(cluster.state.path)]) == 1
    assert "no log of 'two'; there are one, supervisor" in capsys.readouterr().err


def test_logs_are_followed(make_fake) -> None:
    cluster = make_fake(lambda state: [program("one", SLEEPER, state)])
    until(cluster.state.log("one").exists)
    command = [sys.executable, "-m", "miniplane", "logs", "one", "-f", "--state-dir", str(cluster.state.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            with cluster.state.log("one").open("a") as log:
                until(lambda: _is_reading(following.pid, cluster.state.log("one")))
                log.write("half a ")
                log.flush()
                log.write("line\n")
            assert following.stdout.readline() == "half a line\n"
        finally:
            following.terminate()


def _is_reading(pid: int, path: Path) -> bool:
    folder = Path(f"/proc/{pid}/fd")
    links = [os.readlink(link) for link in folder.iterdir() if link.is_symlink()]
    return str(path) in links


def test_kubeconfig_is_printed_merged_and_removed(make_fake, tmp_path: Path) -> None:
    cluster = make_fake(lambda state: [program("one", SLEEPER, state)])
    where = ("--state-dir", str(cluster.state.path))
    assert run("kubeconfig", *where).stdout == (cluster.state.path / "admin.conf").read_text()
    mine = str(tmp_path / "mine")
    assert "switched to context 'miniplane'" in run("kubeconfig", "--merge", *where, KUBECONFIG=mine).stderr
    assert "current-context: miniplane" in Path(mine).read_text()
    assert "removed" in run("kubeconfig", "--remove", *where, KUBECONFIG=mine).stderr


def test_export_has_logs_and_no_secret(make_fake, tmp_path: Path) -> None:
    cluster = make_fake(lambda state: [program("one", SLEEPER, state)])
    assert main(["export", "logs", str(tmp_path / "out"), "--state-dir", str(cluster.state.path)]) == 0
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"cluster.json", "doctor.json", "status.json", "version.json"} <= {path.name for path in files}
    token = (cluster.state.path / "bootstrap-token").read_bytes().strip()
    for path in files:
        assert b"PRIVATE KEY" not in path.read_bytes() and token not in path.read_bytes()


def test_doctor_says_what_follows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"python", "loopback", "ports below 1024", "user namespaces", "kubectl"} <= {f["subject"] for f in findings}


def test_doctor_finds_a_missing_program_to_be_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    verdicts = {finding.subject: finding.verdict for finding in doctor_module.examine()}
    for subject in ("bubblewrap", "nft", "etcd", "kubectl"):
        assert verdicts[subject] is doctor_module.Verdict.REMARK


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_completed(shell: str) -> None:
    text = script(shell, parser())
    for command in paths(words(parser())):
        for word in command:
            assert word in text


def complete(line: str) -> list[str]:
    words_ = line.split(" ")
    program_ = f"""
        {script("bash", parser())}
        COMP_WORDS=({" ".join(f"'{word}'" for word in words_)}); COMP_CWORD={len(words_) - 1}
        _miniplane; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", program_], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_and_flags() -> None:
    assert complete("miniplane re") == ["restart"]
    assert complete("miniplane image im") == ["import"]
    assert complete("miniplane up --no") == ["--nodes"]
    assert complete("miniplane completion f") == ["fish"]


def test_a_configuration_file_is_read_strictly() -> None:
    head = {"apiVersion": "miniplane/v1alpha1", "kind": "Cluster"}
    assert parse(head | {"nodes": 2, "storage": "etcd", "extraArgs": {"etcd": ["-v"]}}) == {
        "nodes": 2, "storage": Storage.ETCD, "extra_args": {"etcd": ("-v",)},
    }  # fmt: skip
    for wrong in ({}, [], {"kind": "Cluster"}, head | {"node": 2}, head | {"nodes": "2"}, head | {"storage": "disk"},
                  head | {"extraArgs": ["x"]}, head | {"kubeletCA": "on"}):  # fmt: skip
        with pytest.raises(OptionsError):
            parse(wrong)


NODE = {"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


@pytest.mark.parametrize(
    ("renewed", "is_in"),
    [("2026-06-01T12:00:01.000000Z", True), ("2026-06-01T11:59:59.999999Z", False), (None, False), ("x", False)],
)
def test_a_node_is_ready_only_with_a_lease_renewed_since_the_start(renewed: str | None, is_in: bool) -> None:
    start = 1780315200.0  # 2026-06-01T12:00:00Z
    leases = {"items": [{"metadata": {"name": "n"}, "spec": {"renewTime": renewed}}]}
    assert (ready_nodes({"items": [NODE]}, leases, start) == {"n"}) is is_in


def test_a_node_that_is_not_ready_is_not_ready_whatever_its_lease() -> None:
    sick = {"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    leases = {"items": [{"metadata": {"name": "n"}, "spec": {"renewTime": "2026-06-01T12:00:01Z"}}]}
    assert ready_nodes({"items": [sick]}, leases, 0.0) == set()


def test_the_probe_pod_needs_no_service_account_token() -> None:
    assert probe_pod("p", "line")["spec"]["automountServiceAccountToken"] is False
