"""This server's Lease: how agents count servers.

Job: write and renew `konnectivity-proxy-server-<id>`, remove it at the end, and sweep leases of servers that died.
Neighbours: `wire.apiclient`; agents read the leases (`konnectivity.leases`). Rule: an API server that does not answer
is retried; it never stops the proxy.
"""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime

from konnectivity.leasecalls import timed
from konnectivity.leases import DURATION, is_valid, micro_time
from konnectivity.server.metrics import Metrics
from wire.apiclient import APIError, Client, NotFound
from wire.errors import WireError

RENEW_INTERVAL = 15.0
NAME = "konnectivity-proxy-server-"

_log = logging.getLogger("konnectivity.lease")


class LeaseKeeper:
    """Lives as long as the server's task group."""

    def __init__(self, client: Client, server_id: str, namespace: str, label: str, metrics: Metrics) -> None:
        self._client = client
        self._server_id = server_id
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{NAME}{server_id}"
        self._namespace = namespace
        self._label = label
        self._metrics = metrics

    async def run(self) -> None:
        try:
            while True:
                for step in (self.renew, self.sweep):
                    try:
                        await step()
                    except (APIError, WireError, OSError, TimeoutError) as error:
                        _log.warning("lease.failed step=%s reason=%r", step.__name__, str(error))
                await asyncio.sleep(RENEW_INTERVAL)
        finally:
            with contextlib.suppress(APIError, WireError, OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._client.delete(self._path)

    async def renew(self) -> None:
        now = micro_time(datetime.now(UTC))
        try:
            lease = await self._client.get(self._path)
        except NotFound:
            await self._client.create(self._collection, self._new_lease(now))
            return
        lease["spec"] = {**lease.get("spec", {}), "renewTime": now, "leaseDurationSeconds": DURATION}
        await self._client.update(self._path, lease)

    async def sweep(self) -> None:
        with timed(self._metrics.lease_lists, self._metrics.lease_list_seconds):
            found = await self._client.list(self._collection, labelSelector=self._label)
        now = datetime.now(UTC)
        for lease in found.get("items") or []:
            name = lease["metadata"]["name"]
            if name.startswith(NAME) and not is_valid(lease, now):
                with (
                    contextlib.suppress(NotFound),  # another server swept it
                    timed(self._metrics.lease_deletes, self._metrics.lease_delete_seconds),
                ):
                    await self._client.delete(f"{self._collection}/{name}")
                    self._metrics.leases_culled.add()

    def _new_lease(self, now: str) -> dict[str, object]:
        key, _, value = self._label.partition("=")
        return {
            "kind": "Lease",
            "apiVersion": "coordination.k8s.io/v1",
            "metadata": {
                "name": f"{NAME}{self._server_id}",
                "namespace": self._namespace,
                "labels": {key: value},
            },
            "spec": {
                "holderIdentity": self._server_id,
                "leaseDurationSeconds": DURATION,
                "acquireTime": now,
                "renewTime": now,
            },
        }
