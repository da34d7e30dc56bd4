"""The kubelet's HTTPS endpoint as a whole.

My job: one request: who is it, may it, what is it, answer it. I own the listeners. Neighbours: `authentication`,
`authorization`, `routes`, and one module per kind of answer. Rule: nothing is looked at before the caller is known
and allowed; on the read-only port nothing is served that could change anything.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from aiohttp import web

from minikubelet.clock import Clock
from minikubelet.kubeletconfiguration import KubeletConfiguration, as_json
from minikubelet.logline import kv
from minikubelet.pods.workers import PodWorkers
from minikubelet.server import answers, podlists, routes
from minikubelet.server.answers import HTTPError
from minikubelet.server.authentication import Authenticator, Unauthenticated
from minikubelet.server.authorization import Authorizer, Denied, NoVerdict, attributes
from minikubelet.server.containerlogs import container_logs
from minikubelet.server.figures import Figures
from minikubelet.server.health import Health, local_health
from minikubelet.server.nodelogs import node_logs
from minikubelet.server.portforward import port_forward
from minikubelet.server.query import boolean
from minikubelet.server.remotecommand import attach_to_container, exec_in_container, run_in_container
from minikubelet.server.routes import Match, Page
from wire.connections import Ledger
from wire.errors import WireError
from wire.handshake import HandshakeRefused
from wire.http import HTTPServer
from wire.upgrade import TakenOver

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """What the endpoint shows of the kubelet."""

    workers: PodWorkers
    figures: Figures
    health: Health
    log_dir: Path
    kubelet: KubeletConfiguration
    clock: Clock
    ledger: Ledger


class KubeletEndpoint:
    """The three listeners: HTTPS for all, HTTP read-only if asked for, HTTP health on loopback. `async with` it."""

    def __init__(self, served: Served, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._served, self._authenticator, self._authorizer = served, authenticator, authorizer
        self._stack = AsyncExitStack()
        self._main = HTTPServer(self._handle)
        self._read_only = HTTPServer(self._handle_read_only)
        self._local = HTTPServer(self._handle_local)
        self._pages = self._table()

    async def __aenter__(self) -> Self:
        for server in (self._main, self._read_only, self._local):
            await self._stack.enter_async_context(server)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self._stack.aclose()

    async def listen(self, host: str, port: int, tls: ssl.SSLContext) -> int:
        return await self._main.listen(host, port, tls)

    async def listen_read_only(self, host: str, port: int) -> int:
        return await self._read_only.listen(host, port)

    async def listen_health(self, host: str, port: int) -> int:
        return await self._local.listen(host, port)

    # One request

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._guarded(request, self._admitted)

    async def _handle_read_only(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._guarded(request, self._unauthenticated)

    async def _handle_local(self, request: web.BaseRequest) -> web.StreamResponse:
        return await local_health(request, self._served.health)

    async def _guarded(self, request: web.BaseRequest,
                       answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """The one place where errors become HTTP."""
        try:
            return await answer(request)
        except HTTPError as error:
            return answers.text(error.text, error.code, error.headers)
        except HandshakeRefused as refused:
            return refused.response
        except WireError as error:
            # The client's connection broke after it was taken over: nobody is left to be told.
            log.debug("session.lost %s", kv(path=request.path, error=error))
            return TakenOver()

    async def _admitted(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            user = await self._authenticator.authenticate(request)
        except Unauthenticated as error:
            log.debug("request.unauthenticated %s", kv(path=request.path, error=error))
            raise HTTPError(401, "Unauthorized") from error
        try:
            await self._authorizer.authorize(user, attributes(request.method, unquote(request.rel_url.raw_path)))
        except Denied as error:
            raise HTTPError(403, str(error)) from error
        except NoVerdict as error:
            raise HTTPError(500, str(error)) from error
        log.debug("request %s", kv(method=request.method, path=request.path, user=user.name))
        found = routes.match(request.method, request.rel_url.raw_path)
        if not self._served.kubelet.enable_debugging_handlers:
            routes.refuse_debugging(found.page)
        return await self._pages[found.page](request, found)

    async def _unauthenticated(self, request: web.BaseRequest) -> web.StreamResponse:
        found = routes.match(request.method, request.rel_url.raw_path)
        routes.refuse_debugging(found.page)
        if found.page not in routes.READ_ONLY:
            raise answers.not_found()
        return await self._pages[found.page](request, found)

    # The pages

    def _table(self) -> dict[Page, Callable[[web.BaseRequest, Match], Awaitable[web.StreamResponse]]]:
        return {
            Page.HEALTHZ: self._healthz, Page.PODS: self._pods, Page.RUNNING_PODS: self._running_pods,
            Page.CONFIGZ: self._configz, Page.STATS: self._stats, Page.METRICS: self._metrics,
            Page.METRICS_CADVISOR: self._metrics, Page.METRICS_RESOURCE: self._metrics,
            Page.METRICS_PROBES: self._metrics, Page.LOGS: self._logs, Page.CONTAINER_LOGS: self._container_logs,
            Page.EXEC: self._exec, Page.ATTACH: self._attach, Page.PORT_FORWARD: self._port_forward,
            Page.RUN: self._run, Page.CHECKPOINT: self._checkpoint,
        }

    async def _healthz(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        return self._served.health.answer(request)

    async def _pods(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        return answers.json(podlists.pods(self._served.workers))

    async def _running_pods(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        return answers.json(podlists.running_pods(self._served.workers))

    async def _configz(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        return answers.json({"kubeletconfig": as_json(self._served.kubelet)})

    async def _stats(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        only = boolean(request.query, "only_cpu_and_memory")
        return answers.json(self._served.figures.summary(only_cpu_and_memory=only))

    async def _metrics(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        figures = self._served.figures
        page = {Page.METRICS: figures.kubelet_metrics, Page.METRICS_CADVISOR: figures.cadvisor_metrics,
                Page.METRICS_RESOURCE: figures.resource_metrics, Page.METRICS_PROBES: figures.probe_metrics}
        return web.Response(body=page[found.page]().encode(), headers={"Content-Type": PROMETHEUS})

    async def _logs(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        if not self._served.kubelet.enable_system_log_handler:
            raise HTTPError(405, "logs endpoint is disabled.")
        return await node_logs(request, self._served.log_dir)

    async def _container_logs(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        return await container_logs(request, self._served.workers, self._served.clock, found.namespace, found.pod,
                                    found.container)

    async def _exec(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        return await exec_in_container(request, self._served.workers, found.namespace, found.pod, found.uid,
                                       found.container)

    async def _attach(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        return await attach_to_container(request, self._served.workers, found.namespace, found.pod, found.uid,
                                         found.container)

    async def _run(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        return await run_in_container(request, self._served.workers, found.namespace, found.pod, found.uid,
                                      found.container)

    async def _port_forward(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        return await port_forward(request, self._served.workers, self._served.ledger, found.namespace, found.pod,
                                  found.uid)

    async def _checkpoint(self, request: web.BaseRequest, found: Match) -> web.StreamResponse:
        raise HTTPError(500, f"checkpointing of {found.namespace}/{found.pod}/{found.container} failed "
                             "(CheckpointContainer not supported by runtime)")
