"""The user-space TCP proxy: listens on virtual IPs, relays to endpoints.

I own the listening sockets and every connection until both of its sides have ended. Neighbours: `frontends` says
where to listen, `affinity` whom to try, `wire.relay` moves the bytes at the kernel's pace. Rules: a connection
outlives the rule that made it, as conntrack's entries do; a client that reaches nobody gets a reset, never a quiet
end.
"""

import asyncio
import errno
import logging
import resource
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from minikubelet.clock import Clock
from minikubelet.logline import kv
from minikubelet.serviceproxy.affinity import Balancer
from minikubelet.serviceproxy.frontends import Address, Frontend
from minikubelet.serviceproxy.serviceports import Endpoint, ServicePortName
from wire.connections import Connection, Ledger
from wire.errors import DialError
from wire.net import dial_tcp, join_host_port, keep_alive
from wire.relay import relay
from wire.stream import Stream, open_stream

BACKLOG = 1024
ACCEPTED_AT_ONCE = 64
DIAL_TIMEOUT = 5.0
PAUSE_WITHOUT_FILES = 0.2
RECORDED = (ServicePortName("default", "kubernetes", "https"),)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Figures:
    """What happened since the start."""

    accepted: int = 0
    unanswered: int = 0
    open: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def connection_limit() -> int:
    """Each connection takes two files; half of the process's are left to the kubelet."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 16384 if soft == resource.RLIM_INFINITY else max(16, min(soft // 4, 16384))


class UserspaceProxy:
    """Lives as long as this process serves the machine's virtual IPs. `async with` it."""

    def __init__(self, balancer: Balancer, clock: Clock, ledger: Ledger | None = None, limit: int = 0) -> None:
        self._balancer, self._clock, self._ledger = balancer, clock, ledger
        self._limit = limit or connection_limit()
        self._tasks = asyncio.TaskGroup()
        self._connections: set[asyncio.Task[None]] = set()
        self._listeners: dict[Address, _Listener] = {}
        self.figures = Figures()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for task in self._connections:
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def listening(self) -> set[Address]:
        return set(self._listeners)

    def apply(self, wanted: Mapping[Address, Frontend]) -> dict[Address, OSError]:
        """Listen on exactly these; what could not be listened on, and why. Open connections go on."""
        for address in [address for address in self._listeners if address not in wanted]:
            self._listeners.pop(address).close()
            log.info("vip.closed %s", kv(address=join_host_port(*address)))
        failed: dict[Address, OSError] = {}
        for address, frontend in wanted.items():
            present = self._listeners.get(address)
            if present is not None:
                present.frontend = frontend
                continue
            try:
                self._listeners[address] = _Listener(self, bind(address), frontend)
            except OSError as error:
                failed[address] = error
                continue
            log.info("vip.listening %s", kv(address=join_host_port(*address), service=frontend.service,
                                            endpoints=len(frontend.endpoints)))
        return failed

    def accepted(self, sock: socket.socket, client: str, frontend: Frontend) -> None:
        self.figures.accepted += 1
        self.figures.open += 1
        task = self._tasks.create_task(self._serve(sock, client, frontend), name=f"service {frontend.service} {client}")
        self._connections.add(task)
        task.add_done_callback(self._ended)
        if self.figures.open >= self._limit:
            # Further clients wait in the kernel's backlog, which is bounded too.
            log.warning("vip.full %s", kv(connections=self.figures.open))
            for listener in self._listeners.values():
                listener.pause()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._connections.discard(task)
        self.figures.open -= 1
        if self.figures.open == self._limit - 1:
            for listener in self._listeners.values():
                listener.resume()

    @property
    def is_full(self) -> bool:
        return self.figures.open >= self._limit

    async def _serve(self, sock: socket.socket, client: str, frontend: Frontend) -> None:
        """The client's bytes stay in the kernel until somebody answers for the service."""
        with sock:
            backend, entry = await self._answer(client, frontend)
            if backend is None:
                self.figures.unanswered += 1
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                return
            if entry is not None:
                entry.connected(backend)  # closes with the stream
            try:
                await self._relay(socket.socket(fileno=sock.detach()), backend)
            except DialError as error:
                log.debug("client.gone %s", kv(service=frontend.service, error=error))
            finally:
                backend.abort()

    async def _relay(self, sock: socket.socket, backend: Stream) -> None:
        front = await open_stream(sock)
        try:
            result = await relay(front, backend)
        finally:
            front.abort()
        self.figures.bytes_in += result.a_to_b
        self.figures.bytes_out += result.b_to_a

    async def _answer(self, client: str, frontend: Frontend) -> tuple[Stream | None, Connection | None]:
        """A connection to an endpoint; those that refuse are passed over. (None, None) if nobody answers."""
        for endpoint in self._balancer.order(frontend, client, self._clock.monotonic()):
            if (endpoint.address, endpoint.port) in self._listeners:
                continue  # a service of this machine as an endpoint: it could be a circle
            entry = self._record(client, frontend, endpoint)
            try:
                sock = await dial_tcp(endpoint.address, endpoint.port, timeout=DIAL_TIMEOUT)
                stream = await open_stream(sock)
            except DialError as error:
                log.debug("endpoint.unanswered %s", kv(service=frontend.service, error=error))
                if entry is not None:
                    entry.close(error)
                continue
            except BaseException as error:
                if entry is not None:
                    entry.close(error)
                raise
            self._balancer.used(frontend, client, endpoint, self._clock.monotonic())
            return stream, entry
        return None, None

    def _record(self, client: str, frontend: Frontend, endpoint: Endpoint) -> Connection | None:
        if self._ledger is None or frontend.service not in RECORDED:
            return None  # the ledger keeps the paths to the API server; other traffic would push them out
        return self._ledger.record(source=client, target=join_host_port(endpoint.address, endpoint.port),
                                   purpose=f"service {frontend.service}")


def bind(address: Address) -> socket.socket:
    """A listening socket. Raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Not SO_REUSEPORT: two proxies on one address would share its clients by chance, affinity and all.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


class _Listener:
    """One listening socket. Closed at once, not when the loop gets to it: its successor may bind in the same turn."""

    def __init__(self, proxy: UserspaceProxy, sock: socket.socket, frontend: Frontend) -> None:
        self._proxy, self._sock, self.frontend = proxy, sock, frontend
        self._loop = asyncio.get_running_loop()
        self._reading = False
        if not proxy.is_full:
            self.resume()

    def resume(self) -> None:
        if not self._reading and self._sock.fileno() >= 0:
            self._reading = True
            self._loop.add_reader(self._sock.fileno(), self._accept)

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock.fileno())

    def close(self) -> None:
        self.pause()
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if not self._reading:
                return
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                self._without_files(error)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(sock)
            self._proxy.accepted(sock, str(peer[0]), self.frontend)

    def _without_files(self, error: OSError) -> None:
        level = logging.WARNING if error.errno in (errno.EMFILE, errno.ENFILE) else logging.ERROR
        log.log(level, "accept.paused %s", kv(service=self.frontend.service, error=error.strerror))
        self.pause()
        self._loop.call_later(PAUSE_WITHOUT_FILES, self._after_pause)

    def _after_pause(self) -> None:
        if not self._proxy.is_full:
            self.resume()
