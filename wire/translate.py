"""Between a WebSocket client and a kubelet that speaks only SPDY: the API server's two translators.

`translate_command` ends a v5 WebSocket here and opens SPDY streams behind it; `translate_tunnel` unwraps SPDY from
the WebSocket around it. Both are for nodes that do not declare ExtendWebSocketsToKubelet (KEP-4006).
`mediate_command` stands between two SPDY peers, so that a kubelet's death is told.
I own both connections. Rule: the client of a command always gets a Status; for a tunnel a refusal of the kubelet is
passed on as it is, because the 101 is sent only after the kubelet's.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from wire.errors import ConnectionLost, PeerProtocolError, UpgradeRefused, WireError
from wire.handshake import HandshakeRefused
from wire.protocol.http1 import Head
from wire.protocol.remotecommand import SPDY_PROTOCOLS, STREAM_TYPE, V5, SpdyProtocol, Wanted, encode_size
from wire.protocol.spdy.session import Role
from wire.protocol.status import session_error, session_success
from wire.protocol.tunnel import inner_protocols, outer_protocol
from wire.protocol.websocket import Reassembly
from wire.remotecommand import RemoteCommandSession, accept_remotecommand, accept_websocket_command
from wire.spdy_session import PING_INTERVAL, SpdySession, SpdyStream, spdy_session
from wire.stream import Stream
from wire.tunnel import Tunnel
from wire.upgrade import TakenOver, refusal, request_upgrade
from wire.websocket_session import accept_websocket, closing_response, handshake_refusal, offered_protocols

JSON = dict[str, Any]

STREAM_ORDER = ("error", "stdin", "stdout", "stderr", "resize")
OFFERED = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
Write = Callable[[bytes], Awaitable[None]]

MAX_STATUS = 1024 * 1024
CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Backend:
    """The kubelet behind a translator: how to connect, what to ask, and how errors name it."""

    connect: Callable[[], Awaitable[Stream]]
    target: str
    host: str

    @property
    def url(self) -> str:
        return f"https://{self.host}{self.target}"


async def upgrade_to_spdy(backend: Backend, protocols: tuple[str, ...]) -> tuple[Head, Stream]:
    """A SPDY connection to the kubelet. Raises DialError, UpgradeRefused (also for redirects), WireError."""
    stream = await backend.connect()
    headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")]
    headers += [("X-Stream-Protocol-Version", name) for name in protocols]
    try:
        status, head, stream = await request_upgrade(stream, "POST", backend.target, headers, host=backend.host)
        if status != 101:
            raise await refusal("POST", head, stream)
        if head.get("upgrade").lower() != "spdy/3.1" or not head.has_token("connection", "upgrade"):
            raise PeerProtocolError("101 without an upgrade to SPDY/3.1")
    except BaseException:
        stream.abort()
        raise
    return head, stream


# exec and attach


async def translate_command(request: web.BaseRequest, wanted: Wanted, backend: Backend) -> web.StreamResponse:
    """Serve a v5 WebSocket client from a SPDY kubelet. The 101 goes out before the kubelet is asked."""
    try:
        async with accept_websocket_command(request, wanted, [V5.name]) as session:
            await session.finish(await _command_result(session, wanted, backend))
    except HandshakeRefused as refused:
        return refused.response
    except ConnectionLost:
        pass  # The client left; there is nobody to tell.
    return TakenOver()


async def mediate_command(request: web.BaseRequest, wanted: Wanted, backend: Backend) -> web.StreamResponse:
    """Serve a SPDY client from a SPDY kubelet with a hand on the error stream.

    A plain splice would do, but for one thing: a kubelet that dies takes the connection with it, and kubectl reads a
    SPDY connection that just ends as exit code 0. The kubelet is asked before the client's 101, so that its refusals
    reach the client as they are. Raises DialError, UpgradeRefused, WireError.
    """
    head, stream = await upgrade_to_spdy(backend, OFFERED)
    try:
        flags = {"stdin": wanted.stdin, "stdout": wanted.stdout, "stderr": wanted.stderr, "tty": wanted.tty}
        async with accept_remotecommand(request, **flags) as session:
            await session.finish(await _result_from(session, wanted, head, stream))
    except HandshakeRefused as refused:
        return refused.response
    except ConnectionLost:
        pass  # The client left; there is nobody to tell.
    finally:
        stream.close_soon()
    return TakenOver()


async def _command_result(session: RemoteCommandSession, wanted: Wanted, backend: Backend) -> JSON:
    """Run the whole session against the kubelet; the Status for the client."""
    try:
        head, stream = await upgrade_to_spdy(backend, OFFERED)
    except UpgradeRefused as refused:
        return _refused(refused)
    except WireError as error:
        return session_error(f'error sending request: Post "{backend.url}": {error}')
    return await _result_from(session, wanted, head, stream)


async def _result_from(session: RemoteCommandSession, wanted: Wanted, head: Head, stream: Stream) -> JSON:
    # Without a protocol header the kubelet speaks v1, which never had a name of its own.
    name = head.get("x-stream-protocol-version", "channel.k8s.io")
    protocol = SPDY_PROTOCOLS.get(name) or SpdyProtocol(name, has_resize=True, has_status=True)
    async with spdy_session(stream, Role.CLIENT, ping_interval=PING_INTERVAL) as kubelet:
        try:
            wants = protocol.streams(wanted)
            streams = {kind: await kubelet.open({STREAM_TYPE: kind}) for kind in STREAM_ORDER if kind in wants}
        except WireError as error:
            return session_error(f"unable to create streams: {error}")
        return await _copy_command(session, kubelet, streams, protocol)


def _refused(refused: UpgradeRefused) -> JSON:
    if 300 <= refused.status < 400:
        return session_error("redirect not allowed")
    with contextlib.suppress(orjson.JSONDecodeError):
        status = orjson.loads(refused.body)
        if isinstance(status, dict) and status.get("kind") == "Status":
            return status
    return session_error("unable to upgrade connection: " + refused.body.decode("utf-8", "replace").strip())


async def _copy_command(
    session: RemoteCommandSession, kubelet: SpdySession, streams: Mapping[str, SpdyStream], protocol: SpdyProtocol
) -> JSON:
    writers: tuple[tuple[str, Write], ...] = (("stdout", session.write_stdout), ("stderr", session.write_stderr))
    outputs = [(streams[kind], write) for kind, write in writers if kind in streams]
    async with asyncio.TaskGroup() as group:
        inputs = [group.create_task(_copy_stdin(session, streams.get("stdin")), name="translate stdin"),
                  group.create_task(_copy_sizes(session, streams.get("resize")), name="translate resize")]  # fmt: skip
        left = group.create_task(_wait(session.closed), name="translate client")
        result = group.create_task(_copy_outputs(outputs, streams["error"]), name="translate outputs")
        await asyncio.wait((left, result), return_when=asyncio.FIRST_COMPLETED)
        for task in (*inputs, left, result):
            task.cancel()
    if result.cancelled():
        raise ConnectionLost("the client has gone")
    message = result.result()
    if message is None:
        raise ConnectionLost("the client has gone")
    return _status(message, kubelet, protocol)


def _status(message: bytes, kubelet: SpdySession, protocol: SpdyProtocol) -> JSON:
    """What the kubelet's error stream says. A stream that ended with the connection says nothing good."""
    if not message:
        if protocol.has_status and kubelet.ended.is_set():
            why = f": {kubelet.error}" if kubelet.error is not None else ""
            return session_error(f"the connection to the kubelet ended before the command's result{why}")
        return session_success()
    if not protocol.has_status:
        return session_error(message.decode("utf-8", "replace"))
    try:
        status = orjson.loads(message)
    except orjson.JSONDecodeError:
        status = None
    if not isinstance(status, dict):
        return session_error(f"error stream protocol error: {message[:200]!r}")
    return status


async def _copy_outputs(outputs: Sequence[tuple[SpdyStream, Write]], error: SpdyStream) -> bytes | None:
    """Everything both outputs say, then everything the error stream says; None if the client has gone."""
    async with asyncio.TaskGroup() as group:
        copies = [group.create_task(_copy_output(*output), name="translate output") for output in outputs]
    if not all(copy.result() for copy in copies):
        return None
    message = bytearray()
    while (data := await error.read()) and len(message) <= MAX_STATUS:
        message += data
    return bytes(message)


async def _copy_output(stream: SpdyStream, write: Write) -> bool:
    """Whether the client was there to the end."""
    try:
        while data := await stream.read(CHUNK):
            await write(data)
    except ConnectionLost:
        return False
    return True


async def _copy_stdin(session: RemoteCommandSession, stream: SpdyStream | None) -> None:
    if stream is None:
        return
    with contextlib.suppress(ConnectionLost):
        while data := await session.read_stdin():
            await stream.write(data)
        if not session.closed.is_set():
            stream.finish()


async def _copy_sizes(session: RemoteCommandSession, stream: SpdyStream | None) -> None:
    if stream is None:
        return
    with contextlib.suppress(ConnectionLost):
        while (size := await session.next_resize()) is not None:
            await stream.write(encode_size(size))


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


# Port-forward


async def translate_tunnel(request: web.BaseRequest, backend: Backend) -> web.StreamResponse:
    """Unwrap SPDY from a WebSocket and speak it to the kubelet. Raises DialError, UpgradeRefused, WireError."""
    if (wrong := handshake_refusal(request)) is not None:
        return wrong
    protocols = inner_protocols(offered_protocols(request))
    if not protocols:
        return closing_response(400, b"unable to upgrade: no tunneling spdy protocols provided")
    head, kubelet = await upgrade_to_spdy(backend, tuple(protocols))
    try:
        chosen = outer_protocol(head.get("x-stream-protocol-version"))
        tunnel = Tunnel(await accept_websocket(request, chosen, Reassembly.FRAGMENTS))
    except BaseException:
        kubelet.abort()
        raise
    await _copy_tunnel(tunnel, kubelet)
    return TakenOver()


async def _copy_tunnel(tunnel: Tunnel, kubelet: Stream) -> None:
    """Bytes both ways until one side ends; then the other gets everything that came before, and its own end."""
    up = asyncio.create_task(_pump(tunnel, kubelet), name="tunnel to kubelet")
    down = asyncio.create_task(_pump(kubelet, tunnel), name="tunnel to client")
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if down.done() and down.result():
            await tunnel.finish(1.0)
        if up.done() and up.result():
            await kubelet.finish()
    finally:
        for task in (up, down):
            task.cancel()
        # A side that broke is not closed in good order: the other must not take it for a good end.
        tunnel.abort()
        kubelet.abort()
        await asyncio.wait((up, down))


async def _pump(source: Tunnel | Stream, sink: Tunnel | Stream) -> bool:
    """Copy one direction; whether it ended well."""
    try:
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
    except WireError:
        return False
    return True
