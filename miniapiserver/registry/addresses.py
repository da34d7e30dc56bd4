"""IPAddress objects: who holds which cluster IP.

My job: the AddressHolder of `allocation`, on the registry. The object's name is the address, so creating it is taking it.
"""

import contextlib
from collections.abc import Callable

from miniapiserver.errors import NotFound
from miniapiserver.registry.clock import Clock
from miniapiserver.registry.registry import Registry
from miniapiserver.registry.store import StaleWrite

STORAGE = "ipaddresses.networking.k8s.io"


class IPAddresses:
    """Lives as long as the server."""

    def __init__(self, registry: Registry, clock: Clock, new_uid: Callable[[], str]) -> None:
        self._registry, self._clock, self._new_uid = registry, clock, new_uid

    async def hold(self, address: str, namespace: str, name: str) -> None:
        """Raises AlreadyExists."""
        await self._registry.ready_storage(STORAGE)
        labels = {"ipaddress.kubernetes.io/ip-family": "IPv6" if ":" in address else "IPv4",
                  "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}
        await self._registry.store_of(STORAGE).create({
            "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
            "metadata": {"name": address, "uid": self._new_uid(), "creationTimestamp": self._clock.rfc3339(),
                         "labels": labels},
            "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}}})

    async def drop(self, address: str) -> None:
        await self._registry.ready_storage(STORAGE)
        store = self._registry.store_of(STORAGE)
        with contextlib.suppress(NotFound, StaleWrite):
            await store.remove(store.get("", address))
