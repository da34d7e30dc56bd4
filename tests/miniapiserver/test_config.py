"""Flags: Kubernetes' names, and one clear line for what cannot be used."""

from pathlib import Path
from typing import Any

import pytest

from miniapiserver.config import Config, ConfigError, node_ports, parse


@pytest.fixture
def usable(tmp_path: Path) -> list[str]:
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).touch()
    return [
        f"--tls-cert-file={tmp_path}/tls.crt",
        f"--tls-private-key-file={tmp_path}/tls.key",
        f"--storage-path={tmp_path}/s.db",
    ]


def test_flags_become_one_frozen_value(usable: list[str]) -> None:
    config = parse(
        [
            *usable,
            "--authorization-mode=Node,RBAC",
            "--secure-port",
            "0",
            "--request-timeout=1m",
            "--anonymous-auth=false",
            "--enable-bootstrap-token-auth",
            "--proxy-allow-cidrs=127.0.0.0/8",
        ]
    )
    assert (config.authorization_mode, config.secure_port, config.request_timeout) == (("Node", "RBAC"), 0, 60.0)
    assert (config.anonymous_auth, config.enable_bootstrap_token_auth) == (False, True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--authorization-mode=Everybody"], "--authorization-mode: 'Everybody' is not one of"),
        (["--kubelet-client-certificate=/x"], "go together"),
        (["--etcd-servers=http://127.0.0.1:1"], "exactly one of"),
        (["--service-cluster-ip-range=10.0.0.1/8"], "10.0.0.1/8"),
        (["--proxy-allow-cidrs=everything"], "everything"),
        (["--client-ca-file=/nonexistent"], "--client-ca-file: no such file: /nonexistent"),
        (["--insecure-port=99999"], "--insecure-port: 99999"),
    ],
)
def test_what_cannot_be_used_is_one_line(usable: list[str], flags: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parse([*usable, *flags])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_certificate_key_and_storage_are_required(usable: list[str], missing: int) -> None:
    with pytest.raises(ConfigError):
        parse(usable[:missing] + usable[missing + 1 :])


@pytest.mark.parametrize("text", ["", "30000", "32767-30000", "0-10", "30000-70000", "a-b", "-1-5"])
def test_a_node_port_range_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--service-node-port-range"):
        node_ports(text)


def test_a_node_port_range() -> None:
    assert node_ports("30000-30001") == range(30000, 30002)


def test_the_value_is_frozen(usable: list[str]) -> None:
    config: Any = parse(usable)
    assert isinstance(config, Config)
    with pytest.raises(AttributeError):
        config.secure_port = 1
