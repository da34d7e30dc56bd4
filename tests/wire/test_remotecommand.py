"""exec and attach sessions, version by version, with hand-made clients; and what happens to the hostile ones."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import orjson
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

import wire.remotecommand
from wire.errors import ConnectionLost, PeerProtocolError, WireError
from wire.http import HTTPServer
from wire.net import dial_tcp
from wire.protocol.remotecommand import (
    SPDY_PROTOCOLS,
    ResizeReader,
    TerminalSize,
    Wanted,
    negotiate,
    status_bytes,
    stream_protocols,
)
from wire.protocol.spdy.session import Role as SpdyRole
from wire.protocol.status import exit_status, failure, session_error, session_success, success
from wire.protocol.websocket import Role
from wire.remotecommand import HandshakeRefused, RemoteCommandSession, accept_remotecommand
from wire.spdy_session import SpdySession, SpdyStream, spdy_session
from wire.stream import Stream, open_stream
from wire.upgrade import TakenOver, request_upgrade
from wire.websocket_session import WebSocket, websocket_request

Body = Callable[[RemoteCommandSession], Awaitable[None]]
KEY = base64.b64encode(bytes(16)).decode()
V4 = "v4.channel.k8s.io"


@contextlib.asynccontextmanager
async def serving(body: Body, *, stdin: bool = False, tty: bool = False) -> AsyncIterator[tuple[int, list[str]]]:
    """A server whose every session runs `body`. Collects the types of the errors that ended sessions."""
    errors: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        try:
            async with accept_remotecommand(request, stdin=stdin, stdout=True, stderr=True, tty=tty) as session:
                await body(session)
        except HandshakeRefused as refused:
            return refused.response
        except (WireError, ValueError) as error:
            errors.append(type(error).__name__)
        return TakenOver()

    async with HTTPServer(handler) as server, asyncio.timeout(20):
        yield await server.listen(), errors


async def connect(port: int) -> Stream:
    return await open_stream(await dial_tcp("127.0.0.1", port))


@contextlib.asynccontextmanager
async def spdy_client(port: int, *protocols: str) -> AsyncIterator[tuple[str, SpdySession]]:
    headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")]
    headers += [("X-Stream-Protocol-Version", name) for name in protocols]
    status, head, stream = await request_upgrade(await connect(port), "POST", "/", headers, host="h")
    assert status == 101
    async with spdy_session(stream, SpdyRole.CLIENT) as session:
        yield head.get("x-stream-protocol-version"), session


async def websocket_client(port: int, *protocols: str) -> WebSocket:
    headers = websocket_request(protocols, KEY)
    status, head, stream = await request_upgrade(await connect(port), "GET", "/", headers, host="h")
    assert status == 101, head
    return WebSocket(stream, Role.CLIENT)


async def read_all(stream: SpdyStream) -> bytes:
    got = b""
    while data := await stream.read():
        got += data
    return got


async def say_and_fail(session: RemoteCommandSession) -> None:
    await session.write_stdout(b"out")
    await session.write_stderr(b"err")
    await session.finish(exit_status(3))


@pytest.mark.parametrize("name", list(SPDY_PROTOCOLS))
@pytest.mark.parametrize("order", [("error", "stdout", "stderr"), ("stderr", "stdout", "error")])
async def test_every_spdy_version_in_any_order_of_streams(name: str, order: tuple[str, ...]) -> None:
    async with serving(say_and_fail) as (port, _), spdy_client(port, name) as (chosen, session):
        assert chosen == name
        streams = {kind: await session.open({"streamtype": kind}) for kind in order}
        assert [await read_all(streams[kind]) for kind in ("stdout", "stderr")] == [b"out", b"err"]
        result = await read_all(streams["error"])
        if name == V4:
            status = orjson.loads(result)
            assert status["details"] == {"causes": [{"reason": "ExitCode", "message": "3"}]}
            assert status["reason"] == "NonZeroExitCode"
        else:
            assert result == b"command terminated with non-zero exit code: exit status 3"
        await session.ended.wait()


async def test_success_is_silent_before_v4() -> None:
    async def succeed(session: RemoteCommandSession) -> None:
        await session.finish(session_success())

    async with serving(succeed) as (port, _), spdy_client(port, "v3.channel.k8s.io") as (_, session):
        streams = [await session.open({"streamtype": kind}) for kind in ("error", "stdout", "stderr")]
        assert [await read_all(stream) for stream in streams] == [b"", b"", b""]


async def test_streams_nobody_asked_for_are_acknowledged_and_ignored() -> None:
    async with serving(say_and_fail) as (port, _), spdy_client(port, V4) as (_, session):
        await session.open({"streamtype": "surprise"})
        await session.open({"streamtype": "stdin"})
        streams = [await session.open({"streamtype": kind}) for kind in ("error", "stderr", "stdout")]
        assert await read_all(streams[2]) == b"out"


async def test_incomplete_streams_end_after_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.remotecommand, "STREAM_TIMEOUT", 0.1)
    async with serving(say_and_fail) as (port, errors), spdy_client(port, V4) as (_, session):
        stream = await session.open({"streamtype": "stdout"})
        assert await stream.read() == b""
        await session.ended.wait()
    assert errors == ["WireError"]


async def test_body_that_raises_is_told_to_the_client() -> None:
    async def crash(session: RemoteCommandSession) -> None:
        raise ValueError("no such container")

    async with serving(crash) as (port, _):
        async with spdy_client(port, V4) as (_, session):
            streams = [await session.open({"streamtype": kind}) for kind in ("error", "stdout", "stderr")]
            assert orjson.loads(await read_all(streams[0])) == session_error("no such container")
        socket = await websocket_client(port, "v5.channel.k8s.io")
        messages = [message.data async for message in messages_of(socket)]
        assert orjson.loads(messages[-1][1:]) == session_error("no such container")
        await socket.stream.aclose()


async def messages_of(socket: WebSocket) -> AsyncIterator[object]:
    while (message := await socket.receive()) is not None:
        yield message


@pytest.mark.parametrize(
    ("offered", "is_base64", "status"),
    [
        (["v5.channel.k8s.io"], False, True),
        (["v4.channel.k8s.io"], False, True),
        (["v4.base64.channel.k8s.io"], True, True),
        (["channel.k8s.io"], False, False),
        (["base64.channel.k8s.io"], True, False),
        ([], False, False),
        (["unknown", "v4.channel.k8s.io"], False, True),
    ],
)
async def test_every_websocket_version(offered: list[str], is_base64: bool, status: bool) -> None:
    async with serving(say_and_fail) as (port, _):
        socket = await websocket_client(port, *offered)
        got = []
        while message := await socket.receive():
            assert message.is_text is is_base64
            channel, data = message.data[:1], message.data[1:]
            got.append((channel[0] - 0x30, base64.b64decode(data)) if is_base64 else (channel[0], data))
        assert got[:3] == [(1, b""), (1, b"out"), (2, b"err")]
        assert got[3][0] == 3
        assert (orjson.loads(got[3][1])["reason"] == "NonZeroExitCode") if status else got[3][1].startswith(b"command")
        assert socket.close_received is not None and socket.close_received.code == 1000
        await socket.stream.aclose()


async def echo_stdin(session: RemoteCommandSession) -> None:
    while data := await session.read_stdin():
        await session.write_stdout(data)
    await session.finish(session_success())


async def test_v5_closes_stdin_and_v4_can_not() -> None:
    async with serving(echo_stdin, stdin=True) as (port, _):
        socket = await websocket_client(port, "v5.channel.k8s.io")
        for message in (b"\x00hello", b"", b"\x07x", b"\x01x", b"\x00", b"\xff\x00", b"\xff\x00", b"\x00late"):
            socket.send(message)
        got = [message.data async for message in messages_of(socket)]  # type: ignore[attr-defined]
        assert got[:2] == [b"\x01", b"\x01hello"]
        assert got[2].startswith(b"\x03")
        await socket.stream.aclose()
        old = await websocket_client(port, "v4.channel.k8s.io")
        old.send(b"\xff\x00")
        old.send(b"\x00still open")
        await old.receive()
        message = await old.receive()
        assert message is not None and message.data == b"\x01still open"
        await old.stream.aclose()


@pytest.mark.parametrize("message", [b"\xff\x05", b"\xff", b"\xff\x00\x00"])
async def test_wrong_close_message_drops_the_client(message: bytes) -> None:
    async with serving(echo_stdin, stdin=True) as (port, _):
        socket = await websocket_client(port, "v5.channel.k8s.io")
        socket.send(message)
        with contextlib.suppress(ConnectionLost):
            while await socket.receive():
                pass
        await socket.stream.aclose()


async def test_output_waits_for_a_slow_client_and_nothing_is_lost() -> None:
    total = 30_000_000
    written = 0

    async def flood(session: RemoteCommandSession) -> None:
        nonlocal written
        for _ in range(total // 100_000):
            await session.write_stdout(b"x" * 100_000)
            written += 100_000
        await session.finish(session_success())

    async with serving(flood) as (port, _):
        socket = await websocket_client(port, "v5.channel.k8s.io")
        socket.stream.transport.pause_reading()
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.2)
        assert written < total, "nobody held the writer back"
        socket.stream.transport.resume_reading()
        received = 0
        while message := await socket.receive():
            if message.data[:1] == b"\x01":
                received += len(message.data) - 1
        assert received == total
        await socket.stream.aclose()


async def test_stdin_nobody_reads_is_bounded_and_pongs_still_come(monkeypatch: pytest.MonkeyPatch) -> None:
    release = asyncio.Event()

    async def deaf(session: RemoteCommandSession) -> None:
        await release.wait()
        size = 0
        while data := await session.read_stdin():
            size += len(data)
        await session.write_stdout(b"%d" % size)
        await session.finish(session_success())

    real = wire.remotecommand.receive_or_pong
    monkeypatch.setattr(wire.remotecommand, "receive_or_pong", lambda socket, room: real(socket, room, 0.05))
    async with serving(deaf, stdin=True) as (port, _):
        socket = await websocket_client(port, "v5.channel.k8s.io")
        sent = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    socket.send(b"\x00" + b"x" * 100_000)
                    sent += 100_000
                    await socket.drain()
        assert sent < 30_000_000
        pong = bytes.fromhex("8a00")
        while pong not in await socket.stream.read():
            pass
        release.set()
        socket.send(b"\xff\x00")
        texts = [message.data async for message in messages_of(socket)]  # type: ignore[attr-defined]
        assert b"\x01%d" % sent in texts
        await socket.stream.aclose()


async def test_client_that_leaves_is_noticed() -> None:
    left = asyncio.Event()

    async def wait(session: RemoteCommandSession) -> None:
        assert await session.read_stdin() == b""
        await session.closed.wait()
        left.set()
        with pytest.raises(ConnectionLost):
            await session.write_stdout(b"x")
        await session.finish(session_success())

    async with serving(wait, stdin=True) as (port, _):
        socket = await websocket_client(port, "v5.channel.k8s.io")
        socket.stream.abort()
        await left.wait()
        left.clear()
        async with spdy_client(port, V4) as (_, session):
            for kind in ("error", "stdin", "stdout", "stderr"):
                await session.open({"streamtype": kind})
        await left.wait()


async def test_sizes_arrive_over_both() -> None:
    sizes: list[TerminalSize | None] = []

    async def collect(session: RemoteCommandSession) -> None:
        sizes.extend([await session.next_resize(), await session.next_resize()])
        await session.finish(session_success())

    async with serving(collect, tty=True) as (port, _):
        async with spdy_client(port, V4) as (_, session):
            streams = {kind: await session.open({"streamtype": kind}) for kind in ("error", "stdout", "resize")}
            await streams["resize"].write(b'{"Width":120,"Hei')
            await streams["resize"].write(b'ght":40}\n{"Width":80,"Height":24}')
            await read_all(streams["error"])
        socket = await websocket_client(port, "v5.channel.k8s.io")
        socket.send(b'\x04{"Width":1,"Height":2}\n')
        socket.send(b'\x04{"Width":3,"Height":4}\n')
        while await socket.receive():
            pass
        await socket.stream.aclose()
    assert sizes == [TerminalSize(120, 40), TerminalSize(80, 24), TerminalSize(1, 2), TerminalSize(3, 4)]


@pytest.mark.parametrize(
    ("method", "headers", "status", "body"),
    [
        ("POST", "", 500, b"Upgrade request required"),
        ("POST", "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n", 400, b"unable to upgrade: header X-Stream"),
        (
            "POST",
            "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9\r\n",
            403,
            b"unable to upgrade: unable to negotiate protocol: client supports [v9], server accepts [v4.channel.k8s.io",
        ),
        ("POST", "Connection: Upgrade\r\nUpgrade: websocket\r\n", 405, b"bad method"),
        ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n", 400, b"missing or bad"),
        ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", 400, b"challenge"),
        (
            "GET",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"
            "Sec-WebSocket-Protocol: v2.channel.k8s.io\r\n",
            403,
            b"",
        ),
    ],
)
async def test_refused_handshakes_have_a_length_and_end_the_connection(
    method: str, headers: str, status: int, body: bytes
) -> None:
    async with serving(say_and_fail) as (port, _):
        stream = await connect(port)
        stream.write(f"{method} / HTTP/1.1\r\nHost: h\r\n{headers}\r\n".encode())
        head = await stream.read_until(b"\r\n\r\n", 8192)
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"Content-Length: " in head and b"Connection: close" in head
        rest = b""
        while data := await stream.read():
            rest += data
        assert rest.startswith(body)
        await stream.aclose()


# Pure


def test_negotiation_takes_the_clients_best() -> None:
    offered = stream_protocols(["v5.channel.k8s.io, v4.channel.k8s.io", "channel.k8s.io"])
    assert offered == ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]
    assert negotiate(offered, SPDY_PROTOCOLS) == V4
    assert negotiate(["x"], SPDY_PROTOCOLS) is None


def test_expected_streams_by_version() -> None:
    tty = Wanted(True, True, True, True)
    assert SPDY_PROTOCOLS[V4].streams(tty) == {"error", "stdin", "stdout", "resize"}
    assert SPDY_PROTOCOLS["v2.channel.k8s.io"].streams(tty) == {"error", "stdin", "stdout"}
    assert SPDY_PROTOCOLS[V4].streams(Wanted(False, True, True, False)) == {"error", "stdout", "stderr"}


def test_status_shapes() -> None:
    assert failure(404, "NotFound", "x") == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "x",
        "reason": "NotFound", "code": 404,
    }  # fmt: skip
    assert success()["status"] == "Success"
    assert exit_status(0) == session_success()
    assert status_bytes(session_error("x"), False) == b"Internal error occurred: x"
    with pytest.raises(ValueError, match="256"):
        exit_status(256)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_resize_garbage_gives_sizes_or_peer_protocol_error(data: bytes) -> None:
    with contextlib.suppress(PeerProtocolError):
        ResizeReader().feed(data)


@pytest.mark.parametrize("data", [b"[" * 1_000_000, b'{"a":' * 100_000, b"{" + b" " * 10_000, b'{"Width":-1}', b"x"])
def test_hostile_resize_streams_are_refused(data: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        ResizeReader().feed(data)
