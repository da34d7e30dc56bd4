"""Flags as upstream's manifests write them, and combinations that must not start."""

from datetime import UTC, datetime

import pytest

from konnectivity.agent import config as agent
from konnectivity.agent.sync import Backoff
from konnectivity.flags import BadConfiguration, parse_duration
from konnectivity.leases import count_valid, is_valid
from konnectivity.server import config as server

UDS = ["--uds-name=/run/k.sock", "--server-port=0"]
AGENTS = ["--cluster-cert=c", "--cluster-key=k", "--cluster-ca-cert=ca"]
FRONT = ["--server-cert=c", "--server-key=k", "--server-ca-cert=ca"]


def test_a_manifest_of_upstream_is_understood() -> None:
    config = server.load(
        [*UDS, *AGENTS, "--logtostderr=true", "--mode=http-connect", "--keepalive-time=1h30m", "--enable-profiling",
         "--proxy-strategies=destHost,default", "--delete-existing-uds-file=false", "--v", "2", "--server-count", "3"]
    )  # fmt: skip
    assert (config.mode, config.keepalive_time, config.server_count) == ("http-connect", 5400.0, 3)
    assert config.proxy_strategies == ("destHost", "default")
    assert config.delete_existing_uds_file is False
    assert config.backend_dial_timeout == 10.0, "on by default, unlike upstream"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([*UDS, *AGENTS, "--mode=socks"], "mode"),
        (["--uds-name=/x", *AGENTS], "server-port must be 0"),
        ([*UDS, *AGENTS, *FRONT], "do not go with --uds-name"),
        (["--server-cert=c", "--server-key=k", *AGENTS], "TCP front needs"),
        ([*UDS], "cluster-cert"),
        ([*UDS, *AGENTS[:2]], "agents must be authenticated"),
        ([*UDS, *AGENTS, "--agent-namespace=n"], "token authentication needs"),
        (
            [*UDS, *AGENTS, "--agent-namespace=n", "--agent-service-account=s", "--authentication-audience=a"],
            "does not go with token",
        ),
        ([*UDS, *AGENTS, "--tls-min-version=VersionTLS10"], "tls-min-version"),
        ([*UDS, *AGENTS, "--enable-lease-controller"], "needs --kubeconfig"),
    ],
)
def test_servers_that_would_not_be_safe_do_not_start(arguments: list[str], why: str) -> None:
    with pytest.raises(BadConfiguration, match=why):
        server.load(arguments)


def test_unknown_flags_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        server.load(["--no-such-flag"])
    assert "no-such-flag" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--agent-identifiers=zone=x"], "unknown"),
        (["--agent-cert=c"], "go together"),
        (["--count-server-leases"], "needs --kubeconfig"),
        (["--ca-cert=/no/such/file"], "no such file"),
        (["--server-count-source=both"], "server-count-source"),
    ],
)
def test_agents_that_could_not_work_do_not_start(arguments: list[str], why: str) -> None:
    with pytest.raises(BadConfiguration, match=why):
        agent.load(arguments)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("1h", 3600), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400)])
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_backoff_grows_and_stays_quick_for_a_server_that_restarts() -> None:
    backoff = Backoff(1.0, 10.0)
    assert [round(backoff.next(False, 0.0), 2) for _ in range(8)] == [1.0, 1.5, 2.25, 3.38, 5.06, 7.59, 10.0, 10.0]
    assert backoff.next(True, 1.0) < 2.0
    backoff.reset()
    assert backoff.next(False, 0.0) == 1.0


def lease(renewed: str, seconds: int = 30) -> dict[str, object]:
    return {"spec": {"renewTime": renewed, "leaseDurationSeconds": seconds}}


def test_leases_count_while_they_are_valid_and_never_below_one() -> None:
    now = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)
    fresh, stale = lease("2026-01-01T12:00:10.000000Z"), lease("2026-01-01T11:59:59.000000Z")
    assert (is_valid(fresh, now), is_valid(stale, now), is_valid({}, now)) == (True, False, False)
    assert count_valid([fresh, fresh, stale], now) == 2
    assert count_valid([stale], now) == 1
