"""`--topology netns`: nodes behind a firewall and an untrusted network, reached by SSH or Konnectivity only.

Needs root; the capture needs tcpdump or tshark.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniplane import topology
from miniplane.addresses import NetnsRanges
from miniplane.apiclient import APIClient
from miniplane.control import ask
from miniplane.errors import MiniplaneError
from miniplane.launch import down, up
from miniplane.processes import Identity
from miniplane.state import Egress, StateDir, Topology
from tests.e2e import egress
from tests.e2e.test_egress import Way, open_way, recovers

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not all(map(shutil.which, ("ip", "nft", "nsenter"))), reason="needs ip, nft and nsenter"),
]  # fmt: skip

#: What may cross the untrusted network, by egress: SSH into the nodes' network, and what nodes begin, to the API server
#: (443) and the Konnectivity server (8091).
INTO_NODES = {"ssh": {22}, "ssh-embedded": {22}, "konnectivity": set[int]()}
OUT_OF_NODES = {"ssh": {443}, "ssh-embedded": {443}, "konnectivity": {443, 8091}}


@pytest.fixture(scope="module", params=INTO_NODES)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    yield from open_way(request.param, tmp_path_factory, topology="netns", nodes=2)


def slot_of(way: Way) -> int:
    return way.cluster.state.require_record().place.slot


def connects(namespace: str, address: str, port: int) -> str:
    """What a program in the namespace is told when it dials: nothing, or why not."""
    code = f"import socket; socket.create_connection(({address!r}, {port}), 3).close()"
    done = subprocess.run(["ip", "netns", "exec", namespace, "python3", "-c", code], capture_output=True, text=True)
    return done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("stream", egress.STREAMS)
def test_every_stream_passes_behind_the_firewall(way: Way, stream: str) -> None:
    egress.STREAMS[stream](way.kubectl)


def test_the_control_plane_itself_cannot_reach_a_nodes_address(way: Way) -> None:
    control, untrusted, nodes = topology.namespaces(slot_of(way))
    kubelet = NetnsRanges(slot_of(way)).node_ip(1)
    assert connects(nodes, kubelet, 10250) == "", "it does listen"
    for outside in (control, untrusted):
        assert "No route to host" in connects(outside, kubelet, 10250)
        reached = connects(outside, kubelet, 22) == ""
        assert reached is ("ssh" in way.egress)


def test_direct_egress_fails_and_says_why(tmp_path_factory: pytest.TempPathFactory) -> None:
    state = StateDir.of(tmp_path_factory.mktemp("direct"))
    try:
        with pytest.raises(MiniplaneError, match=r"a pod's log line: 500 .*dial tcp .*10250"):
            up(state, {"topology": Topology.NETNS, "egress": Egress.DIRECT}, lambda line: None, ready_within=6.0)
        with APIClient.from_kubeconfig(state.path / "admin.conf") as client:
            answer = client.get("/api/v1/nodes/node-1/proxy/healthz")
        assert answer.status == 503 and b"10250: connect: no route to host" in answer.body
    finally:
        slot = state.require_record().place.slot
        down(state)
    assert traces(slot) == []


def traces(slot: int) -> list[str]:
    present = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    found = [name for name in topology.namespaces(slot) if name in present]
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    return found + ([topology.host_link(slot)] if topology.host_link(slot) in links else [])


def test_a_crash_leaves_nothing_that_the_next_up_does_not_clean(tmp_path_factory: pytest.TempPathFactory) -> None:
    state = StateDir.of(tmp_path_factory.mktemp("crash"))
    settings = {"topology": Topology.NETNS, "egress": Egress.KONNECTIVITY}
    try:
        up(state, settings, lambda line: None)
        slot = state.require_record().place.slot
        kill_everybody(state)
        assert traces(slot) == [*topology.namespaces(slot), topology.host_link(slot)]
        up(state, settings, lambda line: None)
        assert state.require_record().place.slot == slot
    finally:
        down(state)
    assert traces(slot) == []


def kill_everybody(state: StateDir) -> None:
    """Supervisor, guardian and programs at once, as the power would: nobody is left to bury anybody."""
    recorded = [Identity(entry["pid"], entry["startTime"]) for entry in json.loads(state.pids.read_text())]
    supervisor = ask(state, {"do": "status"})["pid"]
    guardian = int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (guardian, *(one.pid for one in recorded)):
        os.kill(pid, signal.SIGKILL)
    egress.eventually(lambda: not any(one.is_alive for one in recorded))


def test_networks_of_a_slot_that_nobody_has_are_swept(tmp_path: Path) -> None:
    slot = 29
    for name in topology.namespaces(slot):
        subprocess.run(["ip", "netns", "add", name], check=True)
    topology.sweep(ours=28)
    assert traces(slot) == []


def test_a_cut_network_is_an_error_for_who_follows_and_heals(way: Way) -> None:
    if way.egress == "ssh-embedded":
        pytest.skip("the API server's end is the same as with ssh, and a cut takes twenty seconds to notice")
    untrusted = topology.namespaces(slot_of(way))[1]
    kubectl = way.kubectl
    follow = subprocess.Popen(kubectl.argv("logs", "-f", "talker", "-c", "one"), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=kubectl.environment)
    with follow:
        assert follow.stdout and egress.SECRET in follow.stdout.readline()
        link = ["ip", "-netns", untrusted, "link", "set", "nodes"]
        subprocess.run([*link, "down"], check=True)
        try:
            _, error = follow.communicate(timeout=60)  # keepalives tell: nobody answers
        finally:
            follow.kill()
            assert subprocess.run([*link, "up"], capture_output=True, text=True).stderr == ""
            _restore_routes(way, untrusted)
    assert follow.returncode == 1 and "error" in error.lower()
    egress.eventually(lambda: kubectl.run("logs", "shell").returncode == 0, 20)
    recovers(way)


def _restore_routes(way: Way, untrusted: str) -> None:
    """A link that goes down takes its routes along."""
    ranges = NetnsRanges(slot_of(way))
    for network in ranges.all:
        subprocess.run(["ip", "-netns", untrusted, "route", "replace", network, "via", ranges.link(2, 2)], check=True)


# -- what an eavesdropper on the untrusted network sees


@contextlib.contextmanager
def captured(namespace: str, file: Path) -> Iterator[None]:
    program = next((found for name in ("tcpdump", "dumpcap", "tshark") if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("neither tcpdump nor tshark on this machine")
    flags = ["-U", "-s", "0"] if program.endswith("tcpdump") else ["-q"]
    with subprocess.Popen(["nsenter", f"--net=/run/netns/{namespace}", program, *flags, "-i", "nodes", "-w", str(file)],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as capturing:
        assert capturing.stderr is not None
        line = ""
        while "listening on" not in line and "File:" not in line:
            line = capturing.stderr.readline()
            assert line, "the capture did not start"
        try:
            yield
            time.sleep(0.5)  # what is on its way
        finally:
            capturing.terminate()


def test_an_eavesdropper_sees_ssh_or_tls_and_no_byte_of_the_pods(way: Way, tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("no tshark to read a capture with")
    file = tmp_path / "untrusted.pcap"
    with captured(topology.namespaces(slot_of(way))[1], file):
        for stream in egress.STREAMS.values():
            if stream is not egress.execute:
                stream(way.kubectl)
    ranges = NetnsRanges(slot_of(way))
    begun = _fields(file, "tcp.flags.syn == 1 && tcp.flags.ack == 0", "ip.dst", "tcp.dstport")
    into = {int(port) for address, port in begun if not address.startswith(ranges.control_plane)}
    out = {int(port) for address, port in begun if address.startswith(ranges.control_plane)}
    assert into <= INTO_NODES[way.egress] and out <= OUT_OF_NODES[way.egress]
    talked = {int(port) for pair in _fields(file, "tcp.len > 0", "tcp.srcport", "tcp.dstport") for port in pair}
    carriers = {22} if "ssh" in way.egress else {8091}
    assert carriers <= talked, "the streams did pass here"
    assert talked & {10250, 8080} == set()
    for needle in (egress.SECRET.encode(), b"/deep/path", b"HTTP/1.1", b"GET /"):
        assert needle not in file.read_bytes()


def test_the_capture_would_have_seen_it(way: Way, tmp_path: Path) -> None:
    """The negative twin: the same bytes in clear on the same wire are found."""
    control, untrusted, nodes = topology.namespaces(slot_of(way))
    ranges = NetnsRanges(slot_of(way))
    server = ("import socket; s = socket.create_server(('0.0.0.0', 9999)); print(flush=True); c = s.accept()[0]; "
              "print(c.recv(99).decode())")  # fmt: skip
    client = f"import socket; socket.create_connection(({ranges.control_plane!r}, 9999), 3).sendall(b'{egress.SECRET}')"
    file = tmp_path / "clear.pcap"
    with captured(untrusted, file), subprocess.Popen(
        ["ip", "netns", "exec", control, "python3", "-c", server], stdout=subprocess.PIPE, text=True
    ) as listening:
        assert listening.stdout is not None
        listening.stdout.readline()
        subprocess.run(["ip", "netns", "exec", nodes, "python3", "-c", client], check=True)
        assert egress.SECRET in listening.stdout.read()
    assert egress.SECRET.encode() in file.read_bytes()


def _fields(file: Path, expression: str, *names: str) -> list[list[str]]:
    flags = [flag for name in names for flag in ("-e", name)]
    done = subprocess.run(["tshark", "-r", str(file), "-Y", expression, "-T", "fields", *flags], capture_output=True,
                          text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_a_cluster_without_root_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(topology.os, "geteuid", lambda: 1000)
    with pytest.raises(MiniplaneError, match="needs root; --topology local does not"):
        up(StateDir.of(tmp_path), {"topology": Topology.NETNS}, lambda line: None)
    monkeypatch.undo()


