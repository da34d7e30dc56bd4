"""Which agent reaches an address."""

import random
from dataclasses import dataclass
from typing import Any

import pytest

from konnectivity.flags import BadConfiguration
from konnectivity.server.backends import Backends
from konnectivity.server.identifiers import Identifiers, parse_identifiers
from wire.errors import NoTunnel


@dataclass(eq=False)
class Fake:
    agent_id: str
    identifiers: Identifiers
    load: int = 0
    is_draining: bool = False
    is_silent: bool = False


def backends(*agents: Fake, strategies: str = "default") -> Backends[Fake]:
    found: Backends[Fake] = Backends(strategies.split(","), random.Random(1))
    for agent in agents:
        found.add(agent)
    return found


def fake(agent_id: str, identifiers: str = "", **facts: Any) -> Fake:
    return Fake(agent_id, parse_identifiers(identifiers), **facts)


def picked(table: Backends[Fake], host: str) -> set[str]:
    return {table.pick(host).agent_id for _ in range(100)}


def test_default_takes_any_agent_and_prefers_the_less_loaded() -> None:
    assert picked(backends(fake("a"), fake("b")), "h") == {"a", "b"}
    assert picked(backends(fake("a", load=9), fake("b")), "h") == {"b"}


def test_draining_and_silent_agents_come_last() -> None:
    assert picked(backends(fake("a", is_draining=True), fake("b", is_silent=True), fake("c")), "h") == {"c"}
    assert picked(backends(fake("a", is_draining=True), fake("b", is_silent=True)), "h") == {"b"}
    assert picked(backends(fake("a", is_draining=True)), "h") == {"a"}


def test_of_two_links_of_one_agent_the_newer_counts() -> None:
    # After an unclean loss the older one is dead and does not know it yet.
    old, new = fake("a"), fake("a")
    assert backends(old, new).pick("h") is new


def test_destination_host_matches_exactly_and_then_by_prefix() -> None:
    table = backends(
        fake("exact", "ipv4=10.0.0.7&host=node-1"),
        fake("near", "cidr=10.0.0.0/24"),
        fake("far", "cidr=10.0.0.0/8"),
        strategies="destHost",
    )
    assert picked(table, "10.0.0.7") == {"exact"}
    assert picked(table, "node-1") == {"exact"}
    assert picked(table, "10.0.0.8") == {"near"}
    assert picked(table, "10.9.0.1") == {"far"}
    with pytest.raises(NoTunnel, match="No agent available"):
        table.pick("192.0.2.1")


def test_strategies_are_tried_in_order() -> None:
    table = backends(
        fake("host", "ipv4=10.0.0.7"), fake("route", "default-route=true"), strategies="destHost,defaultRoute"
    )
    assert picked(table, "10.0.0.7") == {"host"}
    assert picked(table, "10.0.0.8") == {"route"}


def test_readiness_looks_at_what_a_strategy_could_choose() -> None:
    table = backends(fake("a"), fake("b", "host=x"), fake("c", "default-route=true"))
    assert [table.ready(name) for name in ("default", "destHost", "defaultRoute")] == [3, 1, 1]


def test_nobody_is_no_tunnel() -> None:
    with pytest.raises(NoTunnel):
        backends().pick("h")


def test_unknown_strategies_are_refused() -> None:
    with pytest.raises(BadConfiguration, match="destination"):
        backends(strategies="default,destination")


def test_identifiers_ignore_unknown_keys_and_refuse_bad_networks() -> None:
    assert parse_identifiers("ipv4=1.2.3.4&zone=x") == Identifiers(frozenset({"1.2.3.4"}))
    with pytest.raises(ValueError, match="nonsense"):
        parse_identifiers("cidr=nonsense")
