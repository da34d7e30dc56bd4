"""`up`, `down`, `status` and the pytest plugin with the real programs."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import until

from miniplane.control import ask
from miniplane.processes import Identity, children
from miniplane.state import StateDir
from miniplane.status import pss
from miniplane.testing import TestCluster

pytestmark = pytest.mark.e2e

MakeCluster = Callable[..., TestCluster]


@pytest.fixture(autouse=True)
def kubectl() -> None:
    """In CI a missing kubectl is a failure: most of what is promised here would go untested."""
    if shutil.which("kubectl") is None and not os.environ.get("CI"):
        pytest.skip("needs kubectl")


def miniplane(*arguments: str, cluster: TestCluster | None = None) -> "subprocess.CompletedProcess[str]":
    where = ["--state-dir", str(cluster.state.path)] if cluster else []
    command = [sys.executable, "-m", "miniplane", *arguments, *where]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


def everyone(cluster: TestCluster) -> list[Identity]:
    """Every process below the supervisor, and itself."""
    pids, found = [cluster.status()["pid"]], []
    while pids:
        pid = pids.pop()
        pids += children(pid)
        identity = Identity.of(pid)
        found += [identity] if identity else []
    return found


async def test_the_session_is_an_admin_of_the_cluster(miniplane_session: Any) -> None:
    async with miniplane_session.get("/api/v1/nodes") as response:
        assert [node["metadata"]["name"] for node in (await response.json())["items"]] == ["node-1"]


async def test_a_stranger_is_not(miniplane_cluster: TestCluster) -> None:
    import aiohttp

    unverified = aiohttp.TCPConnector(ssl=False)
    url = f"{miniplane_cluster.url}/api/v1/nodes"
    async with aiohttp.ClientSession(connector=unverified) as session, session.get(url) as response:
        assert response.status in (401, 403)


def test_the_kubeconfig_is_one_for_kubectl(kubeconfig: Path) -> None:
    command = ["kubectl", "--kubeconfig", str(kubeconfig), "get", "nodes", "-o", "name"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "node/node-1\n"


def test_up_on_a_running_cluster_changes_nothing(miniplane_cluster: TestCluster) -> None:
    before = miniplane_cluster.status()["processes"]
    done = miniplane("up", cluster=miniplane_cluster)
    assert (done.returncode, "was running already" in done.stdout) == (0, True)
    after = miniplane_cluster.status()["processes"]
    assert [process["pid"] for process in before] == [process["pid"] for process in after]


def test_the_probe_leaves_no_pod_behind(miniplane_cluster: TestCluster) -> None:
    command = ["kubectl", "get", "pods", "-A", "-l", "miniplane.io/probe", "-o", "name"]
    until(lambda: not subprocess.run(command, capture_output=True, env=miniplane_cluster.environment).stdout)


def test_status_says_that_all_is_well(miniplane_cluster: TestCluster) -> None:
    done = miniplane("status", "--json", cluster=miniplane_cluster)
    seen = json.loads(done.stdout)
    assert (done.returncode, seen["ready"], seen["nodes"]) == (0, True, [{"name": "node-1", "ready": True}])
    assert [process["name"] for process in seen["processes"]] == ["miniapiserver", "minicontroller", "node-1"]


def test_one_node_takes_at_most_200_megabytes(miniplane_cluster: TestCluster) -> None:
    """Every process that the cluster consists of: the guardian and the kubelet's helper, too."""
    guardian = int(Path(f"/proc/{miniplane_cluster.status()['pid']}/stat").read_text().rpartition(")")[2].split()[1])
    pids = [guardian, *(one.pid for one in everyone(miniplane_cluster))]
    assert sum(pss(pid) or 0 for pid in pids) <= 200 * 10**6


@pytest.mark.parametrize("process", ["miniapiserver", "minicontroller", "node-1"])
def test_a_killed_process_comes_back_and_the_cluster_with_it(make_cluster: MakeCluster, process: str) -> None:
    cluster = make_cluster()
    pid = next(one["pid"] for one in cluster.status()["processes"] if one["name"] == process)
    os.kill(pid, signal.SIGKILL)
    until(lambda: next(one for one in cluster.status()["processes"] if one["name"] == process)["restarts"] == 1)
    assert miniplane("up", cluster=cluster).returncode == 0
    until(lambda: miniplane("status", cluster=cluster).returncode == 0, seconds=30)


def test_down_leaves_nothing_running_not_even_pods(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    run_sleeper(cluster)
    processes = everyone(cluster)
    assert len(processes) > 5
    assert miniplane("down", cluster=cluster).returncode == 0
    assert not [one for one in processes if one.is_alive]


def test_a_killed_supervisor_leaves_nothing_running_not_even_pods(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    run_sleeper(cluster)
    processes = everyone(cluster)
    os.kill(cluster.status()["pid"], signal.SIGKILL)
    until(lambda: not [one for one in processes if one.is_alive])


def run_sleeper(cluster: TestCluster) -> None:
    env = cluster.environment
    subprocess.run(["kubectl", "run", "s", "--image=miniplane.local/sleeper"], env=env, check=True, capture_output=True)
    ready = ["kubectl", "wait", "--for=condition=Ready", "pod/s", "--timeout=20s"]
    subprocess.run(ready, env=env, check=True, capture_output=True)


def test_objects_outlive_down_and_up(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    env = cluster.environment
    subprocess.run(["kubectl", "create", "configmap", "kept", "--from-literal=a=b"], env=env, check=True)
    assert miniplane("down", cluster=cluster).returncode == 0
    assert miniplane("up", cluster=cluster).returncode == 0
    read = ["kubectl", "get", "configmap", "kept", "-o", "jsonpath={.data.a}"]
    assert subprocess.run(read, env=env, check=True, capture_output=True, text=True).stdout == "b"


def test_several_nodes_are_all_ready(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(nodes=3)
    command = ["kubectl", "get", "nodes", "--no-headers"]
    lines = subprocess.run(command, env=cluster.environment, check=True, capture_output=True, text=True).stdout
    assert [line.split()[:2] for line in lines.splitlines()] == [[f"node-{n}", "Ready"] for n in (1, 2, 3)]


@pytest.mark.skipif(shutil.which("etcd") is None and not os.environ.get("CI"), reason="needs etcd")
def test_etcd_keeps_the_objects_where_asked(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(storage="etcd")
    names = [process["name"] for process in cluster.status()["processes"]]
    assert names == ["etcd", "miniapiserver", "minicontroller", "node-1"]


def test_two_clusters_of_one_state_directory_live_side_by_side(tmp_path: Path) -> None:
    where = ["--state-dir", str(tmp_path), "--secure-port", "0"]
    try:
        assert miniplane("up", *where).returncode == 0
        assert miniplane("up", *where, "--name", "blue").returncode == 0
        contexts = [StateDir.of(tmp_path, name).path / "admin.conf" for name in ("default", "blue")]
        assert ["miniplane" in path.read_text() for path in contexts] == [True, True]
        assert "miniplane-blue" in contexts[1].read_text()
    finally:
        for name in ("default", "blue"):
            assert miniplane("down", "--name", name, "--state-dir", str(tmp_path)).returncode == 0


def test_only_the_api_server_and_kubelets_listen_and_on_loopback_only(miniplane_cluster: TestCluster) -> None:
    sockets = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=False)
    if sockets.returncode != 0:
        pytest.skip("needs ss")
    pids = {identity.pid for identity in everyone(miniplane_cluster)}
    ours = [line for line in sockets.stdout.splitlines() if any(f"pid={pid}," in line for pid in pids)]
    assert ours and all(line.split()[3].startswith("127.") for line in ours)


def test_a_hopeless_program_is_reported_with_its_last_words(tmp_path: Path) -> None:
    config = {"apiVersion": "miniplane/v1alpha1", "kind": "Cluster", "extraArgs": {"miniapiserver": ["--no-such-flag"]}}
    (tmp_path / "cluster.yaml").write_text(json.dumps(config))
    where = ["--state-dir", str(tmp_path / "run")]
    try:
        done = miniplane("up", *where, "--config", str(tmp_path / "cluster.yaml"), "--secure-port", "0")
        assert done.returncode == 1 and "miniapiserver ends again and again" in done.stderr
        assert "--no-such-flag" in done.stderr and "goes on trying" in done.stderr
    finally:
        miniplane("down", *where)


def test_a_second_start_is_quick(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    miniplane("down", cluster=cluster)
    begun = time.monotonic()
    assert miniplane("up", cluster=cluster).returncode == 0
    # 0.8 s on an idle machine of two cores; the limit that is promised is 2.5 s, checked by the bench.
    assert time.monotonic() - begun < 10


def host_image(path: Path) -> Path:
    """An image of this machine's shell: `docker save` of one layer with /bin/sh and the libraries it needs."""
    listed = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    libraries = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w:gz", dereference=True) as tar:
        for file in ("/bin/sh", *libraries):
            tar.add(file)
        marker = tarfile.TarInfo("etc/marker")
        marker.size = 7
        tar.addfile(marker, io.BytesIO(b"inside\n"))
    config = {
        "config": {"Cmd": ["/bin/sh", "-c", "read line < /etc/marker; echo $line $COLOUR"], "Env": ["COLOUR=red"]}
    }
    manifest = [{"Config": "c.json", "RepoTags": ["own/shell:1"], "Layers": ["l.tar"]}]
    contents = {"manifest.json": manifest, "c.json": config}
    with tarfile.open(path, "w") as tar:
        members = {name: json.dumps(content).encode() for name, content in contents.items()} | {
            "l.tar": layer.getvalue()
        }
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_an_imported_image_runs_with_its_own_files(miniplane_cluster: TestCluster, tmp_path: Path) -> None:
    done = miniplane("image", "import", str(host_image(tmp_path / "i.tar")), cluster=miniplane_cluster)
    assert (done.returncode, done.stdout) == (0, "imported docker.io/own/shell:1\n")
    env = miniplane_cluster.environment
    run = ["kubectl", "run", "own", "--image=own/shell:1", "--restart=Never"]
    subprocess.run(run, env=env, check=True, capture_output=True)
    logs = ["kubectl", "logs", "own"]
    until(lambda: subprocess.run(logs, env=env, capture_output=True, text=True).stdout == "inside red\n", seconds=20)


def test_two_ups_at_once_make_one_cluster(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "miniplane", "up", "--secure-port", "0", "--json", "--state-dir", str(tmp_path)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    try:
        said = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] in ([0, 0], [1, 0], [0, 1]), said
        urls = {json.loads(out)["url"] for out, _ in said if out}
        assert len(urls) == 1
    finally:
        miniplane("down", "--state-dir", str(tmp_path))


def test_restart_answers_when_the_old_process_has_gone(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    before = next(one["pid"] for one in cluster.status()["processes"] if one["name"] == "minicontroller")
    assert miniplane("restart", "minicontroller", cluster=cluster).returncode == 0
    assert Identity.of(before) is None or not Path(f"/proc/{before}/cmdline").read_bytes()
    assert ask(cluster.state, {"do": "status"})["pid"] == cluster.status()["pid"]


def test_paths_show_the_tunnel_itself_and_what_protects_it(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(egress="konnectivity")
    entries = json.loads(miniplane("paths", "--json", cluster=cluster).stdout)
    # The agent may have asked before the server was there; such attempts are history, and carried nothing.
    tunnels = [entry for entry in entries if entry["purpose"] == "konnectivity tunnel"]
    assert {entry["protection"] for entry in tunnels if entry["state"] != "open"} <= {"none"}
    (tunnel,) = [entry for entry in tunnels if entry["state"] == "open"]
    assert tunnel["process"] == "konnectivity-agent-node-1"
    assert (tunnel["path"], tunnel["protection"]) == ("direct", "verified")
    assert tunnel["verifiedBy"].endswith("konnectivity-ca.crt")
    assert tunnel["credentials"].startswith("client certificate ")
    assert any(entry["path"].startswith("konnectivity") for entry in entries), "and what goes through it"
    assert miniplane("paths", "--fail-on", "unverified", cluster=cluster).returncode == 0


@pytest.mark.parametrize("egress", ["konnectivity", "konnectivity-tcp", "konnectivity-grpc"])
def test_through_konnectivity_logs_come_and_without_an_agent_they_do_not(
    make_cluster: MakeCluster, egress: str
) -> None:
    cluster = make_cluster(egress=egress)
    run_sleeper(cluster)
    read = ["kubectl", "exec", "s", "--", "echo", "hello"]
    assert subprocess.run(read, env=cluster.environment, capture_output=True, text=True).stdout == "hello\n"
    agent = next(one["pid"] for one in cluster.status()["processes"] if one["name"].startswith("konnectivity-agent"))
    os.kill(agent, signal.SIGSTOP)
    try:
        # The twin: the way is through the agent and nowhere else.
        failed = subprocess.run(["timeout", "3", *read], env=cluster.environment, capture_output=True, text=True)
        assert failed.returncode != 0 and failed.stdout == ""
    finally:
        os.kill(agent, signal.SIGCONT)
    assert miniplane("down", cluster=cluster).returncode == 0
    log = next(cluster.state.path.glob("**/konnectivity-agent-*.log")).read_text()
    assert "link.up" in log
    assert "drain.timeout" not in log, "a drain waited for a connection that nobody was going to end"
