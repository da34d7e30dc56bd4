"""The ledger against what a packet capture sees: TLS or not, which version, and whether anything is readable.

Needs tshark and the right to capture on the loopback device; skipped without.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from miniplane import ledgers
from miniplane.demo.lab import until
from miniplane.testing import MakeCluster

TSHARK, KUBECTL = shutil.which("tshark"), shutil.which("kubectl")
#: ServerHello's `supported_versions` → what OpenSSL calls it.
VERSIONS = {"0x0304": "TLSv1.3", "0x0303": "TLSv1.2"}
CANARY = "canary-4111-0042"
REQUEST = f'http.request.uri contains "{CANARY}"'


def _may_capture() -> bool:
    if TSHARK is None:
        return False
    tried = subprocess.run([TSHARK, "-i", "lo", "-a", "duration:0"], capture_output=True, timeout=30)
    return tried.returncode == 0


CANNOT = KUBECTL is None or not _may_capture()
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(CANNOT, reason="needs tshark and kubectl")]


@contextmanager
def captured(file: Path, networks: list[str]) -> Iterator[None]:
    """Packets of these networks on the loopback device, into a file."""
    wanted = " or ".join(f"net {network}" for network in networks)
    argv = [str(TSHARK), "-q", "-i", "lo", "-f", f"tcp and ({wanted})", "-w", str(file)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Capture started" in line or "Capturing on" in line:
                break
        for line in process.stderr:
            if "Capture started" in line or "File:" in line:
                break
        try:
            yield
        finally:
            process.terminate()
            process.stderr.read()


def seen(file: Path, wanted: str, *fields: str) -> set[tuple[str, ...]]:
    argv = [str(TSHARK), "-r", str(file), "-d", "tcp.port==10250,tls", "-Y", wanted, "-T", "fields"]
    for field in fields:
        argv += ["-e", field]
    # A file that is being written may end in half a packet, which is an error to tshark and none to us.
    answer = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return {tuple(line.split("\t")) for line in answer.stdout.splitlines()}


@pytest.mark.parametrize("verified", [True, False])
def test_what_the_ledger_says_is_what_the_packets_show(
    verified: bool, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(kubelet_ca=verified)
    ranges = cluster.cluster.record.ranges

    def kubectl(*words: str) -> str:
        argv = [str(KUBECTL), "--kubeconfig", str(cluster.kubeconfig), "--cache-dir", str(tmp_path / "cache"), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout

    kubectl("run", "web", "--image=miniplane.local/echo", "--port=8080")
    kubectl("wait", "--for=condition=Ready", "pod/web")
    file = tmp_path / "lo.pcapng"
    with captured(file, [ranges.nodes, ranges.pods]):
        kubectl("exec", "web", "--", "echo", CANARY)
        kubectl("get", "--raw", f"/api/v1/namespaces/default/pods/web:8080/proxy/{CANARY}")
        # The kernel hands packets over in blocks.
        assert until(10.0, lambda: seen(file, REQUEST, "ip.dst"))

    entries = [entry for entry in ledgers.read(cluster.state) if entry["purpose"] in ("pods/exec", "pods/proxy")]
    told = {(entry["to"], entry["tls"]["version"] if entry["tls"] else "plain") for entry in entries}
    version = "tls.handshake.extensions.supported_version"
    hellos = seen(file, "tls.handshake.type == 2", "ip.src", "tcp.srcport", version)
    requests = seen(file, REQUEST, "ip.dst", "tcp.dstport")
    shown = {(f"{host}:{port}", VERSIONS[number]) for host, port, number in hellos}
    shown |= {(f"{host}:{port}", "plain") for host, port in requests}
    assert shown == told
    assert {entry["protection"] for entry in entries} == {"verified" if verified else "unverified", "plain"}
    # Readable: what went to the pod in plain, nothing of what went to the kubelet, verified or not.
    readable = f'frame contains "{CANARY}"'
    ports = seen(file, readable, "tcp.srcport") | seen(file, readable, "tcp.dstport")
    assert ("8080",) in ports
    assert ("10250",) not in ports
