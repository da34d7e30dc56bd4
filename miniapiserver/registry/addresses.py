"""IPAddress objects: who holds which cluster IP.

My job: the AddressHolder of `allocation`, on the registry. The object's name is the address, so creating it is
taking it.
"""

import contextlib

from miniapiserver.errors import AlreadyExists, NotFound
from miniapiserver.registry.clock import Clock
from miniapiserver.registry.creation import create_raw
from miniapiserver.registry.registry import Registry
from miniapiserver.registry.store import StaleWrite

STORAGE = "ipaddresses.networking.k8s.io"


class IPAddresses:
    """Lives as long as the server."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry, self._clock = registry, clock

    def check(self, address: str) -> None:
        """Whether `hold` would do; loaded since the server's start. Raises AlreadyExists."""
        if self._registry.store_of(STORAGE).find("", address) is not None:
            raise AlreadyExists.resource("ipaddresses", "networking.k8s.io", address)

    async def hold(self, address: str, namespace: str, name: str) -> None:
        """Raises AlreadyExists."""
        await self._registry.ready_storage(STORAGE)
        labels = {"ipaddress.kubernetes.io/ip-family": "IPv6" if ":" in address else "IPv4",
                  "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}
        await create_raw(self._registry.store_of(STORAGE), {
            "metadata": {"name": address, "labels": labels},
            "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
        }, self._clock)

    async def drop(self, address: str) -> None:
        await self._registry.ready_storage(STORAGE)
        store = self._registry.store_of(STORAGE)
        with contextlib.suppress(NotFound, StaleWrite):
            await store.remove(store.get("", address))
