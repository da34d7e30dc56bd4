"""Port-forward sessions with hand-made clients: pairs in any order, refusals, ends, tunnels, old channels."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from stub_kubelet import echo_server

import wire.portforward
from wire.errors import WireError
from wire.http import HTTPServer
from wire.net import dial_tcp
from wire.portforward import HandshakeRefused, accept_portforward
from wire.protocol.portforward import Pairing, is_valid, parse_port, parse_ports
from wire.protocol.spdy.session import Role as SpdyRole
from wire.protocol.websocket import Reassembly, Role
from wire.spdy_session import SpdySession, SpdyStream, spdy_session
from wire.stream import Stream, open_stream
from wire.tunnel import Tunnel
from wire.upgrade import TakenOver, request_upgrade
from wire.websocket_session import WebSocket, websocket_request

KEY = base64.b64encode(bytes(16)).decode()


async def dial(port: int) -> Stream:
    return await open_stream(await dial_tcp("127.0.0.1", port))


async def handle(request: web.BaseRequest) -> web.StreamResponse:
    try:
        async with accept_portforward(request, dial):
            pass
    except HandshakeRefused as refused:
        return refused.response
    return TakenOver()


@contextlib.asynccontextmanager
async def client(*, tunnel: bool = False) -> AsyncIterator[SpdySession]:
    """A SPDY session with a running server, plain or tunnelled."""
    async with HTTPServer(handle) as server, asyncio.timeout(20):
        stream = await dial(await server.listen())
        if tunnel:
            headers = websocket_request(["SPDY/3.1+portforward.k8s.io"], KEY)
            status, head, stream = await request_upgrade(stream, "GET", "/", headers, host="h")
            assert head.get("sec-websocket-protocol") == "SPDY/3.1+portforward.k8s.io"
            channel: Tunnel | Stream = Tunnel(WebSocket(stream, Role.CLIENT, Reassembly.FRAGMENTS))
        else:
            headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")]
            headers.append(("X-Stream-Protocol-Version", "portforward.k8s.io"))
            status, head, stream = await request_upgrade(stream, "POST", "/", headers, host="h")
            assert head.get("x-stream-protocol-version") == "portforward.k8s.io"
            channel = stream
        assert status == 101
        async with spdy_session(channel, SpdyRole.CLIENT) as session:
            yield session


async def pair(
    session: SpdySession, port: int, request_id: str | None = "0", order: tuple[str, str] = ("error", "data")
) -> dict[str, SpdyStream]:
    more = {"requestid": request_id} if request_id is not None else {}
    return {kind: await session.open({"streamtype": kind, "port": str(port), **more}) for kind in order}


async def read_all(stream: SpdyStream) -> bytes:
    got = b""
    while data := await stream.read():
        got += data
    return got


@pytest.mark.parametrize("tunnel", [False, True], ids=["spdy", "tunnel"])
@pytest.mark.parametrize("order", [("error", "data"), ("data", "error")])
async def test_bytes_go_both_ways_and_both_streams_end(tunnel: bool, order: tuple[str, str]) -> None:
    async with echo_server() as port, client(tunnel=tunnel) as session:
        for number in range(3):
            streams = await pair(session, port, str(number), order)
            streams["error"].finish()
            await streams["data"].write(b"x" * 200_000)
            streams["data"].finish()
            assert await read_all(streams["data"]) == b"x" * 200_000
            assert await read_all(streams["error"]) == b""


async def test_ancient_clients_pair_by_stream_id() -> None:
    async with echo_server() as port, client() as session:
        streams = await pair(session, port, None)
        await streams["data"].write(b"hi")
        streams["data"].finish()
        assert await read_all(streams["data"]) == b"hi"


async def test_pod_that_ends_first_ends_both_streams() -> None:
    """kubectl closes its local connection, and with it our other direction, only behind the error stream."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as pod, client() as session:
        streams = await pair(session, pod.sockets[0].getsockname()[1])
        assert await read_all(streams["data"]) == b"bye"
        assert await read_all(streams["error"]) == b""
        streams["data"].finish()


async def test_refused_port_is_said_on_the_error_stream_and_the_session_lives() -> None:
    async with echo_server() as port, client() as session:
        refused = await pair(session, 1)
        text = await read_all(refused["error"])
        assert text == b"error forwarding port 1: dial tcp 127.0.0.1:1: connect: connection refused"
        assert await refused["data"].read() == b""
        good = await pair(session, port, "1")
        await good["data"].write(b"still here")
        assert await good["data"].read() == b"still here"


@pytest.mark.parametrize(
    "headers",
    [
        {"streamtype": "data"},
        {"streamtype": "data", "port": "0"},
        {"streamtype": "data", "port": "65536"},
        {"streamtype": "data", "port": "80x"},
        {"streamtype": "other", "port": "80"},
        {"port": "80"},
    ],
)
async def test_streams_without_type_or_port_are_reset(headers: dict[str, str]) -> None:
    async with client() as session:
        with pytest.raises(WireError, match="Stream reset"):
            await session.open(headers)


async def test_second_stream_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.portforward, "STREAM_TIMEOUT", 0.1)
    async with client() as session:
        error = await session.open({"streamtype": "error", "port": "80", "requestid": "0"})
        assert await read_all(error) == b"error forwarding port 80: timed out waiting for streams"
        data = await session.open({"streamtype": "data", "port": "80", "requestid": "1"})
        assert await data.read() == b"" and data.was_reset


async def test_repeated_stream_type_is_told() -> None:
    async with client() as session:
        await session.open({"streamtype": "error", "port": "80", "requestid": "0"})
        again = await session.open({"streamtype": "error", "port": "80", "requestid": "0"})
        assert b"exists already" in await read_all(again)


async def test_reset_by_the_client_ends_the_connection_into_the_pod() -> None:
    ended = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as pod, client() as session:
        streams = await pair(session, pod.sockets[0].getsockname()[1])
        streams["data"].finish()
        await ended.wait()
        ended.clear()
        streams = await pair(session, pod.sockets[0].getsockname()[1], "1")
        streams["data"].reset()
        await ended.wait()


async def test_client_that_vanishes_ends_every_connection_into_the_pod() -> None:
    count = 0
    all_there, all_ended = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        if count == 5:
            all_there.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        count -= 1
        writer.close()
        if not count:
            all_ended.set()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as pod:
        async with client() as session:
            for number in range(5):
                streams = await pair(session, pod.sockets[0].getsockname()[1], str(number))
                await streams["data"].write(b"x")
            await all_there.wait()
        async with asyncio.timeout(5):
            await all_ended.wait()


@pytest.mark.parametrize(("protocol", "is_base64"), [("v4.channel.k8s.io", False), ("v4.base64.channel.k8s.io", True)])
async def test_old_channels_carry_two_ports(protocol: str, is_base64: bool) -> None:
    def encode(channel: int, data: bytes) -> bytes:
        return b"%d" % channel + base64.b64encode(data) if is_base64 else bytes([channel]) + data

    async with echo_server() as port, HTTPServer(handle) as server, asyncio.timeout(10):
        stream = await dial(await server.listen())
        headers = websocket_request([protocol], KEY)
        status, _, stream = await request_upgrade(stream, "GET", f"/?port={port},1", headers, host="h")
        assert status == 101
        socket = WebSocket(stream, Role.CLIENT)
        greetings = [await socket.receive() for _ in range(4)]
        little = port.to_bytes(2, "little")
        expected = [encode(0, little), encode(1, little), encode(2, b"\1\0"), encode(3, b"\1\0")]
        assert [greeting.data for greeting in greetings if greeting] == expected
        refused = await socket.receive()
        assert refused is not None
        text = base64.b64decode(refused.data[1:]) if is_base64 else refused.data[1:]
        assert text == b"error forwarding port 1: dial tcp 127.0.0.1:1: connect: connection refused"
        socket.send(encode(0, b"hello"), is_text=is_base64)
        echoed = await socket.receive()
        assert echoed is not None and echoed.data == encode(0, b"hello")
        socket.stream.abort()


async def test_old_channels_close_1000_when_all_ports_have_ended() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as pod, HTTPServer(handle) as server:
        stream = await dial(await server.listen())
        target = f"/?ports={pod.sockets[0].getsockname()[1]}"
        status, _, stream = await request_upgrade(stream, "GET", target, websocket_request([], KEY), host="h")
        assert status == 101
        socket = WebSocket(stream, Role.CLIENT)
        messages = []
        while message := await socket.receive():
            messages.append(message.data)
        assert messages[2:] == [b"\0bye"]
        assert socket.close_received is not None and socket.close_received.code == 1000
        await stream.aclose()


@pytest.mark.parametrize(
    ("target", "headers", "status", "body"),
    [
        ("/", websocket_request(["v4.channel.k8s.io"], KEY), 400, b'query parameter "port" is required'),
        ("/?port=x", websocket_request(["v4.channel.k8s.io"], KEY), 400, b"is no port number"),
        ("/", websocket_request(["SPDY/3.1+other.k8s.io"], KEY), 400, b"no tunneling spdy protocols provided"),
        ("/?port=1", websocket_request(["v9"], KEY), 403, b""),
        ("/", [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")], 400, b"X-Stream-Protocol-Version does not exist"),
        (
            "/",
            [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", "v4.channel.k8s.io")],
            403,
            b"server accepts [portforward.k8s.io]",
        ),
    ],
)
async def test_refused_handshakes(target: str, headers: list[tuple[str, str]], status: int, body: bytes) -> None:
    async with HTTPServer(handle) as server:
        stream = await dial(await server.listen())
        got, _, stream = await request_upgrade(stream, "GET", target, headers, host="h")
        rest = b""
        while data := await stream.read():
            rest += data
        assert got == status
        assert body in rest
        await stream.aclose()


def test_ports_and_headers_are_checked() -> None:
    assert [parse_port(text) for text in ("1", "65535", "0", "65536", "-1", "", "８０")] == [1, 65535, *[None] * 5]
    assert parse_ports(["80,443", "1"]) == [80, 443, 1]
    with pytest.raises(ValueError, match="no port number"):
        parse_ports(["80,"])
    assert is_valid({"streamtype": "error", "port": "80"})


def test_pairs_do_not_mix_requests() -> None:
    pairing: Pairing[str] = Pairing()
    pairing.add("e0", 1, {"streamtype": "error", "port": "80", "requestid": "0"})
    pairing.add("e1", 3, {"streamtype": "error", "port": "81", "requestid": "1"})
    _, made = pairing.add("d0", 5, {"streamtype": "data", "port": "80", "requestid": "0"})
    assert (made.error, made.data, made.port, list(pairing.waiting)) == ("e0", "d0", 80, ["1"])
