"""Which node reaches what."""

from miniapiserver.egress.noderoutes import NodeRoutes, facts_of


def routes(*nodes: dict[str, object]) -> NodeRoutes:
    found = NodeRoutes()
    for one in nodes:
        found.put(facts_of(one))
    return found


def node(name: str, address: str, *cidrs: str, created: str = "2026-01-01T00:00:00Z") -> dict[str, object]:
    return {"metadata": {"name": name, "creationTimestamp": created}, "spec": {"podCIDRs": list(cidrs)},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]}}


def test_a_node_is_reached_by_name_address_and_pods() -> None:
    found = routes(node("a", "10.0.0.1", "10.1.1.0/24", "fd00:1::/64"), node("b", "10.0.0.2", "10.1.2.0/24"))
    asked = ["a", "10.0.0.2", "10.1.1.77", "10.1.2.1", "fd00:1::9", "10.1.3.1", "example.org"]
    assert [found.pick(host) for host in asked] == ["a", "b", "a", "b", "a", None, None]


def test_the_longest_prefix_decides() -> None:
    found = routes(node("wide", "10.0.0.1", "10.1.0.0/16"), node("narrow", "10.0.0.2", "10.1.2.0/24"))
    assert (found.pick("10.1.2.3"), found.pick("10.1.3.3")) == ("narrow", "wide")


def test_a_younger_node_cannot_take_an_elders_address_or_name() -> None:
    elder = node("elder", "10.0.0.1", "10.1.1.0/24", created="2026-01-01T00:00:00Z")
    thief = node("another", "10.0.0.1", "10.1.1.0/24", created="2026-02-01T00:00:00Z")
    named = node("third", "elder", created="2025-01-01T00:00:00Z")
    found = routes(thief, elder, named)
    assert [found.pick(host) for host in ("10.0.0.1", "10.1.1.5", "elder")] == ["elder"] * 3
    found.remove("elder")
    assert [found.pick(host) for host in ("10.0.0.1", "10.1.1.5", "elder")] == ["another", "another", "third"]


def test_a_node_without_pods_or_status_is_known_by_name_only() -> None:
    assert routes({"metadata": {"name": "new"}}).pick("new") == "new"
