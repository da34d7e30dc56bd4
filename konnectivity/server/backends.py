"""The connected agents, and which of them should reach an address.

Job: keep every agent link in the order it came, and pick. Neighbours: `agentservice` adds and removes links, the
frontends ask. Rule: choosing is a pure function of the links, the address and the given random source; nothing here
waits.

    strategy       its agents                              its choice
    default        all                                     the less loaded of two taken at random
    destHost       whose identifiers name the host, or     exact name first, then the longest prefix
                   whose cidr contains it
    defaultRoute   with default-route=true                 as default

Strategies are tried in order; within one, an agent that is draining or has stopped answering comes last. Of several
links of one agent the newest counts: after an unclean loss the older one is dead, it only does not know yet.
"""

import ipaddress
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from konnectivity.dialerrors import VIA
from konnectivity.flags import BadConfiguration
from konnectivity.server.identifiers import Identifiers
from wire.errors import NoTunnel


class Pickable(Protocol):
    """What choosing needs to know of a backend."""

    agent_id: str
    identifiers: Identifiers
    is_draining: bool

    @property
    def load(self) -> int: ...
    @property
    def is_silent(self) -> bool: ...


Strategy = Callable[[Sequence[Pickable], str], Iterable[Pickable]]


def all_agents(backends: Sequence[Pickable], host: str) -> Iterable[Pickable]:
    return backends


def destination_host(backends: Sequence[Pickable], host: str) -> Iterable[Pickable]:
    exact = [backend for backend in backends if host in backend.identifiers.hosts]
    return exact or _longest_prefix(backends, host)


def default_route(backends: Sequence[Pickable], host: str) -> Iterable[Pickable]:
    return [backend for backend in backends if backend.identifiers.is_default_route]


def _longest_prefix(backends: Sequence[Pickable], host: str) -> list[Pickable]:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    best, found = -1, list[Pickable]()
    for backend in backends:
        for network in backend.identifiers.networks:
            if address.version != network.version or address not in network or network.prefixlen < best:
                continue
            if network.prefixlen > best:
                best, found = network.prefixlen, []
            found.append(backend)
    return found


STRATEGIES: dict[str, Strategy] = {
    "default": all_agents,
    "destHost": destination_host,
    "defaultRoute": default_route,
}


B = TypeVar("B", bound=Pickable)


class Backends(Generic[B]):
    """All links, oldest first, and the strategies in the order of the flag."""

    def __init__(self, strategies: Sequence[str], source: random.Random) -> None:
        unknown = [name for name in strategies if name not in STRATEGIES]
        if unknown or not strategies:
            names = ",".join(unknown) or "nothing"
            raise BadConfiguration(f"--proxy-strategies: unknown {names}; known are {', '.join(STRATEGIES)}")
        self.strategies = list(strategies)
        self._source = source
        self._links: list[B] = []

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[B]:
        return iter(list(self._links))

    def add(self, link: B) -> None:
        self._links.append(link)

    def remove(self, link: B) -> None:
        if link in self._links:
            self._links.remove(link)

    def ready(self, strategy: str) -> int:
        """How many agents a strategy could ever choose."""
        if strategy == "destHost":
            return sum(1 for link in self._links if link.identifiers.hosts or link.identifiers.networks)
        return sum(1 for _ in STRATEGIES[strategy](self._links, ""))

    def pick(self, host: str, without: Collection[B] = ()) -> B:
        """The agent that should reach `host`. Raises NoTunnel."""
        newest = {link.agent_id: link for link in self._links if link not in without}
        candidates = list(newest.values())
        for name in self.strategies:
            found = list(STRATEGIES[name](candidates, host))
            for rank in (
                [link for link in found if not link.is_draining and not link.is_silent],
                [link for link in found if not link.is_draining],
                found,
            ):
                if rank:
                    return self._less_loaded(rank)  # type: ignore[arg-type]
        raise NoTunnel(host, VIA, "No agent available")

    def _less_loaded(self, links: list[B]) -> B:
        if len(links) == 1:
            return links[0]
        return min(self._source.sample(links, 2), key=lambda link: link.load)
