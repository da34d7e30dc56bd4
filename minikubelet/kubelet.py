"""The kubelet put together: runtime, node, pods, endpoint.

My job: build every part from the configuration, run them beside each other, end them in order. I own all of it for
the length of `serve`. Neighbours: `__main__` calls me. Rule: the endpoint listens before the node is registered, so
that nobody who reads the node's address finds a closed port.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from certs.layout import FilePair
from minikubelet.bootstrap import client_certificate, ensure_identity
from minikubelet.clock import Clock
from minikubelet.config import Config
from minikubelet.events import NORMAL, WARNING, EventRecorder, Involved
from minikubelet.images.store import ImageStore
from minikubelet.logline import kv
from minikubelet.node import Node, NodeFacts
from minikubelet.pods.addresses import PodAddresses
from minikubelet.pods.nodeimages import NodeImages
from minikubelet.pods.podvolumes import volumes_of
from minikubelet.pods.references import References
from minikubelet.pods.staticpods import StaticPods
from minikubelet.pods.surroundings import Surroundings
from minikubelet.pods.tokens import TokenRequests
from minikubelet.pods.workers import PodWorkers
from minikubelet.rotatingcertificate import RotatingCertificate, Wanted
from minikubelet.runtime.interface import Container, Runtime, RuntimeFailure
from minikubelet.runtime.process import ProcessRuntime, homes
from minikubelet.server.authentication import Authenticator
from minikubelet.server.authorization import Authorizer
from minikubelet.server.endpoint import KubeletEndpoint, Served
from minikubelet.server.figures import Figures
from minikubelet.server.health import Health
from minikubelet.serviceproxy.leadership import Member
from minikubelet.serviceproxy.proxy import ServiceProxy
from minikubelet.serviceproxy.proxy import Surroundings as ProxySurroundings
from minikubelet.serviceproxy.reachable import APIServerAddress
from minikubelet.serving import serving_files
from minikubelet.version import USER_AGENT
from wire.apiclient import Client, resource_path
from wire.connections import Ledger
from wire.informer import Informer
from wire.ledgerfeed import serve_ledger
from wire.tls import server_context

LAST_GRACE = 2.0
"""What containers get between TERM and KILL when the kubelet itself ends."""

log = logging.getLogger(__name__)


async def serve(config: Config) -> None:
    """Run until cancelled. Raises OSError or CertsError for what cannot be used."""
    clock = Clock()
    config.root_dir.mkdir(parents=True, exist_ok=True)
    await ensure_identity(config, clock)
    ledger = Ledger()
    async with AsyncExitStack() as stack:
        if config.connections_socket is not None:
            await stack.enter_async_context(serve_ledger(ledger, config.connections_socket))
        runtime = await stack.enter_async_context(_runtime(config))
        client = await stack.enter_async_context(Client.from_kubeconfig(config.kubeconfig, USER_AGENT, ledger))
        await _Kubelet(config, clock, client, runtime, ledger).run()


def _runtime(config: Config) -> ProcessRuntime:
    return ProcessRuntime(config.root_dir / "runtime", hidden=hidden_folders(config),
                          log_max_bytes=config.kubelet.container_log_max_size,
                          log_max_files=config.kubelet.container_log_max_files)


def hidden_folders(config: Config) -> list[Path]:
    """What no container may see: people's homes, this node's state, and every folder near it that holds credentials."""
    state = [config.root_dir, config.cert_dir]
    authority = Path(config.kubelet.authentication.client_ca_file or config.cert_dir / "ca.crt").absolute()
    nearby = [config.kubeconfig.parent, authority.parent, authority.parent.parent]
    secret = [folder for folder in nearby if _holds_credentials(folder)]
    return list(dict.fromkeys(path.resolve() for path in (*homes(), *state, *secret) if path.is_dir()))


def _holds_credentials(folder: Path) -> bool:
    return folder != Path("/") and (any(folder.glob("*.key")) or (folder / "admin.conf").exists())


class _Kubelet:
    """All parts of one kubelet. Lives as long as `serve`."""

    def __init__(self, config: Config, clock: Clock, client: Client, runtime: Runtime, ledger: Ledger) -> None:
        self.config, self.clock, self.client, self.runtime, self.ledger = config, clock, client, runtime, ledger
        self.images = NodeImages(ImageStore(config.image_dir))
        self.node = Node(config, client, clock, NodeFacts(runtime.capabilities(), self.images.listed,
                                                          lambda: "", config.kubelet.port))
        self.events = EventRecorder(client, config.node_name, clock)
        self.references = References(client)
        self.tokens = TokenRequests(client, clock)
        self.services = Informer(client, resource_path("", "v1", "services"), fieldSelector="spec.clusterIP!=None")
        self.pods = Informer(client, resource_path("", "v1", "pods"),
                             fieldSelector=f"spec.nodeName={config.node_name}")
        self.workers = PodWorkers(self._surroundings())
        self.pods.subscribe(self.workers.on_api_pod)

    def _surroundings(self) -> Surroundings:
        config = self.config
        return Surroundings(
            config=config, client=self.client, clock=self.clock, runtime=self.runtime, images=self.images,
            volumes_of=lambda pod, pod_dir: volumes_of(pod, pod_dir, self.references, self.tokens,
                                                       lambda: self.node.allocatable),
            events=self.events, references=self.references, tokens=self.tokens,
            addresses=PodAddresses(config.kubelet.pod_cidr, config.node_ip), services=self.services, node=self.node,
            api_address=self._api_address().environment)

    async def run(self) -> None:
        log.info("runtime.ready %s", kv(isolation=self.runtime.capabilities().words))
        for name in self.config.kubelet.ignored:
            log.info("config.ignored %s", kv(field=name))
        async with self._endpoint(), self._last_grace(), asyncio.TaskGroup() as tasks:
            for name, work in (("node", self.node.run()), ("events", self.events.run()),
                               ("references", self.references.run()), ("workers", self.workers.run()),
                               ("services", self._once_registered(self.services)),
                               ("service proxy", self._service_proxy().run()),
                               ("pods", self._once_registered(self.pods))):
                tasks.create_task(work, name=name)
            if self.config.kubelet.rotate_certificates:
                tasks.create_task(self._rotate(), name="client certificate")
            if self.config.kubelet.static_pod_path:
                tasks.create_task(self._static_pods().run(), name="static pods")
            self.events.record(Involved("Node", "", self.config.node_name, self.config.node_name), NORMAL, "Starting",
                               "Starting kubelet.")

    def _service_proxy(self) -> ServiceProxy:
        config = self.config
        return ServiceProxy(config.proxy, ProxySurroundings(
            Member(config.node_name, config.node_ip), self.client, self.services, lambda: self.node.current, self.clock,
            config.kubelet.pod_cidr, self.ledger, self._report_unserved))

    def _api_address(self) -> APIServerAddress:
        return APIServerAddress(self.config.proxy.mode, lambda: self.client.access, self._report_unserved)

    def _report_unserved(self, why: str) -> None:
        name = self.config.node_name
        self.events.record(Involved("Node", "", name, name), WARNING, "ServiceAddressRefused", why)

    async def _rotate(self) -> None:
        certificate = client_certificate(self.config, self.clock)
        if certificate is None:
            log.warning("certificate.fixed %s", kv(kubeconfig=self.config.kubeconfig,
                                                   why="its client certificate is not in --cert-dir"))
            return
        await certificate.keep(self.client)

    async def _once_registered(self, informer: Informer) -> None:
        """Before, the API server does not answer or has nothing bound to us; an informer would only back off."""
        await self.node.registered.wait()
        await informer.run()

    def _static_pods(self) -> StaticPods:
        return StaticPods(Path(self.config.kubelet.static_pod_path), self.config.node_name, self.client, self.workers,
                          self.clock, self.pods, lambda: self.node.current)

    @contextlib.asynccontextmanager
    async def _endpoint(self) -> AsyncIterator[None]:
        config, kubelet = self.config, self.config.kubelet
        health = Health({"ping": lambda: "", "log": lambda: "", "syncloop": lambda: ""})
        served = Served(self.workers, Figures(self.workers, config.node_name, self.node.machine, self.clock), health,
                        config.root_dir / "log", kubelet, self.clock, self.ledger)
        authenticator = Authenticator(kubelet.authentication, self.client, self.clock)
        authorizer = Authorizer(kubelet.authorization, config.node_name, self.client, self.clock)
        async with KubeletEndpoint(served, authenticator, authorizer) as endpoint, asyncio.TaskGroup() as tasks:
            if kubelet.read_only_port:
                await endpoint.listen_read_only(kubelet.address, kubelet.read_only_port)
            if kubelet.healthz_port:
                await endpoint.listen_health(kubelet.healthz_bind_address, kubelet.healthz_port)
            beside: asyncio.Task[None] | None = None
            if kubelet.enable_server and kubelet.server_tls_bootstrap:
                beside = tasks.create_task(self._serve_when_signed(endpoint), name="serving certificate")
            elif kubelet.enable_server:
                await self._listen(endpoint, serving_files(config, self.clock.now()))
            yield
            if beside is not None:
                beside.cancel()

    async def _listen(self, endpoint: KubeletEndpoint, files: FilePair) -> None:
        kubelet = self.config.kubelet
        ca = kubelet.authentication.client_ca_file
        port = await endpoint.listen(kubelet.address, kubelet.port,
                                     server_context(files.cert, files.key, [ca] if ca else []))
        log.info("endpoint.listening %s", kv(address=kubelet.address, port=port))

    async def _serve_when_signed(self, endpoint: KubeletEndpoint) -> None:
        """Nobody can verify the endpoint before the cluster's CA has signed for it, so it opens only then."""
        await self.node.registered.wait()
        certificate = RotatingCertificate(Wanted.serving(self.config.node_name, self.config.node_ip),
                                          self.config.cert_dir, self.clock)
        if not certificate.is_valid():
            await certificate.obtain(self.client)
        await self._listen(endpoint, FilePair(certificate.path, certificate.path))
        await certificate.keep(self.client)

    @contextlib.asynccontextmanager
    async def _last_grace(self) -> AsyncIterator[None]:
        """Containers do not outlive the kubelet; they are asked before they are killed."""
        try:
            yield
        finally:
            running = self.runtime.list_running()
            if running:
                log.info("containers.ending %s", kv(count=len(running)))
            async with asyncio.TaskGroup() as tasks:
                for container in running:
                    tasks.create_task(_end(container), name=f"end {container.id}")


async def _end(container: Container) -> None:
    with contextlib.suppress(RuntimeFailure):
        await container.stop(LAST_GRACE)
