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
    ],
    ids=["space before colon", "folded", "nul", "length and chunked", "two lengths", "no host", "tls"],
)
async def test_cve_2019_16276_ambiguous_requests_get_400_and_the_end(request_bytes: bytes) -> None:
    async with HTTPServer(text) as server, asyncio.timeout(10):
        assert b" 400 " in await first_line(await server.listen(), request_bytes)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 300 + b"\r\n",
    ],
    ids=["line", "field", "fields"],
)
async def test_a_head_beyond_the_limits_gets_431_and_the_end(request_bytes: bytes) -> None:
    async with HTTPServer(text) as server, asyncio.timeout(10):
        assert b" 431 " in await first_line(await server.listen(), request_bytes)


async def first_line(port: int, request_bytes: bytes) -> bytes:
    """The status line of the answer; the connection must end behind it."""
    stream = await connect(port)
    stream.write(request_bytes)
    answer = b""
    try:
        while data := await stream.read():
            answer += data
    except ConnectionLost:
        pass
    await stream.aclose()
    assert answer.startswith(b"HTTP/1.")
    return answer.split(b"\r\n")[0]


async def test_neither_log_nor_answer_repeat_a_malformed_request(caplog: pytest.LogCaptureFixture) -> None:
    async with HTTPServer(text) as server, asyncio.timeout(10):
        stream = await connect(await server.listen())
        stream.write(b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization : Bearer hunter2\r\n\r\n")
        answer = b""
        while data := await stream.read():
            answer += data
        await stream.aclose()
        assert b"hunter2" not in answer and "hunter2" not in caplog.text


async def test_a_version_nobody_speaks_here_is_505() -> None:
    async with HTTPServer(text) as server, asyncio.timeout(10):
        assert b" 505 " in await first_any(await server.listen(), b"GET / HTTP/2.0\r\nHost: h\r\n\r\n")


async def first_any(port: int, request_bytes: bytes) -> bytes:
    stream = await connect(port)
    stream.write(request_bytes)
    answer = await stream.read()
    await stream.aclose()
    return answer.split(b"\r\n")[0]


async def test_a_head_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wire.http.HEAD_TIMEOUT", 0.05)
    async with HTTPServer(text) as server, asyncio.timeout(10):
        slow = await connect(await server.listen())
        slow.write(b"GET / HTTP/1.1\r\nHo")
        assert await slow.read() == b""
        await slow.aclose()


async def test_a_connection_whose_first_head_came_in_time_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wire.http.HEAD_TIMEOUT", 0.05)
    async with HTTPServer(text) as server, asyncio.timeout(10):
        stream = await connect(await server.listen())
        for pause in (0.0, 0.1):
            await asyncio.sleep(pause)
            stream.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b" 200 " in await stream.read()
        stream.abort()


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
