"""From a request to the URL behind it: containers, options, candidates. All pure."""

from typing import Any

import pytest

from miniapiserver.errors import BadRequest, Invalid, ServiceUnavailable
from miniapiserver.location import (
    Candidate,
    command_options,
    command_path,
    container_of,
    host_of,
    log_options,
    pod_target,
    port_forward_path,
    proxy_id,
    service_candidates,
    service_port_name,
)


def pod(*names: str, init: tuple[str, ...] = (), ephemeral: tuple[str, ...] = ()) -> dict[str, Any]:
    spec = {
        "containers": [{"name": name} for name in names],
        "initContainers": [{"name": name} for name in init],
        "ephemeralContainers": [{"name": name} for name in ephemeral],
    }
    return {"metadata": {"name": "p"}, "spec": spec}


def test_the_only_regular_container_needs_no_name() -> None:
    assert container_of(pod("a", init=("i",), ephemeral=("e",)), "") == "a"
    assert container_of(pod("a", init=("i",), ephemeral=("e",)), "e") == "e"


@pytest.mark.parametrize(
    ("found", "asked", "message"),
    [
        (pod(), "", "a container name must be specified for pod p"),
        (pod("a", "b", init=("i",)), "", "a container name must be specified for pod p, choose one of: [i a b]"),
        (pod("a"), "z", "container z is not valid for pod p"),
    ],
)
def test_container_errors_are_upstreams(found: dict[str, Any], asked: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        container_of(found, asked)
    assert caught.value.message == message


def test_a_pod_without_a_host_can_not_be_reached() -> None:
    with pytest.raises(BadRequest, match="pod p does not have a host assigned"):
        host_of(pod("a"))


def test_query_booleans_follow_kubernetes() -> None:
    query = [("stdin", ""), ("stdout", "TRUE"), ("stderr", "False"), ("tty", "0"), ("command", "a b"), ("command", "c")]
    options = command_options([*query, ("stdin", "false")])
    assert (options.stdin, options.stdout, options.stderr, options.tty) == (True, True, False, False)
    assert options.query() == "command=a+b&command=c&input=1&output=1"
    assert command_path("exec", "ns", "p", "c/../x") == "/exec/ns/p/c%2F..%2Fx"


def test_both_sinces_are_forbidden_and_only_set_options_are_asked() -> None:
    with pytest.raises(Invalid, match="at most one of `sinceTime` or `sinceSeconds` may be specified"):
        log_options("p", [("sinceSeconds", "5"), ("sinceTime", "2024-01-01T00:00:00Z")])
    with pytest.raises(Invalid, match="stream: Forbidden: may not be specified"):
        log_options("p", [("stream", "All")])
    with pytest.raises(BadRequest, match="cannot parse"):
        log_options("p", [("sinceTime", "yesterday")])
    with pytest.raises(BadRequest, match="value out of range"):
        log_options("p", [("limitBytes", "9" * 30)])
    assert log_options("p", [("sinceTime", "null"), ("tailLines", "0"), ("follow", "1")]).query() == (
        "follow=true&tailLines=0"
    )
    zoned = log_options("p", [("sinceTime", "2024-01-01T00:00:00.123456+02:00")])
    assert zoned.since_time == "2024-01-01T00:00:00+02:00"


def test_ports_of_old_clients_travel_in_the_query() -> None:
    assert port_forward_path("ns", "p", []) == "/portForward/ns/p"
    assert port_forward_path("ns", "p", [("ports", "80"), ("ports", "443,8080")]) == (
        "/portForward/ns/p?port=80%2C443%2C8080"
    )
    with pytest.raises(BadRequest):
        port_forward_path("ns", "p", [("ports", "0")])


def test_service_ports_are_found_by_number_or_name() -> None:
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80}, {"port": 81}]}}
    assert [service_port_name(service, port) for port in ("80", "81", "web", "")] == ["web", "", "web", ""]
    with pytest.raises(ServiceUnavailable, match='no service port 9 found for service "s"'):
        service_port_name(service, "9")


def test_only_ready_addresses_of_this_namespace_are_candidates() -> None:
    def address(ip: str, namespace: str | None = "ns") -> dict[str, Any]:
        return {"ip": ip, **({"targetRef": {"namespace": namespace, "name": f"pod-{ip}"}} if namespace else {})}

    subset = {
        "addresses": [address("1"), address("2", "other"), address("3", None), address("4")],
        "notReadyAddresses": [address("5")],
        "ports": [{"name": "web", "port": 8080}],
    }
    endpoints = {"metadata": {"name": "s"}, "subsets": [subset]}
    found = service_candidates(endpoints, "ns", "web", start=lambda size: size - 1)
    assert found == [Candidate("4", 8080, "pod-4"), Candidate("1", 8080, "pod-1")]
    assert service_candidates(endpoints, "ns", "other") == []
    with pytest.raises(ServiceUnavailable, match='no endpoints available for service "s"'):
        service_candidates({"metadata": {"name": "s"}}, "ns", "web")


def test_a_pods_address_may_be_in_the_old_field_only() -> None:
    found = pod("a") | {"status": {"podIP": "10.0.0.1"}}
    assert pod_target(found, proxy_id("p:80", "pod"), lambda ip: ip == "10.0.0.1") == ("10.0.0.1", "80")
    with pytest.raises(BadRequest, match="address not allowed"):
        pod_target(pod("a"), proxy_id("p", "pod"), lambda ip: bool(ip))
