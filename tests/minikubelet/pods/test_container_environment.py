"""Environment, expansion, downward API and service variables."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikubelet import quantity
from minikubelet.pods.downward import UnknownField, field_value, resource_value
from minikubelet.pods.environment import CONFIG_MAP, SECRET, ConfigError, ObjectRef, build, references
from minikubelet.pods.expansion import expand
from minikubelet.pods.serviceenv import service_environment

JSON = dict[str, Any]
POD: JSON = {"metadata": {"name": "web", "namespace": "ns", "uid": "u", "labels": {"a": "1", "b": 'x"y'},
                          "annotations": {"n": "v"}},
             "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": [
                 {"name": "c", "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}]},
             "status": {"podIP": "10.0.0.1", "hostIP": "10.9.9.9", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "::1"}]}}


def environment(*variables: JSON, objects: Any = None, services: Any = None, **more: Any) -> dict[str, str]:
    return build({"name": "c", "env": list(variables)} | more, POD, objects or {}, services or {}, {"cpu": "4"})


@pytest.mark.parametrize(("text", "expected"), [
    ("$(A)", "1"), ("x$(A)y", "x1y"), ("$(NONE)", "$(NONE)"), ("$$(A)", "$(A)"), ("$$", "$"), ("$", "$"),
    ("$A", "$A"), ("$(A", "$(A"), ("$(A)$(B)", "12"), ("", ""), ("$$$(A)", "$1"), ("$()", "$()"),
])
def test_expansion_is_upstreams(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text(alphabet="$()AB x"))
def test_expansion_ends_and_leaves_what_has_no_dollar(text: str) -> None:
    result = expand(text, {"A": "1"})
    if "$" not in text:
        assert result == text


def test_a_variable_sees_those_before_it_and_the_services() -> None:
    found = environment({"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(SVC)-$(LATER)"},
                        {"name": "LATER", "value": "x"}, services={"SVC": "s"})
    assert found == {"A": "1", "B": "1-s-$(LATER)", "LATER": "x", "SVC": "s"}


def test_own_variables_win_over_env_from_and_that_over_services() -> None:
    objects = {ObjectRef(CONFIG_MAP, "cm"): {"data": {"A": "cm", "B": "cm"}},
               ObjectRef(SECRET, "s"): {"data": {"C": "c2Vj"}}}
    found = environment({"name": "A", "value": "own"}, objects=objects, services={"B": "svc"}, envFrom=[
        {"configMapRef": {"name": "cm"}}, {"prefix": "P_", "secretRef": {"name": "s"}}])
    assert found == {"A": "own", "B": "cm", "P_C": "sec"}


@pytest.mark.parametrize(("source", "words"), [
    ({"configMapKeyRef": {"name": "cm", "key": "none"}}, "couldn't find key none in ConfigMap ns/cm"),
    ({"secretKeyRef": {"name": "s", "key": "none"}}, "couldn't find key none in Secret ns/s"),
    ({"secretKeyRef": {"name": "gone", "key": "k"}}, 'secret "gone" not found'),
    ({"fieldRef": {"fieldPath": "spec.none"}}, "unsupported fieldPath: spec.none"),
])
def test_what_is_missing_is_named_in_upstreams_words(source: JSON, words: str) -> None:
    objects = {ObjectRef(CONFIG_MAP, "cm"): {"data": {}}, ObjectRef(SECRET, "s"): {"data": {}}}
    with pytest.raises(ConfigError) as caught:
        environment({"name": "A", "valueFrom": source}, objects=objects)
    assert str(caught.value) == words


def test_what_is_optional_may_be_missing() -> None:
    assert environment(
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}}},
        envFrom=[{"secretRef": {"name": "no", "optional": True}}]) == {}


def test_references_are_found_everywhere() -> None:
    assert references({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                       "envFrom": [{"configMapRef": {"name": "cm"}}]}) == {
        ObjectRef(SECRET, "s"), ObjectRef(CONFIG_MAP, "cm")}


@pytest.mark.parametrize(("path", "value"), [
    ("metadata.name", "web"), ("metadata.namespace", "ns"), ("metadata.uid", "u"), ("spec.nodeName", "n1"),
    ("spec.serviceAccountName", "sa"), ("status.podIP", "10.0.0.1"), ("status.hostIP", "10.9.9.9"),
    ("status.podIPs", "10.0.0.1,::1"), ("metadata.labels['a']", "1"), ("metadata.annotations['n']", "v"),
    ("metadata.annotations['none']", ""), ("metadata.labels", 'a="1"\nb="x\\"y"'),
])
def test_fields_of_the_pod(path: str, value: str) -> None:
    assert field_value(POD, path) == value


@pytest.mark.parametrize(("reference", "value"), [
    ({"resource": "limits.memory"}, str(64 * 2**20)), ({"resource": "limits.memory", "divisor": "1Mi"}, "64"),
    ({"resource": "requests.cpu"}, "1"), ({"resource": "requests.cpu", "divisor": "1m"}, "250"),
    ({"resource": "limits.cpu"}, "4"), ({"resource": "requests.memory"}, str(64 * 2**20)),
])
def test_resources_of_the_container_with_the_nodes_as_limit(reference: JSON, value: str) -> None:
    assert resource_value(POD, "c", reference, {"cpu": "4"}) == value


@pytest.mark.parametrize("reference", [{"resource": "x.cpu"}, {"resource": "limits.cpu", "containerName": "no"}])
def test_resources_that_do_not_exist_are_refused(reference: JSON) -> None:
    with pytest.raises(UnknownField):
        resource_value(POD, "c", reference, {})


def service(name: str, namespace: str, *ports: JSON, address: str = "10.0.0.7") -> JSON:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": address, "ports": list(ports)}}


def test_service_variables_are_upstreams() -> None:
    found = service_environment([service("my-svc", "ns", {"name": "web-ui", "port": 80},
                                         {"name": "dns", "port": 53, "protocol": "UDP"})], "ns", links=True)
    assert found == {
        "MY_SVC_SERVICE_HOST": "10.0.0.7", "MY_SVC_SERVICE_PORT": "80", "MY_SVC_SERVICE_PORT_WEB_UI": "80",
        "MY_SVC_SERVICE_PORT_DNS": "53", "MY_SVC_PORT": "tcp://10.0.0.7:80",
        "MY_SVC_PORT_80_TCP": "tcp://10.0.0.7:80", "MY_SVC_PORT_80_TCP_PROTO": "tcp",
        "MY_SVC_PORT_80_TCP_PORT": "80", "MY_SVC_PORT_80_TCP_ADDR": "10.0.0.7",
        "MY_SVC_PORT_53_UDP": "udp://10.0.0.7:53", "MY_SVC_PORT_53_UDP_PROTO": "udp",
        "MY_SVC_PORT_53_UDP_PORT": "53", "MY_SVC_PORT_53_UDP_ADDR": "10.0.0.7"}


def test_without_links_only_the_kubernetes_service_is_there() -> None:
    services = [service("kubernetes", "default", {"port": 443}), service("other", "ns", {"port": 1}),
                service("far", "elsewhere", {"port": 1}), service("headless", "ns", {"port": 1}, address="None")]
    assert {key.split("_")[0] for key in service_environment(services, "ns", links=False)} == {"KUBERNETES"}
    assert {key.split("_")[0] for key in service_environment(services, "ns", links=True)} == {"KUBERNETES", "OTHER"}


@pytest.mark.parametrize(("text", "value"), [
    ("1", "1"), ("250m", "0.25"), ("1Ki", "1024"), ("1.5Gi", "1610612736"), ("1e3", "1000"), ("2k", "2000"),
    (".5", "0.5"), ("1E", "1000000000000000000"), ("100n", "0.0000001"),
])
def test_quantities(text: str, value: str) -> None:
    assert quantity.parse(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1Gib", "--1", "1e", "0x10"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(quantity.InvalidQuantity):
        quantity.parse(text)
