"""Tokens from the command line, and what a joining node insists on before it believes anybody."""

import argparse
import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certs import kubeconfig
from miniplane import join, tokens
from miniplane.errors import OptionsError
from miniplane.join import Discovered, Join

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PIN = "sha256:" + "ab" * 32


def options(**changes: str) -> argparse.Namespace:
    given = {"token": "abcdef.0123456789abcdef", "ttl": "24h", "usages": "signing,authentication",
             "groups": tokens.DEFAULT_GROUP, "description": ""}
    return argparse.Namespace(**(given | changes))


def data(**changes: str) -> dict[str, str]:
    made = tokens.secret(tokens.wanted(options(**changes)), NOW)
    assert (made["type"], made["metadata"]["name"]) == ("bootstrap.kubernetes.io/token", "bootstrap-token-abcdef")
    return {key: base64.b64decode(text).decode() for key, text in made["data"].items()}


def test_a_token_is_a_secret_with_an_end() -> None:
    assert data(description="for the lab") == {
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true",
        "usage-bootstrap-authentication": "true", "auth-extra-groups": tokens.DEFAULT_GROUP,
        "expiration": "2026-01-02T00:00:00Z", "description": "for the lab"}


def test_a_token_without_an_end_must_be_asked_for() -> None:
    assert "expiration" not in data(ttl="0")


def test_a_token_that_only_signs_is_in_no_group() -> None:
    assert data(usages="signing").keys() == {"token-id", "token-secret", "usage-bootstrap-signing", "expiration"}


@pytest.mark.parametrize("changes", [
    {"token": "short"}, {"ttl": "soon"}, {"ttl": "1d"}, {"ttl": "-1h"}, {"usages": "signing,reading"},
    {"groups": "system:masters"}, {"groups": "system:bootstrappers:UPPER"}])
def test_what_the_server_would_not_accept_is_refused_before(changes: dict[str, str]) -> None:
    with pytest.raises(OptionsError):
        tokens.wanted(options(**changes))


@pytest.mark.parametrize(("text", "seconds"), [("24h", 86400), ("1h30m", 5400), ("90s", 90), ("0", 0)])
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert tokens.duration(text) == seconds


def test_new_tokens_differ_and_have_the_form() -> None:
    made = {tokens.new_token() for _ in range(50)}
    assert len(made) == 50
    assert all(tokens.wanted(options(token=token)).token == token for token in made)


def test_the_list_shows_no_secret() -> None:
    expired, endless = data() | {"expiration": "2020-01-01T00:00:00Z"}, data(ttl="0") | {"token-id": "zzzzzz"}
    table = tokens.rows([data(), endless, expired], NOW)
    assert [row[:3] for row in table[1:]] == [
        ("abcdef", "24h", "2026-01-02T00:00:00Z"), ("abcdef", "<expired>", "2020-01-01T00:00:00Z"),
        ("zzzzzz", "<forever>", "<never>")]
    assert "0123456789abcdef" not in str(table)


def test_joining_without_a_pin_must_be_said_out_loud() -> None:
    with pytest.raises(OptionsError, match="unsafe-skip-ca-verification"):
        join.checked_pins([], unsafe=False)
    assert join.checked_pins([], unsafe=True) == ()
    assert join.checked_pins([PIN.upper().replace("SHA", "sha")], unsafe=False) == (PIN,)
    for wrong in ("ab" * 32, "sha256:abcd", "sha1:" + "ab" * 20):
        with pytest.raises(OptionsError):
            join.checked_pins([wrong], unsafe=False)


@pytest.mark.parametrize(("text", "found"), [("api:6443", ("api", 6443)), ("https://1.2.3.4:443/", ("1.2.3.4", 443)),
                                             ("[::1]:6443", ("::1", 6443))])
def test_the_server_is_a_host_and_a_port(text: str, found: tuple[str, int]) -> None:
    assert join.endpoint(text) == found
    for wrong in ("api", "api:", ":6443", "http://api"):
        with pytest.raises(OptionsError):
            join.endpoint(wrong)


def test_a_node_starts_with_the_ca_a_token_and_nothing_else(tmp_path: Path) -> None:
    asked = Join("api", 6443, "abcdef.0123456789abcdef", (PIN,), "n1", "10.0.0.7", tmp_path / "n1", "10.1.0.0/24")
    argv = join.prepare(asked, Discovered("https://api:6443", b"CA"))
    folder = tmp_path / "n1"
    bootstrap = kubeconfig.load(folder / "bootstrap-kubelet.conf").credentials()
    assert (bootstrap.server, bootstrap.ca, bootstrap.token) == ("https://api:6443", b"CA", asked.token)
    assert (bootstrap.client_cert, bootstrap.client_key) == (None, None)
    assert not (folder / "kubelet.conf").exists()
    assert (folder / "bootstrap-kubelet.conf").stat().st_mode & 0o077 == 0
    settings = json.loads((folder / "config.yaml").read_text())
    assert settings["rotateCertificates"] and settings["serverTLSBootstrap"]
    assert settings["authentication"]["anonymous"] == {"enabled": False}
    assert settings["authorization"] == {"mode": "Webhook"}
    assert {"--hostname-override=n1", "--node-ip=10.0.0.7", "--pod-cidr=10.1.0.0/24"} <= set(argv)
