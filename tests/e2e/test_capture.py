"""`miniplane capture`: conversations out of packets, and what is readable in them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from miniplane.capture import conversations, lines
from miniplane.cli import main
from miniplane.terminal import Paint
from miniplane.testing import MakeCluster

KUBECTL = shutil.which("kubectl")
CAN = shutil.which("tshark") is not None and os.geteuid() == 0 and KUBECTL is not None


def frame(stream: str, source: str, target: str, **facts: str) -> list[str]:
    known = {"length": "0", "syn": "0", "ack": "1", "protocol": "TCP", "hello": "", "supported": "", "version": ""}
    known |= facts
    return [stream, *source.split(":"), *target.split(":"), *known.values()]


def test_a_conversation_is_told_by_who_began_it_and_by_its_server_hello() -> None:
    found = conversations([
        frame("0", "10.0.0.1:50000", "10.0.0.2:10250", syn="1", ack="0"),
        frame("0", "10.0.0.2:10250", "10.0.0.1:50000", syn="1"),
        frame("0", "10.0.0.2:10250", "10.0.0.1:50000", length="90", protocol="TLSv1.3", hello="2", supported="0x0304"),
        frame("1", "10.0.0.9:8080", "10.0.0.1:50001", length="5", protocol="HTTP"),  # seen from its middle
        frame("2", "10.0.0.1:50002", "10.0.0.2:22", syn="1", ack="0", protocol="SSHv2"),
    ])  # fmt: skip
    assert [(one.client, one.server, one.protection, one.bytes) for one in found.values()] == [
        ("10.0.0.1:50000", "10.0.0.2:10250", "TLS 1.3", 90),
        ("10.0.0.1:50001", "10.0.0.9:8080", "plain", 5),
        ("10.0.0.1:50002", "10.0.0.2:22", "SSH", 0),
    ]
    shown = lines(found, {"1"}, "x", Paint(False))
    assert [line.split("   ")[0] for line in shown[1:4]] == ["10.0.0.1"] * 3
    assert "plain (HTTP)" in shown[1]
    assert "✗ readable" in shown[1]
    assert shown[-1] == "'x': readable in 1 connections"


@pytest.mark.e2e
@pytest.mark.skipif(not CAN, reason="needs root, tshark and kubectl")
def test_logs_are_readable_nowhere_and_the_proxy_to_everybody(
    make_cluster: MakeCluster, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cluster = make_cluster()
    kubectl = [str(KUBECTL), "--kubeconfig", str(cluster.kubeconfig), "--cache-dir", str(tmp_path)]
    for words in (("run", "web", "--image=miniplane.local/echo", "--port=8080"),
                  ("wait", "--for=condition=Ready", "pod/web")):  # fmt: skip
        subprocess.run([*kubectl, *words], check=True, capture_output=True, timeout=60)

    def capture(look_for: str, *words: str) -> tuple[int, str]:
        where = ("--state-dir", str(cluster.state.path), "--look-for", look_for)
        code = main(["capture", *where, "--", *kubectl, *words])
        return code, capfd.readouterr().out

    code, out = capture("canary", "exec", "web", "--", "echo", "canary")
    assert (code, "TLS" in out, "'canary': readable nowhere" in out) == (0, True, True)
    code, out = capture("canary", "get", "--raw", "/api/v1/namespaces/default/pods/web:8080/proxy/canary")
    assert (code, "plain (HTTP" in out, "✗ readable" in out) == (5, True, True)
