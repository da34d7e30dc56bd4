"""Our front door: malformed requests end the connection, limits hold, shutdown waits for handlers' clean-up."""

import asyncio

import pytest
from aiohttp import web

from wire.errors import ConnectionLost
from wire.http import MAX_BODY, HTTPServer
from wire.net import dial_tcp
from wire.stream import Stream, open_stream


async def connect(port: int) -> Stream:
    return await open_stream(await dial_tcp("127.0.0.1", port))


async def text(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=await request.read() or b"ok")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nName : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
    ids=["space before colon", "folded", "nul", "length and chunked", "two lengths", "no host", "tls", "line", "field"],
)
async def test_cve_2019_16276_ambiguous_requests_get_400_and_the_end(request_bytes: bytes) -> None:
    async with HTTPServer(text) as server, asyncio.timeout(10):
        stream = await connect(await server.listen())
        stream.write(request_bytes)
        answer = b""
        try:
            while data := await stream.read():
                answer += data
        except ConnectionLost:
            pass
        assert answer.startswith(b"HTTP/1.") and b" 400 " in answer.split(b"\r\n")[0]
        await stream.aclose()


async def test_a_body_beyond_the_limit_is_refused() -> None:
    async with HTTPServer(text) as server, asyncio.timeout(10):
        stream = await connect(await server.listen())
        stream.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1))
        stream.write(bytes(MAX_BODY + 1))
        assert b" 413 " in await stream.read()
        stream.abort()


async def test_handler_is_cancelled_when_its_client_leaves() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return web.Response()

    async with HTTPServer(hang) as server, asyncio.timeout(10):
        stream = await connect(await server.listen())
        stream.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await started.wait()
        stream.abort()
        await cancelled.wait()


async def test_shutdown_waits_for_the_handlers_clean_up() -> None:
    started, cleaned = asyncio.Event(), False

    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal cleaned
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            cleaned = True
        return web.Response()

    async with HTTPServer(hang, grace=0.01) as server:
        stream = await connect(await server.listen())
        stream.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await started.wait()
    assert cleaned
    await stream.aclose()


async def test_unix_listener_replaces_a_stale_socket_and_removes_its_own(tmp_path: object) -> None:
    path = f"{tmp_path}/s.sock"
    for _ in range(2):
        async with HTTPServer(text) as server:
            await server.listen_unix(path)
            from wire.net import dial_unix

            stream = await open_stream(await dial_unix(path))
            stream.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b"200 OK" in await stream.read()
            await stream.aclose()
