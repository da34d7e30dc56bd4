"""Which ports are served and who answers for them."""

from typing import Any

import pytest
from serviceobjects import endpoint, service, slice_of

from minikubelet.serviceproxy.frontends import Entrance, frontends, unserved
from minikubelet.serviceproxy.serviceports import Locality, Policy, eligible, service_ports

HERE = Locality(frozenset({"node-1"}), "zone-a")


def chosen(endpoints: list[dict[str, object]], policy: Policy = Policy.CLUSTER, at: Locality = HERE) -> list[str]:
    [port] = service_ports([service()], [slice_of("web", endpoints)])
    return [found.address for found in eligible(port, policy, at)]


def test_a_port_is_joined_with_the_slices_port_of_its_name() -> None:
    found = service_ports(
        [service(ports=[{"name": "http", "port": 80}, {"name": "admin", "port": 81}])],
        [slice_of("web", [endpoint("127.244.1.2")], 8080, port_name="http"),
         slice_of("web", [endpoint("127.244.1.2")], 9090, port_name="admin", name="b")])
    assert [(str(port.name), port.port, [(end.address, end.port) for end in port.endpoints]) for port in found] == [
        ("default/web:admin", 81, [("127.244.1.2", 9090)]), ("default/web:http", 80, [("127.244.1.2", 8080)])]


@pytest.mark.parametrize("skipped", [
    service(ip="None"), service(type="ExternalName"), service(ip=""),
    service(labels={"service.kubernetes.io/service-proxy-name": "other"})])
def test_services_that_are_not_this_proxys_are_left_alone(skipped: dict[str, object]) -> None:
    assert service_ports([skipped], []) == []


@pytest.mark.parametrize("label", ["service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name"])
def test_slices_that_are_not_this_proxys_are_left_alone(label: str) -> None:
    [port] = service_ports([service()], [slice_of("web", [endpoint("127.244.1.2")], labels={label: ""})])
    assert port.endpoints == ()


def test_an_endpoint_in_two_slices_counts_once() -> None:
    [port] = service_ports([service()], [slice_of("web", [endpoint("127.244.1.2")]),
                                         slice_of("web", [endpoint("127.244.1.2")], name="b")])
    assert len(port.endpoints) == 1


def test_slices_of_another_namespace_do_not_answer() -> None:
    foreign = slice_of("web", [endpoint("127.244.1.2")])
    foreign["metadata"]["namespace"] = "other"
    assert service_ports([service()], [foreign])[0].endpoints == ()


def test_ready_endpoints_serve_and_unknown_readiness_means_ready() -> None:
    assert chosen([endpoint("127.244.1.2", ready=True), endpoint("127.244.1.3"), endpoint("127.244.1.4", ready=None),
                   endpoint("127.244.1.5", ready=False)]) == ["127.244.1.2", "127.244.1.3", "127.244.1.4"]


def test_endpoints_that_serve_while_they_end_answer_when_nobody_is_ready() -> None:
    ending = endpoint("127.244.1.3", ready=False, serving=True, terminating=True)
    ended = endpoint("127.244.1.4", ready=False, serving=False, terminating=True)
    unready = endpoint("127.244.1.5", ready=False, serving=True, terminating=False)
    assert chosen([endpoint("127.244.1.2", ready=True), ending, ended, unready]) == ["127.244.1.2"]
    assert chosen([ending, ended, unready]) == ["127.244.1.3"]
    assert chosen([ended, unready]) == []


def test_the_local_policy_leaves_only_the_nodes_own_endpoints() -> None:
    both = [endpoint("127.244.1.2", "node-1"), endpoint("127.244.2.2", "node-2")]
    assert chosen(both, Policy.LOCAL) == ["127.244.1.2"]
    assert chosen(both, Policy.CLUSTER) == ["127.244.1.2", "127.244.2.2"]
    assert chosen(both[1:], Policy.LOCAL) == []


def test_zone_hints_count_when_every_endpoint_has_them_and_one_is_for_us() -> None:
    near = endpoint("127.244.1.2", hints={"forZones": [{"name": "zone-a"}]})
    far = endpoint("127.244.2.2", hints={"forZones": [{"name": "zone-b"}]})
    assert chosen([near, far]) == ["127.244.1.2"]
    assert chosen([near, far, endpoint("127.244.3.2")]) == ["127.244.1.2", "127.244.2.2", "127.244.3.2"]
    assert chosen([far]) == ["127.244.2.2"]


def test_node_hints_go_before_zone_hints() -> None:
    own = endpoint("127.244.1.2", hints={"forNodes": [{"name": "node-1"}], "forZones": [{"name": "zone-a"}]})
    near = endpoint("127.244.2.2", hints={"forNodes": [{"name": "node-2"}], "forZones": [{"name": "zone-a"}]})
    assert chosen([own, near]) == ["127.244.1.2"]
    assert chosen([own, near], at=Locality(frozenset({"node-3"}), "zone-a")) == ["127.244.1.2", "127.244.2.2"]


def test_affinity_lasts_three_hours_unless_said_otherwise() -> None:
    def seconds(**spec: Any) -> int | None:
        return service_ports([service(**spec)], [])[0].affinity_seconds

    assert seconds() is None
    assert seconds(sessionAffinity="None") is None
    assert seconds(sessionAffinity="ClientIP") == 10800
    assert seconds(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 7}}) == 7


NODES = {"node-1": "127.0.10.1", "node-2": "127.0.10.2"}
TWO = [endpoint("127.244.1.2", "node-1"), endpoint("127.244.2.2", "node-2")]


def table(endpoints: list[dict[str, object]], **spec: Any) -> dict[tuple[str, int], set[str]]:
    found = frontends(service_ports([service(**spec)], [slice_of("web", endpoints)]), NODES)
    return {address: {end.address for end in frontend.endpoints} for address, frontend in found.items()}


def test_a_cluster_ip_is_one_address() -> None:
    assert table(TWO) == {("127.96.7.7", 80): {"127.244.1.2", "127.244.2.2"}}


def test_a_node_port_is_on_every_node_and_on_localhost() -> None:
    found = table(TWO, ports=[{"port": 80, "nodePort": 30080}])
    assert set(found) == {("127.96.7.7", 80), ("127.0.10.1", 30080), ("127.0.10.2", 30080), ("127.0.0.1", 30080)}
    assert all(answering == {"127.244.1.2", "127.244.2.2"} for answering in found.values())


def test_a_local_node_port_is_answered_by_the_pods_of_the_node_it_was_asked_at() -> None:
    found = table(TWO[:1], ports=[{"port": 80, "nodePort": 30080}], externalTrafficPolicy="Local")
    assert found == {("127.96.7.7", 80): {"127.244.1.2"}, ("127.0.10.1", 30080): {"127.244.1.2"},
                     ("127.0.0.1", 30080): {"127.244.1.2"}}


def test_an_internal_local_service_is_answered_by_the_nodes_of_this_machine() -> None:
    elsewhere = endpoint("127.244.9.2", "node-9")
    assert table([*TWO, elsewhere], internalTrafficPolicy="Local") == {
        ("127.96.7.7", 80): {"127.244.1.2", "127.244.2.2"}}
    assert table([elsewhere], internalTrafficPolicy="Local") == {}


def test_nothing_listens_where_nobody_answers() -> None:
    assert table([endpoint("127.244.1.2", ready=False)], ports=[{"port": 80, "nodePort": 30080}]) == {}


def test_the_first_of_two_services_with_one_address_wins() -> None:
    found = frontends(service_ports([service("b"), service("a")], [
        slice_of("a", [endpoint("127.244.1.2")]), slice_of("b", [endpoint("127.244.1.3")])]), NODES)
    assert [(str(frontend.service), frontend.entrance) for frontend in found.values()] == [
        ("default/a", Entrance.CLUSTER_IP)]


def test_what_user_space_cannot_do_is_named() -> None:
    ports = service_ports([service(ports=[{"port": 53, "protocol": "UDP"}, {"port": 80}])], [])
    assert [(port.port, port.protocol) for port in unserved(ports)] == [(53, "UDP")]
    assert [port.port for port in unserved(service_ports([service(externalIPs=["192.0.2.1"])], []))] == [80]
