"""The ruleset: its text, whether the kernel takes it, and what it does to real connections in network namespaces."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from serviceobjects import endpoint, service, slice_of

from minikubelet.serviceproxy.nftables import Place, Ruleset, families, plan, text
from minikubelet.serviceproxy.serviceports import ServicePort, service_ports

PLACE = Place({"node-1": "192.0.2.10"}, "10.244.1.0/24")
PODS = ("10.244.1.2", "10.244.1.3", "10.244.1.4")
VIP = "10.96.0.7"


def web(addresses: tuple[str, ...] = PODS, **spec: Any) -> list[ServicePort]:
    return service_ports([service(ip=VIP, **spec)], [slice_of("web", [endpoint(address) for address in addresses])])


def test_a_service_is_a_verdict_a_chain_and_one_chain_per_endpoint() -> None:
    rules = plan(web(), PLACE)
    [(key, verdict)] = rules.maps["service-ips"].items()
    chain = verdict.removeprefix("goto ")
    assert key == "10.96.0.7 . tcp . 80"
    assert rules.chains[chain][0] == (
        "ip daddr 10.96.0.7 tcp dport 80 ip saddr != 10.244.1.0/24 jump mark-for-masquerade")
    assert rules.chains[chain][1].startswith("numgen random mod 3 vmap { 0 : goto endpoint-")
    assert [rules.chains[name] for name in rules.chains if name.startswith("endpoint-")] == [
        [f"ip saddr {pod} jump mark-for-masquerade", f"meta l4proto tcp dnat to {pod}:8080"] for pod in PODS]


def test_a_service_without_endpoints_is_refused_and_one_with_others_endpoints_is_silent() -> None:
    assert plan(web(()), PLACE).maps["no-endpoint-services"] == {"10.96.0.7 . tcp . 80": "goto reject-chain"}
    elsewhere = service_ports([service(ip=VIP, internalTrafficPolicy="Local")],
                              [slice_of("web", [endpoint("10.244.2.2", "node-2")])])
    assert plan(elsewhere, PLACE).maps["no-endpoint-services"] == {"10.96.0.7 . tcp . 80": "drop"}


def test_affinity_is_a_set_of_clients_per_endpoint_that_forgets() -> None:
    rules = plan(web(sessionAffinity="ClientIP"), PLACE)
    assert len(rules.memories) == 3
    assert all("timeout 10800s" in definition for definition in rules.memories.values())


def test_another_timeout_is_another_set() -> None:
    config = {"clientIP": {"timeoutSeconds": 7}}
    assert not set(plan(web(sessionAffinity="ClientIP"), PLACE).memories) & set(
        plan(web(sessionAffinity="ClientIP", sessionAffinityConfig=config), PLACE).memories)


def test_a_local_node_port_masquerades_nobody_from_outside() -> None:
    rules = plan(web(ports=[{"port": 80, "nodePort": 30080}], externalTrafficPolicy="Local"), PLACE)
    external = rules.maps["service-nodeports"]["tcp . 30080"].removeprefix("goto ")
    assert rules.chains[external][-1].endswith("/local")
    assert "jump mark-for-masquerade" not in rules.chains[external]


def test_two_families_are_two_tables() -> None:
    assert plan(web(), PLACE, is_ipv6=True).maps["service-ips"] == {}
    assert "table ip6 kube-proxy" in text(plan(web(), PLACE, is_ipv6=True))


def test_the_second_family_is_there_once_it_is_needed() -> None:
    six = service_ports([service(ip="fd00:96::7")], [])
    assert [rules.family for rules in families(web(), PLACE, {})] == ["ip"]
    assert [rules.family for rules in families(six, PLACE, {})] == ["ip", "ip6"]
    assert [rules.family for rules in families(web(), PLACE, {"ip6"})] == ["ip", "ip6"]


def test_an_unchanged_ruleset_deletes_nothing() -> None:
    rules = plan(web(), PLACE)
    assert "delete" not in text(rules, rules)


needs_nft = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"),
                               reason="needs root, nft and ip")


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace; with a node's kernel in it, so to speak."""

    name: str

    def run(self, *argv: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["ip", "netns", "exec", self.name, *argv], input=stdin, capture_output=True, text=True,
                              timeout=30)

    def ok(self, *argv: str, stdin: str | None = None) -> str:
        answer = self.run(*argv, stdin=stdin)
        assert answer.returncode == 0, f"{argv}: {answer.stderr}\n{stdin}"
        return answer.stdout

    def load(self, rules: Ruleset, old: Ruleset | None = None) -> None:
        self.ok("nft", "-c", "-f", "-", stdin=text(rules, old))
        self.ok("nft", "-f", "-", stdin=text(rules, old))


@pytest.fixture
def node() -> Iterator[Namespace]:
    """A namespace with the node's and the pods' addresses on one device, and a server on each pod's."""
    namespace = Namespace(f"mp-test-{uuid.uuid4().hex[:8]}")
    made = subprocess.run(["ip", "netns", "add", namespace.name], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    try:
        namespace.ok("ip", "link", "set", "lo", "up")
        namespace.ok("ip", "link", "add", "pods", "type", "veth", "peer", "name", "far")
        for device in ("pods", "far"):
            namespace.ok("ip", "link", "set", device, "up")
        for address in (*PODS, "192.0.2.10"):
            namespace.ok("ip", "addr", "add", f"{address}/32", "dev", "pods")
        namespace.ok("ip", "route", "add", "default", "dev", "pods")
        with contextlib.ExitStack() as servers:
            for pod in PODS:
                servers.enter_context(server(namespace, pod))
            yield namespace
    finally:
        subprocess.run(["ip", "netns", "del", namespace.name], check=True)


SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], 8080))
print("up", flush=True)
while True:
    client, _ = listener.accept()
    client.sendall(sys.argv[1].encode())
    client.close()
"""
CLIENT = """
import socket, sys
for _ in range(int(sys.argv[3])):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3) as c:
            print(c.recv(100).decode())
    except OSError as error:
        print(type(error).__name__)
"""


@contextlib.contextmanager
def server(namespace: Namespace, address: str) -> Iterator[None]:
    argv = ["ip", "netns", "exec", namespace.name, sys.executable, "-c", SERVER, address]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "up\n"
            yield
        finally:
            process.kill()


def answers(namespace: Namespace, address: str, port: int, times: int = 1) -> Counter[str]:
    return Counter(namespace.ok(sys.executable, "-c", CLIENT, address, str(port), str(times)).split())


@needs_nft
def test_the_kernel_spreads_connections_to_the_virtual_ip(node: Namespace) -> None:
    node.load(plan(web(), PLACE))
    assert set(answers(node, VIP, 80, 40)) == set(PODS)


@needs_nft
def test_the_kernel_answers_node_ports_on_the_nodes_address(node: Namespace) -> None:
    node.load(plan(web(ports=[{"port": 80, "nodePort": 30080}]), PLACE))
    assert set(answers(node, "192.0.2.10", 30080, 40)) == set(PODS)


@needs_nft
def test_the_kernel_refuses_a_service_without_endpoints_and_a_port_a_service_does_not_have(node: Namespace) -> None:
    node.load(plan(web(()), PLACE))
    assert answers(node, VIP, 80) == {"ConnectionRefusedError": 1}
    node.load(plan(web(), PLACE))
    assert answers(node, VIP, 81) == {"ConnectionRefusedError": 1}


@needs_nft
def test_the_kernel_keeps_clients_with_affinity_also_across_a_new_ruleset(node: Namespace) -> None:
    sticky = plan(web(sessionAffinity="ClientIP"), PLACE)
    node.load(sticky)
    [first] = answers(node, VIP, 80, 10)
    more = service_ports(
        [service(ip=VIP, sessionAffinity="ClientIP"), service("other", ip="10.96.0.8")],
        [slice_of("web", [endpoint(pod) for pod in PODS]), slice_of("other", [endpoint(PODS[0])])])
    node.load(plan(more, PLACE), sticky)
    assert answers(node, VIP, 80, 10) == {first: 10}
    assert answers(node, "10.96.0.8", 80) == {PODS[0]: 1}


@needs_nft
def test_rules_come_and_go_with_endpoints_and_services(node: Namespace) -> None:
    every, one, none = plan(web(), PLACE), plan(web(PODS[:1]), PLACE), plan([], PLACE)
    node.load(every)
    node.load(one, every)
    assert answers(node, VIP, 80, 5) == {PODS[0]: 5}
    node.load(none, one)
    left = node.ok("nft", "list", "table", "ip", "kube-proxy")
    assert "endpoint-" not in left.replace("endpoint-services", "").replace("endpoint-nodeports", "")
    node.load(every, none)
    assert set(answers(node, VIP, 80, 40)) == set(PODS)


@needs_nft
def test_both_families_and_every_policy_are_taken_by_the_kernel(node: Namespace) -> None:
    ports = web(ports=[{"port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"}],
                externalTrafficPolicy="Local", internalTrafficPolicy="Local", externalIPs=["198.51.100.1"],
                sessionAffinity="ClientIP")
    node.load(plan(ports, PLACE))
    six = slice_of("web", [endpoint("fd00::2")]) | {"addressType": "IPv6"}
    node.load(plan(service_ports([service(ip="fd00:96::7", sessionAffinity="ClientIP")], [six]),
                   Place({"node-1": "fd00::1"}, "fd00:244::/64"), is_ipv6=True))
    assert "dnat to [fd00::2]:8080" in node.ok("nft", "list", "table", "ip6", "kube-proxy")


@needs_nft
def test_the_library_does_what_the_program_does(node: Namespace) -> None:
    """In a process inside the namespace, as a kubelet of the netns topology is."""
    script = ("import asyncio, sys; from minikubelet.serviceproxy import netfilter; "
              "asyncio.run(netfilter.apply(sys.stdin.read()))")
    node.ok(sys.executable, "-c", script, stdin=text(plan(web(), PLACE)))
    assert set(answers(node, VIP, 80, 40)) == set(PODS)
    refused = node.run(sys.executable, "-c", script, stdin="add rule ip nowhere nothing accept\n")
    assert "NetfilterError" in refused.stderr
    assert "No such file or directory" in refused.stderr


def test_without_privilege_the_library_says_why() -> None:
    from minikubelet.serviceproxy import netfilter

    async def attempt() -> str:
        try:
            await netfilter.check("add rule ip nowhere nothing accept\n")
        except netfilter.NetfilterError as error:
            return str(error)
        return ""

    assert asyncio.run(attempt())
