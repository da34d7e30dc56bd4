"""Cluster IPs and node ports: what a Service is given beside what it says.

My job: allocate before a Service is written, give back when the write fails or the Service goes. A cluster IP is held
by an IPAddress object named after it, as upstream's `ipallocator` does, so that two API servers can never hand out
one address twice; node ports are held by the Services themselves. `creation`, `update` and `deletion` call me.
"""

import asyncio
import contextlib
import ipaddress
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from miniapiserver.errors import AlreadyExists, FieldError, InternalError, Invalid, invalid, quote
from miniapiserver.registry.objects import Objects

JSON = dict[str, Any]

#: Seconds a client that left is outlived by its writes.
UNBROKEN_TIMEOUT = 5.0
RANDOM_ATTEMPTS = 64
TYPES_WITH_CLUSTER_IP = ("ClusterIP", "NodePort", "LoadBalancer", None, "")
TYPES_WITH_NODE_PORTS = ("NodePort", "LoadBalancer")


T = TypeVar("T")


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Do several writes that belong together to their end, also when the client leaves in between; then its
    cancellation goes on. Without it a Service could exist whose address was given back."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task in (await asyncio.wait([task], timeout=UNBROKEN_TIMEOUT))[1]:
            task.cancel()  # the storage does not answer; what it will do is unknown either way
        raise


class Allocator(Protocol):
    """`allocates` is False when there is nothing to do: then a write is one step and needs no protection."""

    allocates: bool

    def allocation(self, obj: JSON, old: JSON | None, *, dry_run: bool) -> AbstractAsyncContextManager[None]:
        """Fill in what `obj` needs; what was taken is given back if the body raises or `dry_run` is set."""
        ...

    async def release(self, obj: JSON) -> None:
        """`obj` is gone: give back what it held."""
        ...


class NoAllocation:
    """For the kinds that need nothing."""

    allocates = False

    @contextlib.asynccontextmanager
    async def allocation(self, obj: JSON, old: JSON | None, *, dry_run: bool) -> AsyncIterator[None]:
        yield

    async def release(self, obj: JSON) -> None:
        return None


class AddressHolder(Protocol):
    """Writes and removes IPAddress objects. `hold` and `check` raise AlreadyExists."""

    def check(self, address: str) -> None: ...

    async def hold(self, address: str, namespace: str, name: str) -> None: ...

    async def drop(self, address: str) -> None: ...


class ServiceAllocator:
    """`pick(n)` gives a number below n (random outside tests)."""

    allocates = True

    def __init__(self, network: str, node_ports: range, holder: AddressHolder, objects: Objects,
                 pick: Callable[[int], int] = secrets.randbelow) -> None:
        self._network = ipaddress.ip_network(network)
        self._node_ports, self._holder, self._objects, self._pick = node_ports, holder, objects, pick
        self._lock = asyncio.Lock()
        self._pending_ports: set[int] = set()

    @property
    def first_address(self) -> str:
        """The `kubernetes` Service's own."""
        return str(self._network[1])

    @contextlib.asynccontextmanager
    async def allocation(self, obj: JSON, old: JSON | None, *, dry_run: bool) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as undo:
            async with self._lock:
                address = await self._take_address(obj, old, dry_run)
                if address and not dry_run:
                    undo.push_async_callback(self._holder.drop, address)
                ports = self._take_ports(obj, old)
                self._pending_ports.update(ports)
                undo.callback(self._pending_ports.difference_update, ports)
            yield
            if not dry_run:
                undo.pop_all()
                self._pending_ports.difference_update(ports)
        if old is not None and not dry_run:
            await self._give_back(old, obj)

    async def release(self, obj: JSON) -> None:
        address = obj.get("spec", {}).get("clusterIP")
        if address and address != "None":
            await self._holder.drop(address)

    async def _give_back(self, old: JSON, new: JSON) -> None:
        before, after = old.get("spec", {}).get("clusterIP"), new.get("spec", {}).get("clusterIP")
        if before and before != "None" and before != after:
            await self._holder.drop(before)

    async def _take_address(self, obj: JSON, old: JSON | None, dry_run: bool) -> str:
        """The newly held address, "" when none was needed. A dry run looks and holds nothing."""
        spec = obj["spec"]
        if spec.get("type") not in TYPES_WITH_CLUSTER_IP or spec.get("clusterIP") == "None":
            return ""
        if old is not None and spec.get("clusterIP") and spec["clusterIP"] == old.get("spec", {}).get("clusterIP"):
            return ""
        asked = spec.get("clusterIP")
        address = await self._hold_asked(obj, asked, dry_run) if asked else await self._hold_any(obj, dry_run)
        spec["clusterIP"], spec["clusterIPs"] = address, [address]
        return address

    async def _hold_asked(self, obj: JSON, asked: str, dry_run: bool) -> str:
        problem = ""
        if ipaddress.ip_address(asked) not in self._network:
            problem = (f"the provided IP ({asked}) is not in the valid range. "
                       f"The range of valid IPs is {self._network}")
        else:
            try:
                await self._hold(obj, asked, dry_run)
            except AlreadyExists:
                problem = "provided IP is already allocated"
        if problem:
            raise _refused(obj, [FieldError("spec.clusterIPs", "FieldValueInvalid",
                                            f"Invalid value: [{quote(asked)}]: failed to allocate IP {asked}: "
                                            f"{problem}")])
        return asked

    async def _hold_any(self, obj: JSON, dry_run: bool) -> str:
        usable = self._network.num_addresses - 2
        for _ in range(RANDOM_ATTEMPTS):
            address = str(self._network[2 + self._pick(max(usable - 1, 1))])
            with contextlib.suppress(AlreadyExists):
                await self._hold(obj, address, dry_run)
                return address
        for host in self._network.hosts():
            with contextlib.suppress(AlreadyExists):
                await self._hold(obj, str(host), dry_run)
                return str(host)
        raise InternalError.because(f"failed to allocate a serviceIP: range {self._network} is full")

    async def _hold(self, obj: JSON, address: str, dry_run: bool) -> None:
        if dry_run:
            self._holder.check(address)
            return
        metadata = obj["metadata"]
        await self._holder.hold(address, metadata["namespace"], metadata["name"])

    def _take_ports(self, obj: JSON, old: JSON | None) -> set[int]:
        """Ports newly taken for `obj`, written into its spec."""
        spec = obj["spec"]
        if spec.get("type") not in TYPES_WITH_NODE_PORTS:
            return set()
        if spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
            return set()
        own = set() if old is None else _ports_of(old)
        used = self._pending_ports | {port for service in self._objects.list("services") for port in _ports_of(service)}
        taken: set[int] = set()
        for index, port in enumerate(spec.get("ports") or []):
            asked = port.get("nodePort")
            if asked and asked in own | taken:
                continue
            port["nodePort"] = (self._asked_port(obj, index, asked, used) if asked
                                else self._any_port(used | taken | own))
            taken.add(port["nodePort"])
        return taken

    def _asked_port(self, obj: JSON, index: int, asked: int, used: set[int]) -> int:
        if asked not in self._node_ports:
            low, high = self._node_ports[0], self._node_ports[-1]
            raise _refused(obj, [invalid(f"spec.ports[{index}].nodePort", asked, "provided port is not in the valid "
                                         f"range. The range of valid ports is {low}-{high}")])
        if asked in used:
            raise _refused(obj, [invalid(f"spec.ports[{index}].nodePort", asked, "provided port is already allocated")])
        return asked

    def _any_port(self, used: set[int]) -> int:
        for _ in range(RANDOM_ATTEMPTS):
            port = self._node_ports[self._pick(len(self._node_ports))]
            if port not in used:
                return port
        free = next((port for port in self._node_ports if port not in used), None)
        if free is None:
            raise InternalError.because("failed to allocate a nodePort: range is full")
        return free


def _ports_of(service: JSON) -> set[int]:
    spec = service.get("spec") or {}
    ports = {port["nodePort"] for port in spec.get("ports") or [] if port.get("nodePort")}
    return ports | ({spec["healthCheckNodePort"]} if spec.get("healthCheckNodePort") else set())


def _refused(obj: JSON, problems: list[FieldError]) -> Invalid:
    return Invalid.fields("Service", "", obj["metadata"].get("name", ""), problems)
