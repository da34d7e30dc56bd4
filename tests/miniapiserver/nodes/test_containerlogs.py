"""pods/log through the API server: answers, refusals in upstream's words, and ends that are ends."""

import asyncio
import base64
import time
from typing import Any

import orjson
import pytest
from aiohttp import web
from node_cluster import Cluster, cluster
from wire_certificates import Certificates

from wire.protocol.http1 import parse_head
from wire.stream import Stream

LOG = "/api/v1/namespaces/default/pods/p/log"


ON_SERVER = 'an error on the server ("bad") has prevented the request from succeeding'
NEGATIVE = "tailLines: Invalid value: -1: must be greater than or equal to 0"


def kubelet_saying(status: int, body: bytes, seen: list[str] | None = None, **headers: str) -> Any:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if seen is not None:
            seen.append(request.path_qs)
        return web.Response(status=status, body=body, headers=headers)

    return handler


async def message_of(made: Cluster, target: str, headers: str = "") -> tuple[int, str, str]:
    status, body = await made.ask(target, headers=headers)
    answer = orjson.loads(body)
    return status, answer.get("reason", ""), answer["message"]


async def test_log_is_passed_on_with_only_the_options_that_were_set(certificates: Certificates) -> None:
    seen: list[str] = []
    async with cluster(certificates, kubelet_saying(200, b"hello\n", seen)) as made:
        query = "?container=c&follow=1&tailLines=5&timestamps=&sinceTime=2024-01-02T03:04:05.678Z&previous=false"
        status, head, body = await made.exchange(LOG + query, headers="Accept: application/json, */*\r\n")
        assert (status, b"hello\n" in body) == (200, True)
        assert "Content-Type: text/plain\r\n" in head
        assert "Transfer-Encoding: chunked" in head
        assert "Cache-Control: no-cache, private" in head
    asked = "follow=true&sinceTime=2024-01-02T03%3A04%3A05Z&tailLines=5&timestamps=true"
    assert seen == [f"/containerLogs/default/p/c?{asked}"]


async def test_a_kubelet_that_takes_the_request_and_says_nothing_is_given_up(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    monkeypatch.setattr("miniapiserver.endpoints.containerlogs.HEAD_TIMEOUT", 0.3)
    async with cluster(certificates, silent) as made, asyncio.timeout(10):
        code, reason, message = await message_of(made, LOG + "?container=c")
        assert (code, reason) == (500, "")
        assert message.endswith("timeout awaiting response headers")


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (400, "container is waiting", (400, "BadRequest", "container is waiting")),
        (500, "boom", (500, "InternalError", "Internal error occurred: boom")),
        (404, "x", (404, "NotFound", "the server could not find the requested resource ( pods/log p)")),
        (401, "x", (401, "Unauthorized", "the server has asked for the client to provide credentials ( pods/log p)")),
        (403, "Forbidden (user=x)", (403, "Forbidden", "Forbidden (user=x) ( pods/log p)")),
        (502, "bad", (502, "InternalError", f"{ON_SERVER} ( pods/log p)")),
    ],
)
async def test_kubelets_refusals_become_upstreams_status(
    code: int, body: str, expected: tuple[int, str, str], certificates: Certificates
) -> None:
    async with cluster(certificates, kubelet_saying(code, body.encode())) as made:
        assert await message_of(made, LOG) == expected


@pytest.mark.parametrize(
    ("query", "code", "text"),
    [
        ("?tailLines=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("?tailLines=-1", 422, f'PodLogOptions "p" is invalid: {NEGATIVE}'),
        ("?limitBytes=0", 422, 'PodLogOptions "p" is invalid: limitBytes: Invalid value: 0: must be greater than 0'),
        ("?container=nope", 400, "container nope is not valid for pod p"),
    ],
)
async def test_bad_options_are_refused_in_upstreams_words(
    query: str, code: int, text: str, certificates: Certificates
) -> None:
    async with cluster(certificates, None) as made:
        status, _, message = await message_of(made, LOG + query)
        assert (status, message) == (code, text)


async def test_checks_come_in_upstreams_order(certificates: Certificates) -> None:
    async with cluster(certificates, None) as made:
        missing = "/api/v1/namespaces/default/pods/nope/log"
        status, _, message = await message_of(made, missing + "?tailLines=x", "Accept: text/plain\r\n")
        assert (status, message.startswith("only the following media types are accepted")) == (406, True)
        assert (await message_of(made, missing + "?tailLines=x"))[0] == 400
        assert await message_of(made, missing) == (404, "NotFound", 'pods "nope" not found')
        made.objects.pods["default", "p"] = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}
        assert await made.ask(LOG) == (204, b"")
        made.objects.pods["default", "p"]["spec"]["nodeName"] = "gone"
        assert await message_of(made, LOG) == (404, "NotFound", 'nodes "gone" not found')
        status = {"addresses": [{"type": "X", "address": "a"}]}
        made.objects.nodes["gone"] = {"metadata": {"name": "gone"}, "status": status}
        assert await message_of(made, LOG) == (500, "", "no preferred addresses found; known addresses: [{X a}]")


async def test_gone_kubelet_is_named_with_its_url(certificates: Certificates) -> None:
    async with cluster(certificates, None) as made:
        status, reason, message = await message_of(made, LOG)
        url = "https://127.0.0.1:1/containerLogs/default/p/c"
        assert (status, reason) == (500, "")
        assert message == f'Get "{url}": dial tcp 127.0.0.1:1: connect: connection refused'


async def test_unverified_kubelet_is_refused_unless_the_client_says_skip(certificates: Certificates) -> None:
    other = certificates.authority.issue_cert("elsewhere.example")
    from wire_certificates import write_pair

    cert, key = write_pair(certificates.folder, "elsewhere", other)
    wrong = Certificates(certificates.ca, cert, key, certificates.client_cert, certificates.client_key,
                         certificates.authority, certificates.folder)  # fmt: skip
    async with cluster(wrong, kubelet_saying(200, b"secret\n")) as made:
        status, _, message = await message_of(made, LOG)
        assert status == 500
        assert "tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because" in message
        assert made.ledger.snapshot()[0]["state"] == "failed"
        # The twin: the client asked not to verify, and the ledger says that nobody did.
        status, body = await made.ask(LOG + "?insecureSkipTLSVerifyBackend=true")
        assert (status, b"secret" in body) == (200, True)
        entry = made.ledger.snapshot()[0]
        assert entry["verifiedBy"] is None
        assert entry["peerCertificate"]["sans"] == ["elsewhere.example"]
        assert entry["tls"]["version"] == "TLSv1.3"


async def test_follow_sends_headers_and_each_line_at_once(certificates: Certificates) -> None:
    say: asyncio.Queue[bytes] = asyncio.Queue()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while line := await say.get():
            await response.write(line)
        return response

    async with cluster(certificates, handler) as made:
        stream = await made.connect()
        stream.write(f"GET {LOG}?follow=true HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert parse_head(await stream.read_until(b"\r\n\r\n", 4096)).status == 200
        for number in range(3):
            say.put_nowait(b"line %d\n" % number)
            assert b"line %d\n" % number in await stream.read()
        say.put_nowait(b"")
        assert await stream.read() == b"0\r\n\r\n"
        await stream.aclose()


async def test_log_that_breaks_off_does_not_end_like_a_whole_one(certificates: Certificates) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with cluster(certificates, handler) as made:
        _, body = await made.ask(LOG)
        assert b"half" in body
        assert not body.endswith(b"0\r\n\r\n")


async def test_client_that_leaves_ends_the_kubelets_request(certificates: Certificates) -> None:
    ended = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return response

    async with cluster(certificates, handler) as made:
        stream = await made.connect()
        stream.write(f"GET {LOG}?follow=true HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        await stream.read_until(b"\r\n\r\n", 4096)
        stream.abort()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_websocket_client_gets_messages_and_close_1000(certificates: Certificates) -> None:
    from wire.protocol.websocket import Role
    from wire.upgrade import request_upgrade
    from wire.websocket_session import WebSocket, check_websocket_answer, websocket_request

    async with cluster(certificates, kubelet_saying(200, b"hello\n")) as made:
        key = base64.b64encode(bytes(16)).decode()
        headers = websocket_request(["base64.binary.k8s.io"], key)
        status, head, stream = await request_upgrade(await made.connect(), "GET", LOG, headers, host="h")
        assert status == 101
        assert check_websocket_answer(head, key) == "base64.binary.k8s.io"
        socket = WebSocket(stream, Role.CLIENT)
        messages = []
        while message := await socket.receive():
            messages.append((base64.b64decode(message.data), message.is_text))
        assert messages == [(b"", True), (b"hello\n", True)]
        assert socket.close_received is not None and socket.close_received.code == 1000
        await stream.aclose()


async def drain(stream: Stream) -> int:
    size = 0
    while data := await stream.read(1 << 20):
        size += len(data)
    return size


async def test_big_log_streams_fast_and_in_bounded_memory(certificates: Certificates) -> None:
    total, chunk = 128 * 1024 * 1024, b"x" * (256 * 1024)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(total // len(chunk)):
            await response.write(chunk)
        return response

    async with cluster(certificates, handler) as made:
        stream = await made.connect()
        stream.write(f"GET {LOG} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        began = time.perf_counter()
        assert await drain(stream) > total
        rate = total / (time.perf_counter() - began) / 1e6
        print(f"log: {rate:.0f} MB/s with kubelet, API server and client in one loop")
        assert rate > 30
        await stream.aclose()
