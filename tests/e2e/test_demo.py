"""The lab's scenes as tests: what the interceptor counted is what each scene claims.

Real clusters, a real kubectl, a real interceptor process. Nothing of a scene is left behind.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from miniplane.demo import facts
from miniplane.demo.scenes import SCENES

JSON = dict[str, Any]

HAS_KUBECTL = shutil.which("kubectl") is not None
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not HAS_KUBECTL, reason="the lab drives a real kubectl")]

#: What no attacker may get once it is refused.
NOTHING = {"requests": 0, "bytesOfPodData": 0, "bytesOfClientData": 0, "clientCredentials": 0, "commandsTyped": 0,
           "answersForged": 0, "secretsSeenPassing": 0}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Not pytest's folder: a socket's path has to be shorter than that.
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []
    assert [line for line in _command_lines() if str(folder) in line] == []
    folder.rmdir()


def _command_lines() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def acts(name: str) -> list[JSON]:
    played: Any = facts(SCENES[name])["acts"]
    return list(played)


def had(act: JSON, names: dict[str, Any]) -> JSON:
    return {name: act["facts"][name] for name in names}


def test_kubelet_ca_unset_everything_is_the_attackers_and_set_nothing_is() -> None:
    unverified, verified = acts("kubelet-ca")
    counted = unverified["facts"]
    # The client saw nothing: four commands that worked.
    assert [step["exitCode"] for step in unverified["steps"]] == [0, 0, 0, 0]
    assert counted["handshakesRefused"] == 0
    assert counted["clientCredentials"] == counted["connections"] == 4
    assert (counted["bytesOfPodData"] > 100, counted["bytesOfClientData"] > 20) == (True, True)
    # What it typed ran in the victim's shell, and left no trace in what the victim saw.
    assert (counted["commandsTyped"], counted["attackerRanInPod"]) == (1, True)
    assert unverified["steps"][1]["output"] == "the password is hunter2"

    assert had(verified, NOTHING) == NOTHING
    assert verified["facts"]["connections"] == verified["facts"]["handshakesRefused"] >= 4
    assert verified["facts"]["attackerRanInPod"] is False
    for step in verified["steps"]:
        assert step["exitCode"] == 1
        assert "tls: failed to verify certificate: x509: certificate signed by unknown authority" in step["output"]


@pytest.mark.parametrize("name", ["proxy-http", "proxy-https"])
def test_what_the_proxy_fetches_is_read_and_changed_with_and_without_https(name: str) -> None:
    proxied, forwarded = acts(name)
    assert proxied["steps"][0]["output"] == "card 4111-0042, balance 99.99"
    assert (proxied["facts"]["answersForged"], proxied["facts"]["bytesOfPodData"]) == (1, 30)
    # "nor provide client credentials"
    assert proxied["facts"]["clientCredentials"] == 0
    assert forwarded["steps"][0]["output"] == "card 4111-0042, balance 17.20"
    assert had(forwarded, NOTHING) == NOTHING


@pytest.mark.parametrize(("name", "reason"), [("konnectivity", "No agent available"), ("ssh", "host key mismatch")])
def test_a_tunnel_shows_nothing_of_what_is_plain_inside_and_refuses_a_false_end(name: str, reason: str) -> None:
    listening, between = acts(name)
    assert [step["exitCode"] for step in listening["steps"]] == [0, 0]
    assert listening["facts"]["bytesPassed"] > 500
    assert had(listening, NOTHING) == had(between, NOTHING) == NOTHING
    assert [step["exitCode"] for step in between["steps"]] == [1, 1]
    assert all(reason in step["output"] for step in between["steps"])


def test_an_anonymous_kubelet_answers_anybody_and_one_that_authenticates_nobody() -> None:
    anonymous, authenticated = acts("anonymous-kubelet")
    assert [step["exitCode"] for step in anonymous["steps"]] == [0, 0]
    assert anonymous["facts"]["bytesOfPodData"] > 1000
    assert [step["output"] for step in authenticated["steps"]] == ["401 Unauthorized"] * 2
    assert had(authenticated, NOTHING) == NOTHING


def test_nobody_who_calls_the_api_server_is_taken_in() -> None:
    (act,) = acts("node-to-api")
    assert all(step["exitCode"] != 0 for step in act["steps"])
    assert act["facts"]["handshakesRefused"] == act["facts"]["connections"] >= 3
    assert had(act, NOTHING) == NOTHING


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_ended_early_leaves_nothing(number: signal.Signals) -> None:
    """The fixture looks whether a process or a file is left."""
    environment = dict(os.environ) | {"TMPDIR": str(tempfile.gettempdir()), "NO_COLOR": "1"}
    argv = [sys.executable, "-m", "miniplane", "demo", "kubelet-ca"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "what you see" in line:
                process.send_signal(number)
                break
        process.communicate(timeout=60)
    assert process.returncode in (130, 143)
