"""Whom a client is sent to."""

import random
from collections import Counter

from minikubelet.serviceproxy.affinity import Balancer
from minikubelet.serviceproxy.frontends import Entrance, Frontend
from minikubelet.serviceproxy.serviceports import Endpoint, ServicePortName

WEB = ServicePortName("default", "web", "")
THREE = tuple(Endpoint(f"127.244.1.{number}", 80) for number in (2, 3, 4))


def frontend(affinity: int | None = None, endpoints: tuple[Endpoint, ...] = THREE) -> Frontend:
    return Frontend(WEB, Entrance.CLUSTER_IP, endpoints, affinity)


def test_clients_are_spread_evenly() -> None:
    balancer = Balancer(random.Random(7))
    firsts = Counter(next(balancer.order(frontend(), "127.0.0.1", 0.0)).address for _ in range(3000))
    assert len(firsts) == 3
    assert all(900 < count < 1100 for count in firsts.values())


def test_every_endpoint_is_tried_once() -> None:
    assert sorted(end.address for end in Balancer(random.Random(7)).order(frontend(), "127.0.0.1", 0.0)) == [
        "127.244.1.2", "127.244.1.3", "127.244.1.4"]


def test_a_client_comes_back_to_its_endpoint_until_it_was_away_too_long() -> None:
    balancer, sticky = Balancer(random.Random(7)), frontend(10)
    balancer.used(sticky, "127.0.0.1", THREE[1], 100.0)
    for _ in range(20):
        assert next(balancer.order(sticky, "127.0.0.1", 109.9)) == THREE[1]
    assert len({next(balancer.order(sticky, "127.0.0.1", 110.0)) for _ in range(50)}) == 3


def test_a_connection_renews_the_clients_time() -> None:
    balancer, sticky = Balancer(random.Random(7)), frontend(10)
    for now in (100.0, 109.0, 118.0):
        balancer.used(sticky, "127.0.0.1", THREE[1], now)
    assert next(balancer.order(sticky, "127.0.0.1", 127.0)) == THREE[1]


def test_other_clients_and_services_without_affinity_are_not_bound() -> None:
    balancer, sticky = Balancer(random.Random(7)), frontend(10)
    balancer.used(sticky, "127.0.0.1", THREE[1], 0.0)
    balancer.used(frontend(), "127.0.0.2", THREE[1], 0.0)
    assert len({next(balancer.order(sticky, "127.0.0.9", 0.0)) for _ in range(50)}) == 3
    assert len({next(balancer.order(frontend(), "127.0.0.2", 0.0)) for _ in range(50)}) == 3


def test_an_endpoint_that_is_gone_binds_nobody() -> None:
    balancer = Balancer(random.Random(7))
    balancer.used(frontend(10), "127.0.0.1", THREE[1], 0.0)
    left = frontend(10, (THREE[0], THREE[2]))
    assert {next(balancer.order(left, "127.0.0.1", 1.0)) for _ in range(50)} == {THREE[0], THREE[2]}


def test_the_memory_is_bounded_and_the_oldest_client_is_forgotten_first() -> None:
    balancer, sticky = Balancer(random.Random(7), remembered=2), frontend(10)
    for number in (1, 2, 3):
        balancer.used(sticky, f"127.0.0.{number}", THREE[0], 0.0)
    assert len({next(balancer.order(sticky, "127.0.0.1", 1.0)) for _ in range(50)}) == 3
    assert {next(balancer.order(sticky, "127.0.0.3", 1.0)) for _ in range(50)} == {THREE[0]}


def test_a_service_that_comes_back_begins_anew() -> None:
    balancer, sticky = Balancer(random.Random(7)), frontend(10)
    balancer.used(sticky, "127.0.0.1", THREE[0], 0.0)
    balancer.forget_others(set())
    assert len({next(balancer.order(sticky, "127.0.0.1", 1.0)) for _ in range(50)}) == 3
