"""Which endpoint a connection goes to: at random, or where its client went before.

My job: the order in which endpoints are tried, and the memory of clients for `sessionAffinity: ClientIP`. Pure but
for the chance that is handed in; time is an argument. Neighbours: `userspace` asks. Rule: the memory is bounded; the
client that was away longest is forgotten first.
"""

import random
from collections import OrderedDict
from collections.abc import Iterator

from minikubelet.serviceproxy.frontends import Frontend
from minikubelet.serviceproxy.serviceports import Endpoint, ServicePortName

REMEMBERED = 10_000

Client = tuple[ServicePortName, str]


class Balancer:
    """Lives as long as the proxy."""

    def __init__(self, chance: random.Random, remembered: int = REMEMBERED) -> None:
        self._chance, self._limit = chance, remembered
        self._last: OrderedDict[Client, tuple[tuple[str, int], float]] = OrderedDict()

    def order(self, frontend: Frontend, client: str, now: float) -> Iterator[Endpoint]:
        """The endpoints, each once: the one that client used, if it still counts, then the others at random."""
        endpoints = list(frontend.endpoints)
        before = self._before(frontend, client, now)
        for index, endpoint in enumerate(endpoints):
            if (endpoint.address, endpoint.port) == before:
                yield endpoints.pop(index)
                break
        while endpoints:  # drawn one by one: mostly the first one answers
            yield endpoints.pop(self._chance.randrange(len(endpoints)))

    def _before(self, frontend: Frontend, client: str, now: float) -> tuple[str, int] | None:
        known = self._last.get((frontend.service, client)) if frontend.affinity_seconds else None
        if known is None or now - known[1] >= (frontend.affinity_seconds or 0):
            return None
        return known[0]

    def used(self, frontend: Frontend, client: str, endpoint: Endpoint, now: float) -> None:
        """A connection was made. Each one renews the client's time, as upstream's rules do."""
        if not frontend.affinity_seconds:
            return
        key = (frontend.service, client)
        self._last[key] = ((endpoint.address, endpoint.port), now)
        self._last.move_to_end(key)
        if len(self._last) > self._limit:
            self._last.popitem(last=False)

    def forget_others(self, services: set[ServicePortName]) -> None:
        """Services that are gone, or come back under an old name, start anew."""
        for key in [key for key in self._last if key[0] not in services]:
            del self._last[key]
