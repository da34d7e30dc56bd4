"""Flags and the KubeletConfiguration file."""

from pathlib import Path
from typing import Any

import pytest

from minikubelet.config import parse
from minikubelet.kubeletconfiguration import InvalidConfiguration, KubeletConfiguration, as_json, duration, load
from minikubelet.kubeletconfiguration import parse as parse_file

HEAD = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}


def flags(tmp_path: Path, *more: str) -> list[str]:
    return [f"--kubeconfig={tmp_path / 'k'}", f"--root-dir={tmp_path}", "--node-ip=127.0.0.9", *more]


def test_the_defaults_are_the_secure_ones() -> None:
    found = parse_file(HEAD)
    assert (found.authentication.anonymous_enabled, found.authentication.webhook_enabled) == (False, True)
    assert (found.authorization.mode, found.read_only_port, found.port) == ("Webhook", 0, 10250)


def test_every_section_is_read() -> None:
    found = parse_file(HEAD | {
        "authentication": {"x509": {"clientCAFile": "/ca"}, "webhook": {"enabled": False, "cacheTTL": "1m30s"},
                           "anonymous": {"enabled": True}},
        "authorization": {"mode": "AlwaysAllow", "webhook": {"cacheAuthorizedTTL": "1s"}},
        "containerLogMaxSize": "1Mi", "clusterDNS": ["10.0.0.10"], "syncFrequency": "0.5s",
        "crashLoopBackOff": {"maxContainerRestartPeriod": "20s"}, "cgroupDriver": "systemd"})
    assert found.authentication.client_ca_file == "/ca"
    assert found.authentication.webhook_cache_ttl == 90.0
    assert found.authorization.cache_authorized_ttl == 1.0
    assert (found.container_log_max_size, found.cluster_dns, found.sync_frequency) == (2**20, ("10.0.0.10",), 0.5)
    assert (found.max_container_restart_period, found.ignored) == (20.0, ("cgroupDriver",))


@pytest.mark.parametrize(("fields", "words"), [
    ({"nosuch": 1}, 'strict decoding error: unknown field "nosuch"'),
    ({"authentication": {"x509": {"nosuch": 1}}}, 'unknown field "authentication.x509.nosuch"'),
    ({"authorization": {"mode": "RBAC"}}, "authorization.mode: must be one of"),
    ({"port": "10250"}, "port: must be an integer"),
    ({"port": 70000}, "port: must be a port"),
    ({"syncFrequency": "fast"}, "syncFrequency: invalid duration"),
    ({"containerLogMaxSize": "big"}, "containerLogMaxSize: quantities must match"),
    ({"containerLogMaxFiles": 1}, "containerLogMaxFiles: must be greater than 1"),
    ({"apiVersion": "v1"}, "must be apiVersion"),
    ({"registerNode": "yes"}, "registerNode: must be true or false"),
])
def test_what_cannot_be_meant_is_refused_by_name(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words.replace("[", r"\[")):
        parse_file(HEAD | fields)


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nport: 1\nport: 2\n")
    with pytest.raises(InvalidConfiguration, match='key "port" already set in map'):
        load(file)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[", b"- a", b""])
def test_a_file_that_is_no_configuration_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(InvalidConfiguration) as caught:
        load(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nport: 1\nmaxPods: 7\n"
                    "authentication: {x509: {clientCAFile: /a}, anonymous: {enabled: true}}\n")
    config = parse(flags(tmp_path, f"--config={file}", "--port=2", "--client-ca-file=/b"))
    assert (config.kubelet.port, config.kubelet.max_pods) == (2, 7)
    assert config.kubelet.authentication.client_ca_file == "/b"
    assert config.kubelet.authentication.anonymous_enabled is True


def test_labels_and_the_node_name_are_read(tmp_path: Path) -> None:
    config = parse(flags(tmp_path, "--hostname-override=Node-1", "--node-labels=a=b,c="))
    assert (config.node_name, config.node_labels) == ("node-1", {"a": "b", "c": ""})


@pytest.mark.parametrize("more", [("--node-labels=a",), ("--pod-cidr=x",), ("--tls-cert-file=/x",), ("--node-ip=x",)])
def test_flags_that_cannot_be_meant_are_refused(tmp_path: Path, more: tuple[str, ...]) -> None:
    with pytest.raises(InvalidConfiguration):
        parse(flags(tmp_path, *more))


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("1m30s", 90), ("1.5h", 5400), ("100ms", 0.1), ("0", 0)])
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


def test_configz_can_be_read_back() -> None:
    assert parse_file(HEAD | as_json(KubeletConfiguration())) == KubeletConfiguration()
