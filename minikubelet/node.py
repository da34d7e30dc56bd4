"""This node at the API server: registered, its status current, its heartbeat beating.

My job: POST the Node (or take over one that is there), PATCH its status on change and every five minutes, renew its
Lease. I own these three loops and the informer of the own Node. Neighbours: `nodestatus` says what to send; `pods`
ask me for labels, taints and allocatable. Rule: a node that cannot be told of is tried again for ever, faster at
first.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minikubelet import machine as machines
from minikubelet import nodestatus
from minikubelet.clock import Clock, rfc3339, rfc3339_micro, wait_until
from minikubelet.config import Config
from minikubelet.logline import kv
from minikubelet.runtime.interface import Capabilities
from wire.apiclient import STRATEGIC, AlreadyExists, APIError, Client, Conflict, Forbidden, NotFound, resource_path
from wire.errors import WireError
from wire.informer import Informer

JSON = dict[str, Any]

FIRST_RETRY, LAST_RETRY = 0.1, 7.0
QUICK_SECONDS = 10.0
"""While a cluster comes up its parts start in any order; a node should not be the one that is waited for."""
LEASE_NAMESPACE = "kube-node-lease"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the node's status is made of besides configuration, asked anew for each report."""

    capabilities: Capabilities
    images: Callable[[], Sequence[JSON]]
    not_ready: Callable[[], str]
    port: int


class Node:
    """The own Node. `run` keeps it; `registered` is set once the API server knows it. Lives as long as the kubelet."""

    def __init__(self, config: Config, client: Client, clock: Clock, facts: NodeFacts) -> None:
        self._config, self._client, self._clock, self._facts = config, client, clock, facts
        self._machine = machines.inspect(config.root_dir)
        self._path = resource_path("", "v1", "nodes", None, config.node_name)
        self.informer = Informer(client, resource_path("", "v1", "nodes"),
                                 fieldSelector=f"metadata.name={config.node_name}")
        self.registered = asyncio.Event()
        self._uid = ""
        self._reported: JSON = {}
        self._changed = asyncio.Event()

    @property
    def current(self) -> JSON:
        """The Node as the API server has it; before it answered, as we are about to register it."""
        known = self.informer.get("", self._config.node_name)
        return known or nodestatus.node_object(self._config, self._machine, self._reported or self._status())

    @property
    def allocatable(self) -> dict[str, str]:
        return nodestatus.allocatable(self._config, self._machine)

    @property
    def machine(self) -> machines.Machine:
        return self._machine

    def changed(self) -> None:
        """Something the status shows is different now: report without waiting for the next round."""
        self._changed.set()

    async def run(self) -> None:
        if self._config.kubelet.register_node:
            await self._register()
        self.registered.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.informer.run(), name="node informer")
            tasks.create_task(self._report(), name="node status")
            tasks.create_task(self._beat(), name="node lease")

    # Registration

    async def _register(self) -> None:
        delay, quick_until = FIRST_RETRY, self._clock.monotonic() + QUICK_SECONDS
        while True:
            try:
                await self._register_once()
                return
            except (APIError, WireError) as error:
                level = logging.DEBUG if delay == FIRST_RETRY else logging.WARNING
                log.log(level, "node.register.retry %s", kv(name=self._config.node_name, error=error))
            await self._clock.sleep(delay)
            if self._clock.monotonic() > quick_until:
                delay = min(delay * 2, LAST_RETRY)

    async def _register_once(self) -> None:
        status = self._status()
        wanted = nodestatus.node_object(self._config, self._machine, status)
        try:
            created = await self._client.create(resource_path("", "v1", "nodes"), wanted)
        except (AlreadyExists, Forbidden):
            # Forbidden: NodeRestriction refuses to create a node that is there in another's name; upstream looks, too.
            await self._take_over(wanted)
            return
        self._uid, self._reported = created["metadata"]["uid"], status
        log.info("node.registered %s", kv(name=self._config.node_name, ip=self._config.node_ip))

    async def _take_over(self, wanted: JSON) -> None:
        """The Node of an earlier run: keep what others put there, lay our labels over it, report our status."""
        known = await self._client.get(self._path)
        self._uid = known["metadata"]["uid"]
        meta = known["metadata"]
        changes: JSON = {key: {name: value for name, value in wanted["metadata"][key].items()
                               if (meta.get(key) or {}).get(name) != value} for key in ("labels", "annotations")}
        patch: JSON = {"metadata": {key: value for key, value in changes.items() if value}}
        if wanted["spec"].get("podCIDR") and not (known.get("spec") or {}).get("podCIDR"):
            patch["spec"] = {key: wanted["spec"][key] for key in ("podCIDR", "podCIDRs")}
        if patch["metadata"] or "spec" in patch:
            await self._client.patch(self._path, patch, content_type=STRATEGIC)
        self._reported = known.get("status") or {}
        await self._patch_status(self._status())
        log.info("node.resumed %s", kv(name=self._config.node_name, ip=self._config.node_ip))

    # Status

    def _status(self) -> JSON:
        conditions = nodestatus.conditions(
            machines.pressure(self._config.root_dir), self._facts.capabilities, self._facts.not_ready(),
            self._reported.get("conditions") or (), rfc3339(self._clock.now()))
        return nodestatus.node_status(self._config, self._machine, conditions, self._facts.images(), self._facts.port)

    async def _report(self) -> None:
        kubelet = self._config.kubelet
        reported_at = self._clock.monotonic()
        while True:
            await self._next_round(kubelet.node_status_update_frequency)
            status = self._status()
            due = self._clock.monotonic() - reported_at >= kubelet.node_status_report_frequency
            if not due and nodestatus.same_but_heartbeat(status, self._reported):
                continue
            try:
                await self._patch_status(status)
                reported_at = self._clock.monotonic()
            except NotFound:
                await self._register()
            except (APIError, WireError) as error:
                log.warning("node.status.retry %s", kv(error=error))

    async def _next_round(self, seconds: float) -> None:
        await wait_until(self._changed, self._clock, seconds)
        self._changed.clear()

    async def _patch_status(self, status: JSON) -> None:
        answer = await self._client.patch(f"{self._path}/status", {"status": status}, content_type=STRATEGIC)
        self._uid, self._reported = answer["metadata"]["uid"], status

    # Lease

    async def _beat(self) -> None:
        """Renew at a quarter of the lease's duration, as upstream."""
        interval = self._config.kubelet.node_lease_duration_seconds * 0.25
        known: JSON | None = None
        while True:
            try:
                known = await self._renew(known)
                pause = interval
            except (APIError, WireError) as error:
                log.debug("lease.retry %s", kv(error=error))
                known, pause = None, min(interval, 1.0)
            await self._clock.sleep(pause)

    async def _renew(self, known: JSON | None) -> JSON:
        name = self._config.node_name
        path = resource_path("coordination.k8s.io", "v1", "leases", LEASE_NAMESPACE)
        renewed = {"holderIdentity": name, "leaseDurationSeconds": self._config.kubelet.node_lease_duration_seconds,
                   "renewTime": rfc3339_micro(self._clock.now())}
        if known is None:
            try:
                known = await self._client.get(f"{path}/{name}")
            except NotFound:
                owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self._uid}
                return await self._client.create(path, {
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": renewed,
                    "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]}})
        lease = known | {"spec": (known.get("spec") or {}) | renewed}
        try:
            return await self._client.update(f"{path}/{name}", lease)
        except Conflict:
            fresh = await self._client.get(f"{path}/{name}")
            return await self._client.update(f"{path}/{name}", fresh | {"spec": (fresh.get("spec") or {}) | renewed})
