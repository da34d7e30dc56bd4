"""What a cluster contains before anybody asks for it.

My job: write the system's objects once the server runs: namespaces, priority classes, RBAC defaults, the
`kubernetes` Service and its endpoints, the bootstrap token (upstream's post-start hooks). Idempotent: what is there
stays as it is. I own nothing; `server` runs me and `/readyz` waits for me.
"""

import asyncio
import base64
import contextlib
import logging
from collections.abc import Iterable
from typing import Any

from miniapiserver import apiservices, flowschemas
from miniapiserver.apiserver import APIServer
from miniapiserver.authentication import published
from miniapiserver.authentication.interface import AUTHENTICATED, MASTERS, UserInfo
from miniapiserver.authorization import bootstrap_policy, own_roles
from miniapiserver.errors import AlreadyExists
from miniapiserver.registry import creation, update
from miniapiserver.registry.allocation import ServiceAllocator
from miniapiserver.registry.call import Call
from miniapiserver.registry.options import WriteOptions
from miniapiserver.schema import types

JSON = dict[str, Any]

log = logging.getLogger("bootstrap")

#: Who the server is when it writes for itself.
SERVER = UserInfo("system:apiserver", groups=(MASTERS, AUTHENTICATED))
NAMESPACES = ("kube-system", "kube-public", "kube-node-lease", "default")
PRIORITY_CLASSES = (("system-node-critical", 2000001000,
                     "Used for system critical pods that must not be moved from their current node."),
                    ("system-cluster-critical", 2000000000,
                     "Used for system critical pods that must run in the cluster, but can be moved to another node if "
                     "necessary."))
KUBERNETES_LABELS = {"component": "apiserver", "provider": "kubernetes"}


class Bootstrap:
    """Runs once, before the server listens."""

    def __init__(self, server: APIServer, services: ServiceAllocator) -> None:
        self._server, self._services = server, services
        self.done = False

    async def run(self) -> None:
        for storage in ("namespaces", "ipaddresses.networking.k8s.io"):
            await self._server.registry.ready_storage(storage)
        for name in NAMESPACES:
            await self.ensure("namespaces", {"metadata": {"name": name}})
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rbac(), name="bootstrap rbac")
            group.create_task(self._priority_classes(), name="bootstrap priority classes")
            group.create_task(self._flow_schemas(), name="bootstrap flow schemas")
            group.create_task(self._api_services(), name="bootstrap API services")
            group.create_task(self._kubernetes_service(), name="bootstrap kubernetes service")
            group.create_task(self._bootstrap_token(), name="bootstrap token")
            group.create_task(self._put("configmaps", published.config_map(self._server.config)),
                              name="bootstrap authentication config map")
        self.done = True
        log.info("bootstrap.done")

    async def ensure(self, storage: str, obj: JSON) -> None:
        """Create `obj` unless its name is taken."""
        server = self._server
        store = server.registry.store_of(storage)
        await server.registry.ready(store.row)
        row = store.row
        namespace = obj["metadata"].get("namespace", "")
        if store.find(namespace, obj["metadata"]["name"]) is not None:
            return
        whole = {"kind": row.kind, "apiVersion": row.api_version} | obj
        with contextlib.suppress(AlreadyExists):
            await creation.create(store, types.find(row.type_name), whole, self._call(), server.registry.allocator(row))

    def _call(self) -> Call:
        return Call(SERVER, WriteOptions(False, "kube-apiserver", "Ignore", None), self._server.admission,
                    self._server.clock)

    async def _rbac(self) -> None:
        """Missing defaults are created; missing rules and subjects of existing ones are put back."""
        for defaults in (bootstrap_policy.objects(), own_roles.objects()):
            for storage, objects in defaults.items():
                await self._server.registry.ready_storage(storage)
                await self._reconcile(storage, objects)

    async def _reconcile(self, storage: str, objects: Iterable[JSON]) -> None:
        store = self._server.registry.store_of(storage)
        async with asyncio.TaskGroup() as group:
            for wanted in objects:
                metadata = wanted["metadata"]
                found = store.find(metadata.get("namespace", ""), metadata["name"])
                if found is None:
                    group.create_task(self.ensure(storage, wanted), name=f"bootstrap {metadata['name']}")
                    continue
                merged = bootstrap_policy.reconcile(found.decode(), wanted)
                if merged is not None:
                    group.create_task(self._replace(storage, merged), name=f"reconcile {metadata['name']}")

    async def _replace(self, storage: str, obj: JSON) -> None:
        store = self._server.registry.store_of(storage)
        metadata = obj["metadata"]
        await update.replace_raw(store, metadata.get("namespace", ""), metadata["name"], lambda current: obj)

    async def _priority_classes(self) -> None:
        for name, value, description in PRIORITY_CLASSES:
            await self.ensure("priorityclasses.scheduling.k8s.io", {
                "metadata": {"name": name}, "value": value, "description": description,
                "preemptionPolicy": "PreemptLowerPriority"})

    async def _flow_schemas(self) -> None:
        now = self._server.clock.rfc3339()
        await self._ensure_raw(flowschemas.PRIORITY_LEVELS, flowschemas.priority_levels())
        await self._ensure_raw(flowschemas.FLOW_SCHEMAS, flowschemas.flow_schemas(now))

    async def _api_services(self) -> None:
        server = self._server
        served = dict.fromkeys((row.group, row.version) for row in server.table.rows())
        await self._ensure_raw(apiservices.STORAGE, apiservices.local(served, server.clock.rfc3339()))

    async def _ensure_raw(self, storage: str, objects: Iterable[JSON]) -> None:
        """Objects whose status is the server's, too: written whole, and only where none is."""
        await self._server.registry.ready_storage(storage)
        store = self._server.registry.store_of(storage)
        for obj in objects:
            if store.find("", obj["metadata"]["name"]) is None:
                with contextlib.suppress(AlreadyExists):
                    await creation.create_raw(store, obj, self._server.clock)

    async def _kubernetes_service(self) -> None:
        """The Service every pod finds the API by, and who answers it (`pkg/controlplane/reconcilers`)."""
        config, address = self._server.config, self._server.config.external_address
        port = {"name": "https", "port": config.secure_port, "protocol": "TCP"}
        await self._ensure_raw("servicecidrs.networking.k8s.io", [{
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": [config.service_cluster_ip_range]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
                                       "lastTransitionTime": self._server.clock.rfc3339(),
                                       "message": "Kubernetes default Service CIDR is ready"}]}}])
        await self.ensure("services", {
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": KUBERNETES_LABELS},
            "spec": {"type": "ClusterIP", "clusterIP": self._services.first_address,
                     "clusterIPs": [self._services.first_address], "sessionAffinity": "None",
                     "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.secure_port}]}})
        await self._put("endpoints", {
            "metadata": {"name": "kubernetes", "namespace": "default",
                         "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": address}], "ports": [port]}]})
        await self._put("endpointslices.discovery.k8s.io", {
            "metadata": {"name": "kubernetes", "namespace": "default", "generation": 1,
                         "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4", "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [port]})

    async def _put(self, storage: str, obj: JSON) -> None:
        """`obj` as it should be now, also when an earlier run wrote another address. Not validated: an API server on
        loopback is what the local profile has, and what no client may claim."""
        await self._server.registry.ready_storage(storage)
        content = {key: value for key, value in obj.items() if key != "metadata"}
        store, metadata = self._server.registry.store_of(storage), obj["metadata"]
        with contextlib.suppress(AlreadyExists):
            await creation.create_raw(store, obj, self._server.clock)
        await update.replace_raw(store, metadata["namespace"], metadata["name"], lambda current: current | content)

    async def _bootstrap_token(self) -> None:
        """The token of `bootstrap-kubelet.conf`, as the Secret that vouches for it."""
        path = self._server.config.bootstrap_token_file
        if path is None:
            return
        token_id, _, token_secret = path.read_text().strip().partition(".")
        data = {"token-id": token_id, "token-secret": token_secret, "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
                "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
                "description": "made when the cluster was brought up"}
        await self.ensure("secrets", {
            "metadata": {"name": f"bootstrap-token-{token_id}", "namespace": "kube-system"},
            "type": "bootstrap.kubernetes.io/token",
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}})
