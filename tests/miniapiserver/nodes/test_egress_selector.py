"""EgressSelectorConfiguration is read strictly; connection_info picks as the kubelet client does."""

from pathlib import Path

import pytest

from miniapiserver.egress.direct import Direct
from miniapiserver.egress.interface import EgressType
from miniapiserver.egress.selector import EgressSelector, InvalidEgressConfiguration, read_configuration
from miniapiserver.errors import PlainInternal
from miniapiserver.kubelet import ConnectionInfo, connection_info

HEAD = "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n"


def selection(connection: str, name: str = "cluster") -> str:
    return HEAD + f"- name: {name}\n  connection: {connection}\n"


def test_direct_and_uds_and_tcp_are_read(tmp_path: Path) -> None:
    for name in ("ca", "crt", "key"):
        (tmp_path / name).touch()
    tls = f"{{caBundle: {tmp_path}/ca, clientCert: {tmp_path}/crt, clientKey: {tmp_path}/key}}"
    tcp = f"{{proxyProtocol: HTTPConnect, transport: {{tcp: {{url: 'https://127.0.0.1:8131', tlsConfig: {tls}}}}}}}"
    text = selection(tcp) + "- name: Master\n  connection: {proxyProtocol: Direct}\n"
    text += "- name: etcd\n  connection: {proxyProtocol: GRPC, transport: {uds: {udsName: /run/k.sock}}}\n"
    cluster, control, etcd = read_configuration(text)
    assert (cluster.transport.host, cluster.transport.port) == ("127.0.0.1", 8131)
    assert cluster.transport.tls is not None and cluster.transport.tls.client_key == f"{tmp_path}/key"
    assert (control.egress_type, control.protocol) == (EgressType.CONTROL_PLANE, "Direct")
    assert (etcd.protocol, etcd.transport.uds) == ("GRPC", "/run/k.sock")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "not a mapping"),
        ("apiVersion: v1\nkind: EgressSelectorConfiguration", "is not apiserver.k8s.io/v1beta1"),
        (HEAD + "- {name: x, connection: {proxyProtocol: Direct}}", r"egressSelections\[0\].name: Unsupported value"),
        (HEAD + "- {name: etcd, conection: {}}", 'unknown field "egressSelections.0..conection"'),
        (HEAD + "- {name: etcd, name: etcd}", 'duplicate field "name"'),
        (selection("{proxyProtocol: Direct}") + "- {name: CLUSTER, connection: {proxyProtocol: Direct}}", "Duplicate"),
        (selection("{proxyProtocol: Socks}"), "proxyProtocol: Unsupported value"),
        (selection("{proxyProtocol: Direct, transport: {}}"), "must be absent for Direct"),
        (selection("{proxyProtocol: HTTPConnect}"), "needs a transport"),
        (selection("{proxyProtocol: HTTPConnect, transport: {}}"), "exactly one of tcp and uds"),
        (selection("{proxyProtocol: GRPC, transport: {tcp: {url: 'http://x'}}}"), "GRPC goes over uds only"),
        (selection("{proxyProtocol: HTTPConnect, transport: {tcp: {url: 'https://x'}}}"), "needs a client certificate"),
        (selection("{proxyProtocol: HTTPConnect, transport: {tcp: {url: 'ftp://x'}}}"), "no http"),
        (selection("{proxyProtocol: HTTPConnect, transport: {uds: {udsName: 'unix:///x'}}}"), "is no path"),
        ("a: [", "egress selector configuration"),
    ],
)
def test_whatever_is_wrong_is_named(text: str, why: str) -> None:
    with pytest.raises(InvalidEgressConfiguration, match=why):
        read_configuration(text)


def test_missing_files_are_named(tmp_path: Path) -> None:
    tls = f"{{clientCert: {tmp_path}/nope, clientKey: {tmp_path}/nope}}"
    text = selection(f"{{proxyProtocol: HTTPConnect, transport: {{tcp: {{url: 'https://x', tlsConfig: {tls}}}}}}}")
    with pytest.raises(InvalidEgressConfiguration, match="no such file"):
        read_configuration(text)
    with pytest.raises(InvalidEgressConfiguration, match="No such file"):
        EgressSelector.from_file(tmp_path / "none.yaml")


def test_what_is_not_listed_is_dialed_directly() -> None:
    assert isinstance(EgressSelector().dialer(EgressType.CLUSTER), Direct)


NODE = {
    "metadata": {"name": "n"},
    "status": {
        "addresses": [
            {"type": "InternalIP", "address": "10.0.0.1"},
            {"type": "InternalIP", "address": "10.0.0.2"},
            {"type": "Hostname", "address": "n.example"},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}},
    },
}


def test_the_first_address_of_the_most_preferred_type_is_taken() -> None:
    assert connection_info(NODE) == ConnectionInfo("n", "n.example", 10251)
    assert connection_info(NODE, ("ExternalIP", "InternalIP")) == ConnectionInfo("n", "10.0.0.1", 10251)


def test_a_node_without_such_an_address_lists_what_it_has() -> None:
    with pytest.raises(PlainInternal, match=r"known addresses: \[\{InternalIP 10.0.0.1\}"):
        connection_info(NODE, ("ExternalDNS",))


def test_the_port_defaults_to_10250() -> None:
    node = {"metadata": {"name": "n"}, "status": {"addresses": [{"type": "Hostname", "address": "h"}]}}
    assert connection_info(node).port == 10250
