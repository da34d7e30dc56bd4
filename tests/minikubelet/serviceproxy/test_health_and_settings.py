"""The proxy's health, its flags, and what pods are told where a virtual IP cannot be served."""

import argparse
import errno
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from minikubelet.kubeletconfiguration import InvalidConfiguration
from minikubelet.serviceproxy import reachable
from minikubelet.serviceproxy.health import Health, HealthDoor
from minikubelet.serviceproxy.reachable import APIServerAddress, refusal
from minikubelet.serviceproxy.settings import Mode, add_flags, settings
from minikubelet.serviceproxy.userspace import Figures
from wire.http import HTTPServer
from wire.kubeconfig import Access

READY: dict[str, Any] = {"metadata": {"name": "node-1"}}
TAINTED = READY | {"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}
GOING: dict[str, Any] = {"metadata": {"name": "node-1", "deletionTimestamp": "2026-01-01T00:00:00Z"}}


def test_a_proxy_with_nothing_to_do_is_healthy_and_as_fresh_as_the_question() -> None:
    assert Health().answer(1.0, READY) == (200, {
        "lastUpdated": "1970-01-01T00:00:01Z", "currentTime": "1970-01-01T00:00:01Z", "nodeEligible": True,
        "healthy": True, "status": {"IPv4": {"lastUpdated": "1970-01-01T00:00:01Z", "healthy": True}}})


def test_a_change_that_waits_too_long_is_ill_until_it_is_applied() -> None:
    health = Health()
    health.applied(5.0, 0.1)
    health.queue(10.0)
    health.queue(69.0)  # the oldest counts
    assert health.answer(69.0, READY)[0] == 200
    status, body = health.answer(70.0, READY)
    assert (status, body["healthy"], body["lastUpdated"]) == (503, False, "1970-01-01T00:00:05Z")
    health.applied(71.0, 0.1)
    assert health.answer(71.0, READY)[0] == 200


@pytest.mark.parametrize("node", [TAINTED, GOING])
def test_a_node_that_is_about_to_go_is_no_target_but_lives(node: dict[str, Any]) -> None:
    status, body = Health().answer(1.0, node)
    assert (status, body["nodeEligible"], body["status"]["IPv4"]["healthy"]) == (503, False, True)
    assert Health().answer(1.0, None)[0] == 200


async def test_the_doors_answer_as_kube_proxys() -> None:
    door = HealthDoor(Health(), "userspace", lambda: TAINTED, lambda: Figures(accepted=3), lambda: 2)
    async with HTTPServer(door.healthz) as healthz, HTTPServer(door.metrics) as metrics, ClientSession() as session:
        health_url = f"http://127.0.0.1:{await healthz.listen()}"
        metrics_url = f"http://127.0.0.1:{await metrics.listen()}"
        answers = {}
        for url in (f"{health_url}/healthz", f"{health_url}/livez", f"{health_url}/other", f"{metrics_url}/healthz",
                    f"{metrics_url}/proxyMode", f"{metrics_url}/metrics"):
            async with session.get(url) as answer:
                answers[url.rpartition(":")[2].partition("/")[2], url.startswith(health_url)] = (
                    answer.status, answer.headers.get("X-Content-Type-Options"), await answer.text())
    assert answers["healthz", True][:2] == (503, "nosniff")
    assert answers["livez", True][:2] == (200, "nosniff")
    assert '"nodeEligible"' not in answers["livez", True][2]
    assert answers["other", True][0] == 404
    assert answers["healthz", False] == (200, None, "ok")
    assert answers["proxyMode", False][2] == "userspace"
    assert "\nminiplane_serviceproxy_connections_total 3\n" in answers["metrics", False][2]


def parsed(tmp_path: Path, node_ip: str, *argv: str) -> Any:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return settings(parser.parse_args(argv), tmp_path, node_ip)


def test_by_default_the_health_ports_are_on_loopback_whatever_the_nodes_address(tmp_path: Path) -> None:
    found = parsed(tmp_path, "192.0.2.1")
    assert (found.mode, found.healthz, found.metrics) == (
        Mode.USERSPACE, ("127.0.0.1", 10256), ("127.0.0.1", 10249))
    assert parsed(tmp_path, "127.0.10.2").healthz == ("127.0.10.2", 10256)


def test_health_ports_go_where_they_are_told_or_are_off(tmp_path: Path) -> None:
    found = parsed(tmp_path, "192.0.2.1", "--proxy-healthz-bind-address", "0.0.0.0:1", "--proxy-metrics-bind-address",
                   "127.0.0.1:0")
    assert (found.healthz, found.metrics) == (("0.0.0.0", 1), None)
    assert parsed(tmp_path, "::1", "--proxy-healthz-bind-address", "[::1]:7").healthz == ("::1", 7)


@pytest.mark.parametrize("text", ["nonsense", "host:10256", "127.0.0.1:x", "127.0.0.1:70000"])
def test_a_bad_address_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidConfiguration, match="proxy-healthz-bind-address"):
        parsed(tmp_path, "192.0.2.1", "--proxy-healthz-bind-address", text)


def test_the_proxys_own_identity_is_used_where_there_is_one(tmp_path: Path) -> None:
    assert parsed(tmp_path, "192.0.2.1").kubeconfig is None
    (tmp_path / "kube-proxy.conf").touch()
    assert parsed(tmp_path, "192.0.2.1").kubeconfig == tmp_path / "kube-proxy.conf"


ACCESS = Access("127.0.0.1", 6443, "https", "127.0.0.1", "", None, None, True, None, None, None, None, ())
VIP = {"KUBERNETES_SERVICE_HOST": "127.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "WEB_SERVICE_HOST": "127.96.0.9"}
API = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "6443",
       "KUBERNETES_SERVICE_PORT_HTTPS": "6443"}


def test_where_the_virtual_ip_is_refused_pods_get_the_api_servers_address_and_it_is_said_once(
        monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(reachable, "refusal", lambda host, port: PermissionError(errno.EACCES, "Permission denied"))
    address = APIServerAddress(Mode.USERSPACE, lambda: ACCESS, said.append)
    assert [address.environment(VIP), address.environment(VIP)] == [API, API]
    assert said == ["127.96.0.1:443 cannot be listened on (Permission denied): pods reach the API server at "
                    "127.0.0.1:6443"]
    assert address.environment({}) == {}


def test_where_the_virtual_ip_works_or_the_kernel_redirects_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachable, "refusal", lambda host, port: None)
    assert APIServerAddress(Mode.USERSPACE, lambda: ACCESS).environment(VIP) == {}
    monkeypatch.setattr(reachable, "refusal", lambda host, port: PermissionError(errno.EACCES, "Permission denied"))
    assert APIServerAddress(Mode.NFTABLES, lambda: ACCESS).environment(VIP) == {}


def test_an_address_that_is_not_this_machines_is_a_refusal_and_one_in_use_is_none() -> None:
    error = refusal("192.0.2.77", 8443)
    assert error is not None
    assert error.errno == errno.EADDRNOTAVAIL
    with socket.create_server(("127.96.250.9", 0)) as listener:
        assert refusal("127.96.250.9", listener.getsockname()[1]) is None
