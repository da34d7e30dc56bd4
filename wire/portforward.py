"""Server half of port-forward: each connection a client opens is dialed in the pod and copied.

Serves SPDY, SPDY tunnelled in WebSocket, and the old WebSocket channels. `dial(port)` is the caller's.
Rules: the end of one connection never ends another; an error text ends the whole kubectl session, so it is sent only
for what really failed; both streams of a pair are always ended, or kubectl keeps its local connection for ever.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from aiohttp import web

from wire.errors import ConnectionLost, PeerProtocolError
from wire.handshake import (
    HandshakeRefused,
    no_common_protocol,
    no_stream_protocol,
    no_websocket_protocol,
    upgrade_required,
)
from wire.protocol.portforward import PROTOCOL, WEBSOCKET_PROTOCOLS, Pair, Pairing, is_valid, parse_ports
from wire.protocol.remotecommand import WebSocketProtocol, negotiate, stream_protocols
from wire.protocol.spdy.session import Role
from wire.protocol.tunnel import inner_protocols, is_tunnel, outer_protocol
from wire.protocol.websocket import INTERNAL_ERROR, Reassembly
from wire.spdy_session import STREAM_TIMEOUT, ByteChannel, SpdySession, SpdyStream, spdy_session
from wire.stream import Stream
from wire.tunnel import Tunnel
from wire.upgrade import is_spdy, is_websocket, switching_protocols, take_over
from wire.websocket_session import (
    WebSocket,
    accept_websocket,
    closing_response,
    handshake_refusal,
    offered_protocols,
)

__all__ = ["HandshakeRefused", "PortForwardSession", "accept_portforward"]

Dial = Callable[[int], Awaitable[Stream]]
Describe = Callable[[int, Exception], str]

CHUNK = 256 * 1024

_log = logging.getLogger("wire.portforward")


class PortForwardSession(Protocol):
    """One client's session. `closed` is set when the client has left or everything has ended."""

    closed: asyncio.Event

    async def run(self) -> None: ...


class SpdyPortForward:
    """Pairs of streams, each a connection into the pod."""

    def __init__(self, session: SpdySession, dial: Dial, describe: Describe) -> None:
        self._session = session
        self._dial = dial
        self._describe = describe
        self._pairing: Pairing[SpdyStream] = Pairing()
        self.closed = session.ended

    async def run(self) -> None:
        """Serve until the client leaves."""
        async with asyncio.TaskGroup() as group:
            children: set[asyncio.Task[None]] = set()
            while (stream := await self._session.accept()) is not None:
                child = self._on_stream(stream, group)
                if child is not None:
                    children.add(child)
                    child.add_done_callback(children.discard)
            for child in children:
                child.cancel()

    def _on_stream(self, stream: SpdyStream, group: asyncio.TaskGroup) -> asyncio.Task[None] | None:
        try:
            request_id, pair = self._pairing.add(stream, stream.id, stream.headers)
        except ValueError as error:
            return group.create_task(_say(stream, str(error)), name="portforward refuse")
        if pair.error is not None and pair.data is not None:
            return group.create_task(
                self._forward(pair.port, pair.error, pair.data), name=f"portforward {pair.port} #{request_id}"
            )
        return group.create_task(self._expire(request_id, pair), name=f"portforward wait #{request_id}")

    async def _expire(self, request_id: str, pair: Pair[SpdyStream]) -> None:
        """Give up a pair whose second stream does not come."""
        await asyncio.sleep(STREAM_TIMEOUT)
        if self._pairing.waiting.get(request_id) is not pair:
            return
        del self._pairing.waiting[request_id]
        if pair.error is not None:
            await _say(pair.error, f"error forwarding port {pair.port}: timed out waiting for streams")
        if pair.data is not None:
            pair.data.reset()

    async def _forward(self, port: int, error: SpdyStream, data: SpdyStream) -> None:
        error.discard()
        try:
            pod = await self._dial(port)
        except Exception as reason:
            await _say(error, self._describe(port, reason))
            data.reset()
            return
        _log.debug("portforward.open port=%d stream=%d", port, data.id)
        try:
            await _copy_both(error, data, pod)
        finally:
            data.discard()
            data.reset()
            error.finish()
            pod.close_soon()


async def _say(error: SpdyStream, text: str) -> None:
    with contextlib.suppress(ConnectionLost):
        await error.write(text.encode())
    error.finish()


async def _copy_both(error: SpdyStream, data: SpdyStream, pod: Stream) -> None:
    """Copy until both directions have ended, or the client resets the stream or leaves."""
    async with asyncio.TaskGroup() as group:
        to_pod = group.create_task(_to_pod(data, pod), name="portforward to pod")
        to_client = group.create_task(_to_client(pod, data), name="portforward to client")
        broken = group.create_task(_wait(data.broken), name="portforward broken")
        await asyncio.wait((to_client, broken), return_when=asyncio.FIRST_COMPLETED)
        if not broken.done():
            # kubectl closes its local connection, and so ends the other direction, only behind the error stream.
            error.finish()
            await asyncio.wait((to_pod, broken), return_when=asyncio.FIRST_COMPLETED)
        if data.was_reset or data.session.ended.is_set():
            pod.abort()
        for task in (to_pod, to_client, broken):
            task.cancel()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _to_client(pod: Stream, data: SpdyStream) -> None:
    try:
        while chunk := await pod.read(CHUNK):
            await data.write(chunk)
    except ConnectionLost:
        # Broken, not ended: the client must see a reset and no FIN.
        data.reset()
    else:
        data.finish()


async def _to_pod(data: SpdyStream, pod: Stream) -> None:
    try:
        while chunk := await data.read(CHUNK):
            pod.write(chunk)
            await pod.drain()
        if not data.broken.is_set():
            pod.write_eof()
    except ConnectionLost:
        # The pod does not take any more; what it still says is delivered by the other direction.
        data.discard()


# The old WebSocket form


class WebSocketPortForward:
    """Two channels per port, one connection each, no half-close."""

    def __init__(self, socket: WebSocket, ports: list[int], is_base64: bool, dial: Dial, describe: Describe) -> None:
        self._socket = socket
        self._ports = ports
        self._codec = WebSocketProtocol("", is_base64, has_status=False)
        self._dial = dial
        self._describe = describe
        self._pods: dict[int, Stream] = {}
        self._dialed = [asyncio.Event() for _ in ports]
        self.closed = asyncio.Event()

    async def run(self) -> None:
        """Serve until all ports have ended or the client leaves."""
        for index, port in enumerate(self._ports):
            for channel in (2 * index, 2 * index + 1):
                self._send(channel, port.to_bytes(2, "little"))
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read(group), name="portforward channels")
                copies = [group.create_task(self._serve(index, port)) for index, port in enumerate(self._ports)]
                await asyncio.wait(copies)
                reader.cancel()
        finally:
            self.closed.set()
            for pod in self._pods.values():
                pod.close_soon()

    async def _serve(self, index: int, port: int) -> None:
        try:
            pod = self._pods[index] = await self._dial(port)
        except Exception as reason:
            self._send(2 * index + 1, self._describe(port, reason).encode())
            return
        finally:
            self._dialed[index].set()
        try:
            while chunk := await pod.read(65536):
                self._send(2 * index, chunk)
                await self._socket.drain()
        except ConnectionLost as error:
            self._send(2 * index + 1, self._describe(port, error).encode())

    async def _read(self, group: asyncio.TaskGroup) -> None:
        try:
            while (message := await self._socket.receive()) is not None:
                if message.data:
                    await self._to_pod(*self._codec.decode(message.data))
        except (ConnectionLost, PeerProtocolError) as error:
            _log.debug('portforward.left error="%s"', error)
        self.closed.set()
        for pod in self._pods.values():
            pod.abort()

    async def _to_pod(self, channel: int, data: bytes) -> None:
        if channel % 2 or channel // 2 >= len(self._ports):
            return
        await self._dialed[channel // 2].wait()  # a client may speak before the pod's connection stands
        pod = self._pods.get(channel // 2)
        if pod is not None:
            pod.write(data)
            with contextlib.suppress(ConnectionLost):
                await pod.drain()

    def _send(self, channel: int, data: bytes) -> None:
        self._socket.send(self._codec.encode(channel, data), is_text=self._codec.is_base64)


# Handshakes


@contextlib.asynccontextmanager
async def accept_portforward(
    request: web.BaseRequest, dial: Dial, *, describe: Describe | None = None
) -> AsyncIterator[PortForwardSession]:
    """Serve port-forward in whatever the client speaks. Leaving the `with` waits until the client has left.

    `describe(port, error)` words the error a client reads. Raises HandshakeRefused before anything was taken over.
    """
    describe = describe or _describe
    if is_spdy(request.headers):
        accepted = _accept_spdy(request, dial, describe)
    elif is_websocket(request.headers):
        if (wrong := handshake_refusal(request)) is not None:
            raise HandshakeRefused(wrong)
        accept = _accept_tunnel if is_tunnel(offered_protocols(request)) else _accept_channels
        accepted = accept(request, dial, describe)
    else:
        raise upgrade_required()
    async with accepted as session:
        yield session


def _describe(port: int, error: Exception) -> str:
    return f"error forwarding port {port}: {error}"


@contextlib.asynccontextmanager
async def _accept_spdy(request: web.BaseRequest, dial: Dial, describe: Describe) -> AsyncIterator[PortForwardSession]:
    offered = stream_protocols(request.headers.getall("X-Stream-Protocol-Version", ()))
    if not offered:
        raise no_stream_protocol(request)
    if PROTOCOL not in offered:
        raise no_common_protocol(offered, [PROTOCOL])
    head = switching_protocols("SPDY/3.1", [("X-Stream-Protocol-Version", PROTOCOL)])
    async with _serve_spdy(await take_over(request, head), dial, describe) as session:
        yield session


@contextlib.asynccontextmanager
async def _accept_tunnel(request: web.BaseRequest, dial: Dial, describe: Describe) -> AsyncIterator[PortForwardSession]:
    if PROTOCOL not in inner_protocols(offered_protocols(request)):
        raise HandshakeRefused(closing_response(400, b"unable to upgrade: no tunneling spdy protocols provided"))
    socket = await accept_websocket(request, outer_protocol(PROTOCOL), Reassembly.FRAGMENTS)
    async with _serve_spdy(Tunnel(socket), dial, describe) as session:
        yield session


@contextlib.asynccontextmanager
async def _serve_spdy(channel: ByteChannel, dial: Dial, describe: Describe) -> AsyncIterator[PortForwardSession]:
    async with spdy_session(channel, Role.SERVER, admit=is_valid) as session:
        forward = SpdyPortForward(session, dial, describe)
        async with _running(forward):
            yield forward


@contextlib.asynccontextmanager
async def _accept_channels(
    request: web.BaseRequest, dial: Dial, describe: Describe
) -> AsyncIterator[PortForwardSession]:
    chosen = negotiate(offered_protocols(request) or [""], WEBSOCKET_PROTOCOLS)
    if chosen is None:
        raise no_websocket_protocol()
    try:
        # The kubelet reads `port`, the API server's own parameter is `ports`.
        ports = parse_ports([*request.query.getall("port", []), *request.query.getall("ports", [])])
    except ValueError as error:
        raise HandshakeRefused(closing_response(400, str(error).encode())) from error
    if not ports:
        raise HandshakeRefused(closing_response(400, b'query parameter "port" is required'))
    socket = await accept_websocket(request, chosen)
    forward = WebSocketPortForward(socket, ports, WEBSOCKET_PROTOCOLS[chosen], dial, describe)
    code = INTERNAL_ERROR
    try:
        async with _running(forward):
            yield forward
        code = 1000
        with contextlib.suppress(ConnectionLost):
            await socket.aclose()
    finally:
        socket.send_close(code)
        socket.stream.close_soon()


@contextlib.asynccontextmanager
async def _running(forward: PortForwardSession) -> AsyncIterator[None]:
    """Run the session beside the body and wait for its end; the child of this `with`."""
    task = asyncio.create_task(forward.run(), name="portforward session")
    try:
        yield
        await asyncio.shield(task)
    finally:
        task.cancel()
        await asyncio.wait([task])
