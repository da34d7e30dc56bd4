"""Services, Endpoints and EndpointSlices."""

from ipaddress import ip_network
from typing import Any

import pytest

from miniapiserver.resources.discovery import EndpointSliceStrategy
from miniapiserver.resources.endpoints import EndpointsStrategy
from tests.miniapiserver.resources.writes import JSON, created, message, row_of, updated, words


def service(**spec: Any) -> JSON:
    return {
        "metadata": {"name": "svc"},
        "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": 8080}]} | spec,
    }


def test_defaults() -> None:
    obj, errors = created("services", service())
    assert errors == []
    assert obj["spec"] == {
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "selector": {"a": "b"},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}],
        "sessionAffinity": "None",
        "type": "ClusterIP",
    }
    assert obj["status"] == {"loadBalancer": {}}


def test_a_port_out_of_range_is_wrong_twice() -> None:
    _, errors = created("services", {"metadata": {"name": "svc2"}, "spec": {"ports": [{"port": 99999}]}})
    assert message("services", errors, "svc2") == (
        'Service "svc2" is invalid: [spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive, '
        "spec.ports[0].targetPort: Invalid value: 99999: must be between 1 and 65535, inclusive]")


def test_names_may_begin_with_a_digit_and_are_labels() -> None:
    """Since 1.36 (RelaxedServiceNameValidation)."""
    _, errors = created("services", service() | {"metadata": {"name": "1svc"}})
    assert not errors
    _, errors = created("services", service() | {"metadata": {"name": "a_b"}})
    assert "a lowercase RFC 1123 label must consist of" in words(errors)[0]


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({"ports": []}, "spec.ports: Required value"),
        ({"ports": [{"port": 1}, {"port": 2, "name": "b"}]}, "spec.ports[0].name: Required value"),
        (
            {"type": "Magic"},
            'spec.type: Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", '
            '"NodePort"',
        ),
        (
            {"type": "NodePort", "clusterIP": "None"},
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        ({"type": "ExternalName", "externalName": ""}, "spec.externalName: Required value"),
        (
            {"clusterIP": "nope"},
            'spec.clusterIPs[0]: Invalid value: "nope": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
        ),
        (
            {"externalIPs": ["127.0.0.1"]},
            'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
        ),
        (
            {"sessionAffinity": "Cookie"},
            'spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"',
        ),
    ],
)
def test_specs_that_are_refused(spec: JSON, wrong: str) -> None:
    assert wrong in words(created("services", service(**spec))[1])


def test_an_alias_has_no_address_and_a_headless_service_none() -> None:
    headless, errors = created("services", service(clusterIP="None"))
    alias, wrong = created("services", service(type="ExternalName", externalName="a.example", ports=[]))
    assert (errors, wrong) == ([], [])
    assert headless["spec"]["clusterIPs"] == ["None"]
    assert "ipFamilies" not in alias["spec"]


def node_ports(obj: JSON) -> list[int | None]:
    return [port.get("nodePort") for port in obj["spec"]["ports"]]


def allocated(**spec: Any) -> JSON:
    obj, _ = created("services", service(**spec))
    obj["spec"] |= {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}
    return obj


def test_an_update_keeps_what_was_allocated() -> None:
    old = allocated(type="NodePort")
    old["spec"]["ports"][0]["nodePort"] = 30080
    obj, errors = updated("services", old, {"spec": {"clusterIP": None, "clusterIPs": None, "ports": [{"port": 80}]}})
    assert errors == []
    assert (obj["spec"]["clusterIP"], node_ports(obj)) == ("10.0.0.1", [30080])


def test_node_ports_go_when_the_type_does() -> None:
    old = allocated(type="NodePort")
    old["spec"]["ports"][0]["nodePort"] = 30080
    obj, errors = updated("services", old, {"spec": {"type": "ClusterIP"}})
    assert errors == []
    assert node_ports(obj) == [None]


def test_an_address_may_not_change() -> None:
    _, errors = updated("services", allocated(), {"spec": {"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]}})
    assert words(errors) == ['spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set']


def test_table() -> None:
    cells = row_of("services").table.cells
    assert cells(allocated(), 0) == ["svc", "ClusterIP", "10.0.0.1", "<none>", "80/TCP", "<unknown>", "a=b"]
    pending = allocated(type="LoadBalancer")
    pending["spec"]["ports"][0]["nodePort"] = 30080
    assert cells(pending, 0)[1:5] == ["LoadBalancer", "10.0.0.1", "<pending>", "80:30080/TCP"]


def slice_of(address: str) -> JSON:
    return {"metadata": {"name": "e", "namespace": "n"}, "addressType": "IPv4", "endpoints": [{"addresses": [address]}],
            "ports": [{"port": 80, "protocol": "TCP", "name": ""}]}


def test_endpoints_on_loopback_are_refused_unless_their_network_is_exempt() -> None:
    wrong = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    subset = {"metadata": {"name": "e", "namespace": "n"}, "subsets": [{"addresses": [{"ip": "127.244.1.5"}]}]}
    exempt = [ip_network("127.244.0.0/16")]
    assert words(EndpointSliceStrategy().validate(slice_of("127.244.1.5"))) == [
        f'endpoints[0].addresses[0]: Invalid value: "127.244.1.5": {wrong}']
    assert words(EndpointsStrategy().validate(subset)) == [
        f'subsets[0].addresses[0].ip: Invalid value: "127.244.1.5": {wrong}'
    ]
    assert EndpointSliceStrategy(exempt).validate(slice_of("127.244.1.5")) == []
    assert EndpointsStrategy(exempt).validate(subset) == []
    assert EndpointSliceStrategy(exempt).validate(slice_of("127.0.0.1")) != []


def test_endpoints_are_deprecated_and_say_so() -> None:
    assert row_of("endpoints").strategy.warnings({}) == [
        "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"]


def test_endpoint_tables_show_three_and_count_the_rest() -> None:
    subset = {"addresses": [{"ip": f"10.0.0.{n}"} for n in range(5)], "ports": [{"port": 80}]}
    assert row_of("endpoints").table.cells({"metadata": {"name": "e"}, "subsets": [subset]}, 0)[1] == (
        "10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more...")
    assert row_of("endpoints").table.cells({"metadata": {"name": "e"}}, 0)[1] == "<none>"
    assert row_of("endpointslices", "discovery.k8s.io").table.cells(slice_of("10.0.0.1"), 0) == [
        "e", "IPv4", "80", "10.0.0.1", "<unknown>"]
