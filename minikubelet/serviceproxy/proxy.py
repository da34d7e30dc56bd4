"""The node's service proxy put together.

My job: watch Services and EndpointSlices, and bring what they say into force: as listening sockets or as an nftables
ruleset. I own the watch of slices, the lead over this machine's VIPs, and the health ports. Neighbours: the kubelet
runs me beside its other parts. Rule: whatever changes while a round runs is the next round's; nothing is lost.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minikubelet.clock import Clock
from minikubelet.logline import kv
from minikubelet.serviceproxy import netfilter, nftables
from minikubelet.serviceproxy.affinity import Balancer
from minikubelet.serviceproxy.frontends import Address, frontends, unserved
from minikubelet.serviceproxy.health import Health, HealthDoor
from minikubelet.serviceproxy.leadership import Leader, Member, lead
from minikubelet.serviceproxy.reachable import REFUSED
from minikubelet.serviceproxy.serviceports import SLICE_SELECTOR, ServicePort, service_ports
from minikubelet.serviceproxy.settings import Mode, ProxySettings
from minikubelet.serviceproxy.userspace import Figures, UserspaceProxy
from minikubelet.version import KUBELET_VERSION
from wire.apiclient import APIError, Client, Forbidden, resource_path
from wire.connections import Ledger
from wire.errors import WireError
from wire.http import HTTPServer
from wire.informer import Informer
from wire.kubeconfig import Access
from wire.net import join_host_port

JSON = dict[str, Any]

USER_AGENT = f"kube-proxy/{KUBELET_VERSION}"
AT_MOST_EVERY = 0.05
"""Between two rounds: pods of a deployment come ready one by one, and one round serves many."""
REST = 9.0
"""Times the last round's length: with thousands of services, rounds never take more than a tenth of the kubelet."""
RETRY = 3.0
ZONE_LABEL = "topology.kubernetes.io/zone"

SLICES = resource_path("discovery.k8s.io", "v1", "endpointslices")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the proxy takes from its kubelet."""

    member: Member
    client: Client
    services: Informer
    node: Callable[[], JSON]
    clock: Clock
    pod_cidr: str = ""
    ledger: Ledger | None = None
    report: Callable[[str], None] = lambda why: None
    """Say on the node that something cannot be served."""


class ServiceProxy:
    """Lives as long as the kubelet."""

    def __init__(self, settings: ProxySettings, around: Surroundings) -> None:
        self._settings, self._around = settings, around
        self._health = Health()
        self._changed = asyncio.Event()
        self._userspace: UserspaceProxy | None = None
        self._said: set[object] = set()
        around.services.subscribe(lambda *_: self._touch())

    async def run(self) -> None:
        """Until cancelled."""
        if self._settings.mode is Mode.NONE:
            return
        async with AsyncExitStack() as stack:
            await self._open_doors(stack)
            # Only the leader watches: the others need no memory for a copy of every endpoint.
            scope = cluster_scope(self._around.client.access)
            leader = await stack.enter_async_context(
                lead(scope, self._around.member, self._around.clock, self._may_lead))
            leader.changed = self._touch
            slices = Informer(await self._identity(stack), SLICES, labelSelector=SLICE_SELECTOR)
            slices.subscribe(lambda *_: self._touch())
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(slices.run(), name="endpointslices")
                await self._around.services.synced.wait()
                await slices.synced.wait()
                self._touch()
                if self._settings.mode is Mode.NFTABLES:
                    await self._run_nftables(leader, slices)
                else:
                    await self._run_userspace(leader, slices)

    async def _identity(self, stack: AsyncExitStack) -> Client:
        """The Node authorizer lets no kubelet list EndpointSlices; `system:node-proxier` is another user's role."""
        if self._settings.kubeconfig is None:
            return self._around.client
        return await stack.enter_async_context(
            Client.from_kubeconfig(self._settings.kubeconfig, USER_AGENT, self._around.ledger))

    async def _may_lead(self) -> bool:
        """Whether the identity we have will do. One of our own was made for this; the kubelet's needs a binding."""
        if self._settings.kubeconfig is not None:
            return True
        try:
            await self._around.client.list(SLICES, labelSelector=SLICE_SELECTOR, limit=1)
        except Forbidden as error:
            self._say("identity", f"the service proxy has no --proxy-kubeconfig and leaves services to others: "
                                  f"{error.message}")
        except (APIError, WireError) as error:
            log.debug("identity.unknown %s", kv(error=error))
        else:
            return True
        return False

    async def _open_doors(self, stack: AsyncExitStack) -> None:
        door = HealthDoor(self._health, self._settings.mode.value, self._around.node,
                          lambda: self._userspace.figures if self._userspace else Figures(),
                          lambda: len(self._userspace.listening) if self._userspace else 0)
        for name, where, handler in (("healthz", self._settings.healthz, door.healthz),
                                     ("metrics", self._settings.metrics, door.metrics)):
            if where is None:
                continue
            server = await stack.enter_async_context(HTTPServer(handler))
            try:
                port = await server.listen(*where)
            except OSError as error:
                # Services are more than their health port.
                log.warning("%s.refused %s", name, kv(address=join_host_port(*where), error=error.strerror))
            else:
                log.info("%s.listening %s", name, kv(address=where[0], port=port))

    def _touch(self) -> None:
        self._health.queue(time.time())
        self._changed.set()

    # Rounds

    async def _next(self, retry: bool) -> None:
        """Until something changed, or it is time to try again what failed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY if retry else None):
                await self._changed.wait()
        self._changed.clear()

    def _ports(self, slices: Informer) -> list[ServicePort]:
        return service_ports(self._around.services.objects.values(), slices.objects.values())

    @property
    def _zone(self) -> str:
        labels = (self._around.node().get("metadata") or {}).get("labels") or {}
        return str(labels.get(ZONE_LABEL) or "")

    def _applied(self, started: float) -> float:
        """How long the round took."""
        spent = self._around.clock.monotonic() - started
        self._health.applied(time.time(), spent)
        return spent

    async def _rest(self, spent: float) -> None:
        await self._around.clock.sleep(max(AT_MOST_EVERY, spent * REST))

    async def _run_userspace(self, leader: Leader, slices: Informer) -> None:
        balancer = Balancer(random.Random())
        async with UserspaceProxy(balancer, self._around.clock, self._around.ledger) as proxy:
            self._userspace = proxy
            retry = False
            while True:
                await self._next(retry)
                started = self._around.clock.monotonic()
                ports = self._ports(slices)
                failed = proxy.apply(frontends(ports, leader.nodes, self._zone))
                balancer.forget_others({port.name for port in ports})
                self._tell_failed(failed)
                self._tell_unserved(ports)
                retry = any(error.errno not in REFUSED for error in failed.values())
                await self._rest(self._applied(started))

    async def _run_nftables(self, leader: Leader, slices: Informer) -> None:
        """The rules stay when we end: the services of this node shall outlive a restart of its kubelet."""
        before: dict[str, nftables.Ruleset] = {}
        retry = False
        while True:
            await self._next(retry)
            started = self._around.clock.monotonic()
            place = nftables.Place(leader.nodes, self._around.pod_cidr, self._zone)
            rules = nftables.families(self._ports(slices), place, before)
            try:
                await netfilter.apply("".join(nftables.text(new, before.get(new.family)) for new in rules))
            except netfilter.NetfilterError as error:
                # Somebody else may have changed the table: begin with a clean one.
                before, retry = {}, True
                log.debug("nftables.refused %s", kv(error=error))
                self._say("nftables", f"nftables: {str(error).splitlines()[0]}")
            else:
                before, retry = {new.family: new for new in rules}, False
                self._applied(started)
            await self._rest(self._around.clock.monotonic() - started)

    # What cannot be served is said once

    def _tell_failed(self, failed: dict[Address, OSError]) -> None:
        for address, error in failed.items():
            if (address, error.errno) not in self._said:
                log.warning("vip.refused %s", kv(address=join_host_port(*address), error=error.strerror))
            self._said.add((address, error.errno))
            if error.errno in REFUSED:
                self._say(error.errno, f"service address {join_host_port(*address)} cannot be listened on: "
                                       f"{error.strerror}")

    def _tell_unserved(self, ports: list[ServicePort]) -> None:
        for port in unserved(ports):
            if (port.name, port.protocol) not in self._said:
                self._said.add((port.name, port.protocol))
                log.warning("service.partly %s", kv(service=port.name, protocol=port.protocol, why=(
                    "the user-space proxy serves TCP on cluster IPs and node ports, nftables the rest")))

    def _say(self, key: object, why: str) -> None:
        if key not in self._said:
            self._said.add(key)
            log.warning("service.unserved %s", kv(why=why))
            self._around.report(why)


def cluster_scope(access: Access) -> str:
    """The same for every node of a cluster, whatever name it calls the API server by: the cluster's CA."""
    if access.ca_data:
        known = access.ca_data.encode()
    elif access.ca_file:
        known = Path(access.ca_file).read_bytes()
    else:
        known = f"{access.host}:{access.port}".encode()
    return hashlib.sha256(known.strip()).hexdigest()[:32]
