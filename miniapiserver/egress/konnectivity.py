"""The Konnectivity path: ask a proxy server for a connection by HTTP CONNECT or gRPC.

My job: the API server's side of both dialects, against our server and upstream's. Over a UNIX socket CONNECT gives the
socket itself, at kernel speed; over TCP with mTLS and for gRPC the caller gets one end of a socketpair that a relay
feeds. Neighbours: `selector` makes me from its file; `konnectivity_grpc` is the second dialect. What the server says of
a failed dial keeps its type if the server is ours (a header), else the status decides.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from miniapiserver.egress.konnectivity_grpc import VIA, carry, open_call
from wire.errors import (
    ConnectionLost,
    DialError,
    DialRefused,
    DialTimeout,
    DialUnreachable,
    NoTunnel,
    PeerProtocolError,
)
from wire.net import dial_tcp, dial_unix, join_host_port
from wire.relay import relay
from wire.stream import Stream, open_stream
from wire.tls import ClientTLS

if TYPE_CHECKING:
    from miniapiserver.egress.selector import EgressSelection

T = TypeVar("T")
DIAL_TIMEOUT = 30.0  # kube-apiserver's own limit for a dial through a tunnel
MAX_ANSWER = 64 * 1024
HEAD_END = b"\r\n\r\n"
TRIES = 3

_TYPES: dict[str, type[DialError]] = {
    kind.__name__: kind for kind in (DialTimeout, DialRefused, DialUnreachable, NoTunnel, DialError)
}
_STATUSES: dict[int, type[DialError]] = {504: DialTimeout, 500: NoTunnel}


class GreetingFirst(Exception):
    """A target's first bytes came before the proxy's answer: upstream's server loses that race now and then."""


# ---------------------------------------------------------------- dialers


class ConnectOverUDS:
    """HTTP CONNECT over a UNIX socket. Holds nothing."""

    name = VIA

    def __init__(self, path: str) -> None:
        self._path = path

    async def dial(self, host: str, port: int) -> socket.socket:
        address = join_host_port(host, port)
        async with _limit(address):
            for _ in range(TRIES):
                sock = await _proxy(dial_unix(self._path, timeout=DIAL_TIMEOUT), address)
                try:
                    await asyncio.get_running_loop().sock_sendall(sock, connect_request(address))
                    head = await _read_head(sock)
                    if status_of(head) == 200:
                        return sock
                    raise refusal(address, head, await _read_rest(sock))
                except GreetingFirst:
                    sock.close()  # nothing was sent to the target: asking again is safe
                except (OSError, PeerProtocolError) as error:
                    sock.close()
                    raise NoTunnel(address, VIA, f"proxy server: {error}") from error
                except BaseException:
                    sock.close()
                    raise
        raise DialError(address, VIA, "the target spoke before the proxy server had answered")

    async def aclose(self) -> None:
        return None


class ConnectOverTLS:
    """HTTP CONNECT over TCP with mTLS. Owns the relays of its connections."""

    name = VIA

    def __init__(self, host: str, port: int, tls: ClientTLS, server_name: str | None = None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._server_name = server_name or host
        self._relays = _Relays()

    async def dial(self, host: str, port: int) -> socket.socket:
        address = join_host_port(host, port)
        async with _limit(address):
            stream = await self._connect(address)
        ours, theirs = _socket_pair()
        try:
            self._relays.start(_relay_through(stream, await open_stream(theirs)), f"egress {address}")
        except BaseException:
            ours.close()
            stream.abort()
            raise
        return ours

    async def _connect(self, address: str) -> Stream:
        sock = await _proxy(dial_tcp(self._host, self._port, timeout=DIAL_TIMEOUT, via=VIA), address)
        stream = await _proxy(open_stream(sock, ssl=self._tls.context, server_hostname=self._server_name), address)
        try:
            stream.write(connect_request(address))
            await stream.drain()
            head = await stream.read_until(HEAD_END, MAX_ANSWER)
            if status_of(head) != 200:
                raise refusal(address, head, await _read_all(stream))
        except (ConnectionLost, PeerProtocolError, GreetingFirst) as error:
            stream.abort()
            raise NoTunnel(address, VIA, f"proxy server: {error}") from error
        except BaseException:
            stream.abort()
            raise
        return stream

    async def aclose(self) -> None:
        await self._relays.aclose()


class GRPCOverUDS:
    """gRPC over a UNIX socket: one HTTP/2 connection per dial, as kube-apiserver does it. Owns the relays."""

    name = VIA

    def __init__(self, path: str) -> None:
        self._path = path
        self._relays = _Relays()

    async def dial(self, host: str, port: int) -> socket.socket:
        address = join_host_port(host, port)
        async with _limit(address):
            sock = await _proxy(dial_unix(self._path, timeout=DIAL_TIMEOUT), address)
            call = await open_call(await open_stream(sock), address)
        ours, theirs = _socket_pair()
        try:
            self._relays.start(carry(call, await open_stream(theirs)), f"egress {address}")
        except BaseException:
            ours.close()
            call.stream.abort()
            raise
        return ours

    async def aclose(self) -> None:
        await self._relays.aclose()


def build_http_connect(selection: "EgressSelection") -> ConnectOverUDS | ConnectOverTLS:
    """The dialer of an HTTPConnect selection (already validated by the selector)."""
    transport = selection.transport
    if transport.uds is not None:
        return ConnectOverUDS(transport.uds)
    files = transport.tls
    assert files is not None, "the selector demands TLS for tcp"
    tls = ClientTLS(files.ca_bundle, files.client_cert, files.client_key)
    _ = tls.context  # unreadable files are an error at start
    return ConnectOverTLS(transport.host, transport.port, tls, files.server_name)


def build_grpc(selection: "EgressSelection") -> GRPCOverUDS:
    assert selection.transport.uds is not None, "the selector demands uds for GRPC"
    return GRPCOverUDS(selection.transport.uds)


# ---------------------------------------------------------------- the dialect


def connect_request(address: str) -> bytes:
    """Byte for byte what kube-apiserver sends: the target is the request target, not the Host header."""
    return f"CONNECT {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def status_of(head: bytes) -> int:
    """Raises PeerProtocolError, or GreetingFirst if this is no HTTP at all."""
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if not words[0].startswith(b"HTTP/1."):
        raise GreetingFirst
    if len(words) < 2 or not words[1].isdigit():
        raise PeerProtocolError(f"malformed answer {head[:80]!r}")
    return int(words[1])


def refusal(address: str, head: bytes, body: bytes) -> DialError:
    """What the proxy's answer means: its own word on the type if it is ours, else the status."""
    kind = _STATUSES.get(status_of(head), DialError)
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"konnectivity-error":
            kind = _TYPES.get(value.strip().decode("latin-1"), kind)
    text = body.decode("utf-8", "replace").strip()
    return kind(address, VIA, text or f"proxy server answered {status_of(head)}")


async def _read_head(sock: socket.socket) -> bytes:
    """Up to the empty line, and not one byte further: what follows is the target's."""
    head = b""
    while True:
        await _readable(sock)
        seen = sock.recv(MAX_ANSWER, socket.MSG_PEEK)
        if not seen:
            raise ConnectionResetError("closed before it answered")
        end = (head + seen).find(HEAD_END)
        wanted = len(seen) if end < 0 else end + len(HEAD_END) - len(head)
        head += sock.recv(wanted)
        if end >= 0:
            return head
        if not head.startswith(b"HTTP/1."[: len(head)]):
            raise GreetingFirst
        if len(head) > MAX_ANSWER:
            raise PeerProtocolError("answer without end")


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock.fileno())


async def _read_rest(sock: socket.socket) -> bytes:
    """The body of a refusal. The real server sends no length: it ends with the connection."""
    body = b""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            while len(body) < MAX_ANSWER and (more := await asyncio.get_running_loop().sock_recv(sock, 4096)):
                body += more
    return body


async def _read_all(stream: Stream) -> bytes:
    body = b""
    with contextlib.suppress(ConnectionLost, TimeoutError):
        async with asyncio.timeout(1.0):
            while len(body) < MAX_ANSWER and (more := await stream.read(4096)):
                body += more
    return body


# ---------------------------------------------------------------- plumbing


@contextlib.asynccontextmanager
async def _limit(address: str) -> AsyncIterator[None]:
    """Nobody waits longer than kube-apiserver would."""
    try:
        async with asyncio.timeout(DIAL_TIMEOUT):
            yield
    except TimeoutError as error:
        raise DialTimeout(address, VIA, "i/o timeout") from error


async def _proxy(connecting: Coroutine[Any, Any, T], address: str) -> T:
    """Reach the proxy server itself. If that fails, the path is missing, not the target."""
    try:
        return await connecting
    except DialError as error:
        raise NoTunnel(address, VIA, f"proxy server: {error.reason}") from error


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


async def _relay_through(proxy: Stream, pair: Stream) -> None:
    try:
        result = await relay(proxy, pair)
        if result.error is not None:
            pair.abort()
    finally:
        # Both at once: if the dialer is closed meanwhile, the waiting is cut short and the sockets are not forgotten.
        await asyncio.gather(proxy.aclose(), pair.aclose())


class _Relays:
    """The tasks of the connections of one dialer."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, relay: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(relay, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # One turn for the transports that were cut off to let go of their sockets.
        await asyncio.sleep(0)
