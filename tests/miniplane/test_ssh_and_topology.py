"""SSH tunnels and network namespaces in the process table: who is told what, and where it runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from miniplane import ssh, topology
from miniplane.addresses import NetnsRanges
from miniplane.cluster import programs
from miniplane.errors import OptionsError
from miniplane.program import Program, nodes
from miniplane.state import Egress, Options, Place, Record, StateDir, Topology

STATE = StateDir(Path("/state"))
RECORD = Record(Options(nodes=2, egress=Egress.SSH_EMBEDDED), Place(0, 6443, 2222))


def table(record: Record) -> dict[str, Program]:
    return {row.name: row for row in programs(record, STATE)}


def with_options(**changes: object) -> Record:
    return replace(RECORD, options=replace(RECORD.options, **changes))  # type: ignore[arg-type]


def test_each_node_has_an_sshd_that_knows_its_own_network_only() -> None:
    first = table(RECORD)["sshd-node-1"].argv
    assert "--allow-cidrs=127.0.10.1,127.244.1.0/24" in first and "--address=127.0.10.1" in first
    assert "--port=2222" in first and "--host-key-file=/state/nodes/node-1/ssh/ssh_host_ed25519_key" in first


def test_the_api_server_is_told_key_and_pinned_hosts() -> None:
    flags = table(RECORD)["miniapiserver"].argv
    assert "--ssh-keyfile=/state/pki/ssh/id_ed25519" in flags and "--ssh-port=2222" in flags
    assert "--ssh-known-hosts=/state/pki/ssh/known_hosts" in flags
    assert not any(flag.startswith("--egress-selector-config-file") for flag in flags)


@pytest.mark.parametrize("egress", [Egress.DIRECT, Egress.KONNECTIVITY])
def test_other_egresses_have_no_sshd_and_no_ssh_flags(egress: Egress) -> None:
    rows = table(with_options(egress=egress))
    assert not any(name.startswith("sshd-") for name in rows)
    assert not any(flag.startswith("--ssh") for flag in rows["miniapiserver"].argv)


def test_opensshs_sshd_permits_the_nodes_addresses_one_by_one() -> None:
    node = nodes(RECORD.options, RECORD.ranges)[0]
    settings = dict(line.split(" ", 1) for line in ssh.configuration(RECORD, STATE, node).splitlines())
    permitted = settings["PermitOpen"].split()
    assert len(permitted) == 255 and {"127.0.10.1:*", "127.244.1.254:*"} <= set(permitted)
    assert "127.244.2.1:*" not in permitted
    assert (settings["MaxSessions"], settings["PermitTTY"]) == ("0", "no")
    assert settings["AuthenticationMethods"] == "publickey"


def test_a_path_that_sshd_cannot_read_is_refused() -> None:
    with pytest.raises(OptionsError, match="use --egress ssh-embedded"):
        ssh.configuration(RECORD, StateDir(Path("/my state")), nodes(RECORD.options, RECORD.ranges)[0])


def test_programs_run_in_the_network_they_belong_to() -> None:
    record = with_options(topology=Topology.NETNS, egress=Egress.KONNECTIVITY)
    control, _, of_nodes = topology.namespaces(0)
    where = {name: row.argv[1].rpartition("/")[2] for name, row in table(record).items()}
    assert where == {
        "konnectivity-server": control, "miniapiserver": control, "minicontroller": control, "node-1": of_nodes,
        "node-2": of_nodes, "konnectivity-agent-node-1": of_nodes, "konnectivity-agent-node-2": of_nodes,
    }  # fmt: skip
    assert "--bind-address=10.200.0.2" in table(record)["miniapiserver"].argv


def test_the_firewall_opens_port_22_for_ssh_and_nothing_for_others() -> None:
    for egress in Egress:
        rules = topology.firewall(with_options(topology=Topology.NETNS, egress=egress))
        accepted = [line.strip() for line in rules.splitlines() if "uplink" in line and "accept" in line]
        assert accepted == (['iifname "uplink" tcp dport 22 accept'] if egress.is_ssh else [])
        assert "policy drop" in rules


def test_networks_of_two_slots_share_nothing() -> None:
    assert set(NetnsRanges(1).all).isdisjoint(NetnsRanges(2).all)
    assert NetnsRanges(30).control_plane == "10.230.0.2"


def test_a_record_from_before_topologies_is_a_local_one() -> None:
    document = RECORD.as_json()
    del document["options"]["topology"], document["place"]["ssh_port"]
    assert Record.from_json(document) == replace(RECORD, place=Place(0, 6443))


def test_more_nodes_than_pod_ranges_is_refused() -> None:
    with pytest.raises(OptionsError, match="from 0 to 120 with --topology netns"):
        Options(nodes=121, topology=Topology.NETNS)
