"""Where a cluster goes, and what its programs are told."""

import errno
import ipaddress
import itertools
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from certs.layout import Layout
from certs.profiles import Cluster, profiles
from miniplane import addresses
from miniplane.addresses import SLOTS, Ranges, choose_port, take_slot
from miniplane.cluster import kubelet_configuration, programs, write_inputs
from miniplane.errors import OptionsError
from miniplane.program import Pki, nodes
from miniplane.state import Egress, Options, Place, Record, StateDir, Storage

RECORD = Record(Options(nodes=2), Place(0, 6443))


def flags(record: Record, name: str) -> list[str]:
    return next(list(row.argv) for row in programs(record, StateDir(Path("/state"))) if row.name == name)


def test_no_two_slots_share_an_address() -> None:
    networks = [ipaddress.ip_network(cidr) for slot in range(SLOTS) for cidr in Ranges(slot).all]
    assert not [pair for pair in itertools.combinations(networks, 2) if pair[0].overlaps(pair[1])]
    assert all(network.subnet_of(ipaddress.ip_network("127.0.0.0/8")) for network in networks)


def test_slot_zero_has_the_documented_ranges() -> None:
    assert Ranges(0).all == ("127.0.10.0/24", "127.244.0.0/16", "127.96.0.0/16")
    assert Ranges(0).kubernetes_service_ip == "127.96.0.1"


def test_a_slot_is_one_clusters_until_its_holder_ends() -> None:
    ranges, holder = take_slot()
    with pytest.raises(OptionsError, match="used by another"):
        take_slot(only=ranges.slot)
    holder.close()
    again, holder = take_slot(only=ranges.slot)
    holder.close()
    assert again == ranges


def test_443_is_tried_first_then_6443_with_a_line_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = {443: errno.EACCES}
    monkeypatch.setattr(addresses, "_problem", lambda address, port: problems.get(port))
    choice = choose_port("127.0.0.1", None)
    assert (choice.port, choice.remark) == (6443, "port 443 may not be used by you: the API server listens on 6443")
    problems[443] = errno.EADDRINUSE
    problems[6443] = errno.EADDRINUSE
    assert choose_port("127.0.0.1", None).remark == "port 443 is taken, 6443 is taken: the API server listens on 6444"
    problems.clear()
    assert choose_port("127.0.0.1", None) == addresses.PortChoice(443)


def test_the_port_of_the_last_run_is_kept_if_it_is_free() -> None:
    port = addresses.free_port("127.0.0.1")
    assert choose_port("127.0.0.1", None, last=port).port == port


def test_a_port_asked_for_and_taken_is_an_error_not_another_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OptionsError, match="EADDRINUSE"):
            choose_port("127.0.0.1", taken.getsockname()[1])


def test_flags_name_the_files_that_certs_makes() -> None:
    state, layout = Path("/state"), Layout(Path("/state"))
    made = {layout.ca.cert, layout.ca.key, layout.front_proxy_ca.cert, layout.service_account.cert,
            layout.service_account.key, layout.bootstrap_token, layout.pair("etcd/ca").cert}  # fmt: skip
    cluster = Cluster(ipaddress.ip_network("127.96.0.0/16"), etcd="127.0.10.254")
    for profile in profiles(layout, cluster):
        home = profile.home
        for name in ("files", "file", "kubeconfig"):
            value = getattr(home, name, None)
            made |= {value.cert, value.key} if name == "files" and value else {value}
    for record in (RECORD, replace(RECORD, options=replace(RECORD.options, storage=Storage.ETCD))):
        for row in programs(record, StateDir(state)):
            for argument in row.argv:
                value = argument.partition("=")[2]
                if value.endswith((".crt", ".key", ".pub", ".conf")) and "/nodes/" not in value:
                    assert Path(value) in made, argument
    assert Pki(state)("ca.crt") == str(layout.ca.cert)


def test_each_node_has_an_address_and_a_pod_range_of_its_own() -> None:
    first, second = (flags(RECORD, f"node-{number}") for number in (1, 2))
    assert "--node-ip=127.0.10.1" in first and "--pod-cidr=127.244.1.0/24" in first
    assert "--node-ip=127.0.10.2" in second and "--pod-cidr=127.244.2.0/24" in second


def test_the_kubelets_ca_is_passed_only_when_verification_is_on() -> None:
    def has_ca(record: Record) -> bool:
        return any(flag.startswith("--kubelet-certificate-authority=") for flag in flags(record, "miniapiserver"))

    assert has_ca(RECORD)
    assert not has_ca(replace(RECORD, options=replace(RECORD.options, kubelet_ca=False)))


def test_the_loopback_exemption_is_exactly_the_clusters_own_ranges() -> None:
    assert f"--proxy-allow-cidrs={','.join(Ranges(0).all)}" in flags(RECORD, "miniapiserver")


def test_extra_arguments_come_last_and_reach_one_or_all_kubelets() -> None:
    extra = {"minikubelet": ("--max-pods=7",), "node-2": ("--max-pods=9",)}
    record = replace(RECORD, options=replace(RECORD.options, extra_args=extra))
    assert flags(record, "node-1")[-1] == "--max-pods=7"
    assert flags(record, "node-2")[-2:] == ["--max-pods=7", "--max-pods=9"]


def test_extra_arguments_for_nobody_are_an_error() -> None:
    record = replace(RECORD, options=replace(RECORD.options, extra_args={"kubeproxy": ("-v",)}))
    with pytest.raises(OptionsError, match="kubeproxy"):
        programs(record, StateDir(Path("/state")))


def test_an_edited_kubelet_configuration_is_kept_and_our_own_follows_the_slot(tmp_path: Path) -> None:
    state = StateDir.of(tmp_path)
    write_inputs(RECORD, state)
    moved = replace(RECORD, place=Place(3, 6443))
    edited = tmp_path / "nodes" / "node-1" / "config.yaml"
    edited.write_text("kind: KubeletConfiguration\n")
    write_inputs(moved, state)
    assert edited.read_text() == "kind: KubeletConfiguration\n"
    second = nodes(moved.options, Ranges(3))[1]

    written = json.loads((tmp_path / "nodes" / "node-2" / "config.yaml").read_text())
    assert written == kubelet_configuration(second)


def test_the_record_survives_its_file(tmp_path: Path) -> None:
    options = Options(nodes=3, storage=Storage.ETCD, kubelet_ca=False, extra_args={"etcd": ("-v",)}, sans=("a.b",))
    record = Record(options, Place(4, 443))
    state = StateDir.of(tmp_path)
    state.write_record(record)
    assert state.read_record() == record


@pytest.mark.parametrize("wrong", [{"name": "A/b"}, {"nodes": -1}, {"nodes": 251}, {"secure_port": 70000}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionsError):
        Options(**wrong)  # type: ignore[arg-type]


def test_named_clusters_lie_below_the_default_one(tmp_path: Path) -> None:
    assert StateDir.of(tmp_path).path == tmp_path
    assert StateDir.of(tmp_path, "blue").path == tmp_path / "clusters" / "blue"


KONNECTIVITY = (Egress.KONNECTIVITY, Egress.KONNECTIVITY_TCP, Egress.KONNECTIVITY_GRPC)


@pytest.mark.parametrize("egress", KONNECTIVITY)
def test_konnectivity_adds_a_server_and_an_agent_for_each_node(egress: Egress) -> None:
    record = replace(RECORD, options=replace(RECORD.options, egress=egress))
    names = [row.name for row in programs(record, StateDir(Path("/state")))]
    assert names == ["konnectivity-server", "miniapiserver", "minicontroller", "node-1", "node-2",
                     "konnectivity-agent-node-1", "konnectivity-agent-node-2"]  # fmt: skip
    assert "--egress-selector-config-file=/state/egress.yaml" in flags(record, "miniapiserver")


@pytest.mark.parametrize("egress", KONNECTIVITY)
def test_the_api_server_reads_the_egress_configuration_that_is_written(tmp_path: Path, egress: Egress) -> None:
    from miniapiserver.egress.selector import read_configuration
    from miniplane.konnectivity import egress_configuration

    (tmp_path / "pki").mkdir()
    for name in ("konnectivity-front-ca.crt", "apiserver-konnectivity-client.crt", "apiserver-konnectivity-client.key"):
        (tmp_path / "pki" / name).touch()
    cluster, *others = read_configuration(json.dumps(egress_configuration(egress, StateDir(tmp_path), Ranges(0))))
    assert cluster.protocol == ("GRPC" if egress is Egress.KONNECTIVITY_GRPC else "HTTPConnect")
    assert (cluster.transport.host != "") is (egress is Egress.KONNECTIVITY_TCP)
    assert [other.protocol for other in others] == ["Direct", "Direct"]


def test_a_socket_path_that_is_too_long_is_said_before_anything_starts() -> None:
    record = replace(RECORD, options=replace(RECORD.options, egress=Egress.KONNECTIVITY))
    with pytest.raises(OptionsError, match="konnectivity-tcp"):
        programs(record, StateDir(Path("/" + "x" * 100)))
