"""The table: every command people use, with every kubectl on the machine, against real pods."""

import base64
import hashlib
import json
import re
import shutil
import socket
import subprocess
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

from certs.requests import new_csr, new_key
from tests.e2e.kubectl import Kubectl

pytestmark = pytest.mark.e2e

TALKER = """
apiVersion: v1
kind: Pod
metadata: {name: talker, labels: {app: talker}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: one, image: busybox, command: [sh, -c, 'i=0; while true; do echo one $i; i=$((i+1)); sleep 0.2; done']}
  - {name: two, image: busybox, command: [sh, -c, 'echo two; sleep 3600']}
"""
SHELL = """
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: busybox, command: [sh, -c, 'echo up; sleep 3600'], volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, emptyDir: {}}]
"""
ECHO = """
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: echo, image: miniplane.local/echo, ports: [{containerPort: 8080}]}]
"""


def eventually(check: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `check` returns once it is true. A poll: the thing waited for is another program's."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def pods(kubectl: Kubectl) -> Kubectl:
    """The three pods most tests look at, running."""
    kubectl("apply", "-f", "-", stdin="---".join([TALKER, SHELL, ECHO]))
    kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=30s")
    return kubectl


def test_apply_says_created_then_unchanged_then_configured(kubectl: Kubectl) -> None:
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {a: '1'}\n"
    assert "created" in kubectl("apply", "-f", "-", stdin=manifest)
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=manifest)
    assert "configured" in kubectl("apply", "-f", "-", stdin=manifest.replace("'1'", "'2'"))
    assert kubectl("get", "cm", "applied", "-o", "jsonpath={.data.a}") == "2"


def test_apply_refuses_a_misspelt_field_before_it_is_stored(kubectl: Kubectl) -> None:
    answer = kubectl.run(
        "apply", "-f", "-", stdin="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndatta: {a: b}\n"
    )
    assert answer.returncode == 1
    assert "datta" in answer.stderr
    assert kubectl.run("get", "cm", "bad").returncode == 1


def test_get_watch_shows_a_change_as_it_happens(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "watched", "--from-literal=k=v")
    with kubectl.start("get", "configmap", "watched", "-w", "--output-watch-events") as watching:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(iter(watching.output.readline, "")))
        reader.start()
        eventually(lambda: any("ADDED" in line for line in lines))
        kubectl("label", "configmap", "watched", "seen=yes")
        eventually(lambda: any("MODIFIED" in line for line in lines))
        kubectl("delete", "configmap", "watched")
        eventually(lambda: any("DELETED" in line for line in lines))
        watching.process.terminate()
        reader.join()


def test_get_prints_the_columns_people_know(pods: Kubectl) -> None:
    head, *rows = pods("get", "pods", "-o", "wide").splitlines()
    assert head.split()[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert any(row.startswith("talker") and "2/2" in row and "Running" in row for row in rows)


def test_describe_tells_of_containers_and_events(pods: Kubectl) -> None:
    text = pods("describe", "pod", "shell")
    assert re.search(r"Status:\s+Running", text)
    assert "emptyDir" in text.replace("EmptyDir", "emptyDir")
    assert "Successfully assigned" in text and "Started" in text


def test_logs_by_container_tail_since_and_timestamps(pods: Kubectl) -> None:
    assert pods("logs", "talker", "-c", "two") == "two\n"
    eventually(lambda: len(pods("logs", "talker", "-c", "one", "--tail=3").splitlines()) == 3)
    assert pods("logs", "talker", "-c", "two", "--since=1h") == "two\n"
    stamped = pods("logs", "talker", "-c", "two", "--timestamps")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\S+ two\n", stamped)
    both = pods("logs", "talker", "--all-containers")
    assert "one 0\n" in both and "two\n" in both
    assert (
        "choose one of" in pods.run("logs", "talker").stderr
        or "Defaulted container" in pods.run("logs", "talker").stderr
    )


def test_logs_follow_ends_when_the_container_does(pods: Kubectl) -> None:
    pods(
        "run",
        "short",
        "--image=busybox",
        "--restart=Never",
        "--command",
        "--",
        "sh",
        "-c",
        "for i in 1 2 3; do echo line $i; sleep 0.3; done",
    )
    eventually(lambda: pods("get", "pod", "short", "-o", "jsonpath={.status.phase}") in ("Running", "Succeeded"))
    assert pods("logs", "-f", "short").splitlines() == ["line 1", "line 2", "line 3"]


def test_logs_previous_shows_the_run_before(kubectl: Kubectl) -> None:
    kubectl("run", "again", "--image=busybox", "--command", "--", "sh", "-c", "echo run $(date +%N); sleep 0.2; exit 1")
    eventually(
        lambda: (
            kubectl("get", "pod", "again", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
            not in ("", "0")
        )
    )
    assert re.fullmatch(r"run \d+\n", kubectl("logs", "again", "--previous"))
    kubectl("delete", "pod", "again", "--now")


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 137, 255])
def test_exec_ends_with_the_exit_code_of_the_command(pods: Kubectl, code: int) -> None:
    answer = pods.run("exec", "shell", "--", "sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert (answer.returncode, answer.stdout) == (code, "out\n")
    assert answer.stderr.startswith("err\n")


def test_exec_pipes_standard_input_through_unchanged(pods: Kubectl) -> None:
    data = "".join(f"{number:07d}\n" for number in range(25_000))
    assert pods("exec", "-i", "shell", "--", "cat", stdin=data) == data


def _terminal(kubectl: Kubectl, *words: str) -> "pexpect.spawn[str]":
    argv = kubectl.argv(*words)
    return pexpect.spawn(argv[0], argv[1:], env=kubectl.environment, encoding="utf-8", timeout=20, dimensions=(24, 80))


def test_exec_it_is_a_terminal_that_can_be_resized(pods: Kubectl) -> None:
    child = _terminal(pods, "exec", "-it", "shell", "--", "sh")
    child.sendline("PS1='ready> '; stty size; tty")
    child.expect("24 80")
    child.expect("/dev/pts/")
    child.setwinsize(40, 120)
    time.sleep(0.3)
    child.sendline("stty size")
    child.expect("40 120")
    child.sendline("sleep 100")
    time.sleep(0.5)  # the shell must have handed the terminal to its child
    child.sendintr()
    child.sendline("echo after $((6*7))")
    child.expect("after 42")
    child.sendline("exit 7")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 7


def test_attach_it_reaches_the_running_shell(kubectl: Kubectl) -> None:
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=json.dumps(
            {
                "kind": "Pod",
                "apiVersion": "v1",
                "metadata": {"name": "attached"},
                "spec": {
                    "containers": [
                        {"name": "attached", "image": "busybox", "command": ["sh"], "stdin": True, "tty": True}
                    ]
                },
            }
        ),
    )
    kubectl("wait", "--for=condition=Ready", "pod/attached", "--timeout=30s")
    child = _terminal(kubectl, "attach", "-it", "attached")
    child.sendline("")
    child.sendline("echo answer $((6*7))")
    child.expect("answer 42")
    child.setwinsize(33, 99)
    time.sleep(0.3)
    child.sendline("stty size")
    child.expect("33 99")
    child.sendline("exit")
    child.expect(pexpect.EOF)
    child.close()
    kubectl("delete", "pod", "attached", "--now")


def test_port_forward_carries_several_connections_at_once(pods: Kubectl) -> None:
    with pods.start("port-forward", "pod/echo", ":8080") as forwarding:
        port, answers = forwarding.port(), list[str]()

        def ask(number: int) -> None:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/n/{number}", timeout=20) as response:
                answers.append(json.load(response)["path"])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [f"/n/{number}" for number in range(8)]


def test_port_forward_to_a_closed_port_ends_with_an_error(pods: Kubectl) -> None:
    with pods.start("port-forward", "pod/echo", ":9") as forwarding:
        with socket.create_connection(("127.0.0.1", forwarding.port()), timeout=10) as client:
            client.sendall(b"x")
            assert client.recv(1) == b""
        if pods.version >= (1, 23):  # older ones log it and go on
            assert "error forwarding port 9" in forwarding.output.read()


def _tree(folder: Path) -> str:
    """A digest of every name and byte below."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def fifty_megabytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cp") / "tree"
    block = bytes(range(256)) * 4096
    for number in range(50):
        path = folder / f"dir{number % 5}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(block[number:] + block[:number])
    return folder


def test_cp_carries_a_tree_both_ways_unchanged(pods: Kubectl, fifty_megabytes: Path, tmp_path: Path) -> None:
    pods("cp", str(fifty_megabytes), "shell:/data/tree")
    pods("cp", "shell:/data/tree", str(tmp_path / "back"))
    assert _tree(tmp_path / "back") == _tree(fifty_megabytes)
    pods("exec", "shell", "--", "rm", "-rf", "/data/tree")


def test_proxy_passes_requests_on_with_our_credentials(pods: Kubectl) -> None:
    with pods.start("proxy", "--port=0") as proxy:
        base = f"http://127.0.0.1:{proxy.port()}/api/v1/namespaces/{pods.namespace}"
        with urllib.request.urlopen(base, timeout=10) as response:
            assert json.load(response)["metadata"]["name"] == pods.namespace
        with urllib.request.urlopen(f"{base}/pods/echo:8080/proxy/deep/path?q=1", timeout=10) as response:
            assert json.load(response)["path"] == "/deep/path?q=1"


def test_a_deployment_rolls_out_scales_and_rolls_back(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=miniplane.local/sleeper")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    kubectl("scale", "deployment/web", "--replicas=3")
    kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=30s")
    eventually(lambda: kubectl("get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}") == "3")
    kubectl("set", "image", "deployment/web", "sleeper=miniplane.local/ticker")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert (
        kubectl(
            "get", "deployment", "web", "-o", "jsonpath={.metadata.annotations.deployment\\.kubernetes\\.io/revision}"
        )
        == "2"
    )
    kubectl("rollout", "undo", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert kubectl("get", "deployment", "web", "-o", "jsonpath={..image}") == "miniplane.local/sleeper"
    kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
    eventually(
        lambda: len(kubectl("get", "endpoints", "web", "-o", "jsonpath={.subsets[*].addresses[*].ip}").split()) == 3
    )
    kubectl("delete", "deployment", "web")
    eventually(lambda: kubectl("get", "pods", "-l", "app=web", "-o", "name") == "")


def test_a_job_runs_to_completion(kubectl: Kubectl) -> None:
    kubectl("create", "job", "once", "--image=busybox", "--", "sh", "-c", "echo done")
    kubectl("wait", "--for=condition=complete", "job/once", "--timeout=30s")
    assert kubectl("logs", "job/once") == "done\n"
    kubectl("delete", "job", "once")


def test_label_annotate_and_patch_of_every_kind(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "patched", "--from-literal=a=1")
    kubectl("label", "cm", "patched", "l=1")
    kubectl("annotate", "cm", "patched", "n=2")
    kubectl("patch", "cm", "patched", "--type=merge", "-p", '{"data":{"b":"2"}}')
    kubectl("patch", "cm", "patched", "--type=json", "-p", '[{"op":"remove","path":"/data/a"}]')
    kubectl("patch", "cm", "patched", "--type=strategic", "-p", '{"data":{"c":"3"}}')
    found = json.loads(kubectl("get", "cm", "patched", "-o", "json"))
    assert found["data"] == {"b": "2", "c": "3"}
    assert (found["metadata"]["labels"], found["metadata"]["annotations"]) == ({"l": "1"}, {"n": "2"})


def test_apply_server_side_owns_fields_and_conflicts(kubectl: Kubectl) -> None:
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: owned}\ndata: {a: '1'}\n"
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", stdin=manifest)
    other = kubectl.run(
        "apply", "--server-side", "--field-manager=other", "-f", "-", stdin=manifest.replace("'1'", "'2'")
    )
    assert other.returncode == 1 and "conflict" in other.stderr
    kubectl(
        "apply",
        "--server-side",
        "--field-manager=other",
        "--force-conflicts",
        "-f",
        "-",
        stdin=manifest.replace("'1'", "'2'"),
    )
    assert kubectl("get", "cm", "owned", "-o", "jsonpath={.data.a}") == "2"


@pytest.mark.skipif(shutil.which("diff") is None, reason="kubectl diff calls diff")
def test_diff_shows_what_apply_would_change(kubectl: Kubectl) -> None:
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: differs}\ndata: {a: '1'}\n"
    kubectl("apply", "-f", "-", stdin=manifest)
    assert kubectl.run("diff", "-f", "-", stdin=manifest).returncode == 0
    changed = kubectl.run("diff", "-f", "-", stdin=manifest.replace("'1'", "'2'"))
    assert changed.returncode == 1
    assert re.search(r'^-  a: "1"$', changed.stdout, re.M) and re.search(r'^\+  a: "2"$', changed.stdout, re.M)


def test_explain_knows_fields_below_fields(kubectl: Kubectl) -> None:
    text = kubectl("explain", "pod.spec.containers.livenessProbe")
    assert "httpGet" in text and "initialDelaySeconds" in text


def test_auth_says_what_i_may_and_what_others_may_not(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "delete", "nodes").strip() == "yes"
    refused = kubectl.run("auth", "can-i", "delete", "nodes", "--as", "nobody")
    assert (refused.returncode, refused.stdout.strip().splitlines()[-1]) == (1, "no")
    assert "*.*" in kubectl("auth", "can-i", "--list")
    if kubectl.version >= (1, 28):
        assert "system:masters" in kubectl("auth", "whoami")


def test_a_role_lets_a_service_account_do_just_that(kubectl: Kubectl) -> None:
    account = f"system:serviceaccount:{kubectl.namespace}:reader"
    kubectl("create", "serviceaccount", "reader")
    kubectl("create", "role", "reads", "--verb=get,list", "--resource=configmaps")
    assert kubectl.run("get", "cm", "--as", account).returncode == 1
    kubectl("create", "rolebinding", "reads", "--role=reads", f"--serviceaccount={kubectl.namespace}:reader")
    assert kubectl.run("get", "cm", "--as", account).returncode == 0
    assert kubectl.run("get", "secrets", "--as", account).returncode == 1
    if kubectl.version >= (1, 24):
        token = kubectl("create", "token", "reader", "--duration=10m").strip()
        assert json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["sub"] == account


def test_delete_waits_for_the_grace_of_the_pod(kubectl: Kubectl) -> None:
    kubectl(
        "run",
        "slow",
        "--image=busybox",
        "--command",
        "--",
        "sh",
        "-c",
        "trap 'sleep 1; exit 0' TERM; while true; do sleep 0.1; done",
    )
    kubectl("wait", "--for=condition=Ready", "pod/slow", "--timeout=30s")
    started = time.monotonic()
    kubectl("delete", "pod", "slow", "--grace-period=20")
    assert 0.9 < time.monotonic() - started < 15


def test_run_it_rm_is_a_shell_that_leaves_nothing_behind(kubectl: Kubectl) -> None:
    child = _terminal(
        kubectl, "run", "guest", "--rm", "-it", "--image=busybox", "--restart=Never", "--command", "--", "sh"
    )
    child.expect("pressing enter|[#$] ")
    child.sendline("")
    child.sendline("echo sum $((6*7))")
    child.expect("sum 42")
    child.sendline("exit")
    child.expect('pod "guest" deleted')
    child.expect(pexpect.EOF)
    child.close()
    assert kubectl.run("get", "pod", "guest").returncode == 1


def test_debug_adds_an_ephemeral_container_to_a_running_pod(pods: Kubectl) -> None:
    if pods.version < (1, 23):
        pytest.skip("kubectl before 1.23 speaks the alpha form of ephemeral containers, which Kubernetes no longer has")
    name = f"debug{pods.version[1]}"
    pods("debug", "shell", "--image=busybox", f"--container={name}", "--", "sh", "-c", "echo looking; sleep 60")
    eventually(lambda: pods.run("logs", "shell", "-c", name).stdout == "looking\n")


def test_cordon_keeps_new_pods_away_and_drain_evicts(kubectl: Kubectl) -> None:
    kubectl(
        "run",
        "moved",
        "--image=miniplane.local/sleeper",
        "--overrides",
        json.dumps({"spec": {"nodeName": "node-2", "terminationGracePeriodSeconds": 1}}),
    )
    kubectl("wait", "--for=condition=Ready", "pod/moved", "--timeout=30s")
    try:
        kubectl("cordon", "node-2")
        assert "SchedulingDisabled" in kubectl("get", "node", "node-2")
        flag = "--delete-local-data" if kubectl.version < (1, 20) else "--delete-emptydir-data"
        selector = ["--pod-selector=run=moved"]
        assert "evicted" in kubectl("drain", "node-2", "--ignore-daemonsets", "--force", flag, *selector)
        assert kubectl.run("get", "pod", "moved").returncode == 1
    finally:
        kubectl("uncordon", "node-2")
    assert "SchedulingDisabled" not in kubectl("get", "node", "node-2")


def test_a_certificate_is_asked_for_approved_and_issued(kubectl: Kubectl) -> None:
    name = f"person-{kubectl.namespace}"
    request = base64.b64encode(new_csr(new_key(), "jane", ["readers"])).decode()
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=json.dumps(
            {
                "kind": "CertificateSigningRequest",
                "apiVersion": "certificates.k8s.io/v1",
                "metadata": {"name": name},
                "spec": {
                    "request": request,
                    "signerName": "kubernetes.io/kube-apiserver-client",
                    "usages": ["client auth"],
                },
            }
        ),
    )
    assert "Pending" in kubectl("get", "csr", name)
    kubectl("certificate", "approve", name)
    issued = eventually(lambda: kubectl("get", "csr", name, "-o", "jsonpath={.status.certificate}"))
    assert b"BEGIN CERTIFICATE" in base64.b64decode(issued)
    assert "Approved,Issued" in kubectl("get", "csr", name)
    kubectl("delete", "csr", name)


def test_api_resources_and_cluster_info_are_complete(kubectl: Kubectl) -> None:
    listed = kubectl("api-resources", "--verbs=list", "-o", "name").split()
    assert {
        "pods",
        "deployments.apps",
        "jobs.batch",
        "leases.coordination.k8s.io",
        "networkpolicies.networking.k8s.io",
    } <= set(listed)
    assert "is running at" in kubectl("cluster-info")
    assert "v1.36" in kubectl("version")


def test_a_missing_object_is_named_and_the_exit_code_is_one(kubectl: Kubectl) -> None:
    answer = kubectl.run("get", "pod", "nothing")
    assert (answer.returncode, answer.stderr.strip()) == (1, 'Error from server (NotFound): pods "nothing" not found')


def test_all_the_tar_cp_needs_is_in_the_pod(pods: Kubectl, tmp_path: Path) -> None:
    source = tmp_path / "one"
    source.write_text("hello")
    pods("cp", str(source), "shell:/data/one", "-c", "c")
    archive = subprocess.run(
        pods.argv("exec", "shell", "--", "tar", "cf", "-", "-C", "/data", "one"),
        capture_output=True,
        env=pods.environment,
        timeout=60,
        check=True,
    ).stdout
    (tmp_path / "a.tar").write_bytes(archive)
    with tarfile.open(tmp_path / "a.tar") as tar:
        member = tar.extractfile("one")
        assert member is not None and member.read() == b"hello"
