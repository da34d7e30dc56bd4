"""Probe handlers against real sockets, and what is remembered of the API server's objects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubeletfakes import FakeClock, FakeContainer, FakeExec, FakeRuntime, eventually

from minikubelet.pods.handlers import Outcome, Target, run
from minikubelet.pods.references import ObjectKey
from minikubelet.pods.tokens import TokenKey
from minikubelet.runtime.interface import ContainerSpec, PodRef

JSON = dict[str, Any]
REF = PodRef("default", "web", "uid-web")


def target(port: int = 0) -> Target:
    runtime = FakeRuntime(FakeClock())
    container: Any = FakeContainer(runtime, ContainerSpec(REF, "c", 0, ()))
    return Target(container, {"name": "c", "ports": [{"name": "http", "containerPort": port or 1}]}, "127.0.0.1")


@pytest.fixture
async def web() -> AsyncIterator[int]:
    """Answers by path: /ok, /redirect, /away, /bad, /slow; shows the headers at /headers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, IndexError):
            await answer(reader, writer)
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        bodies = {"/ok": "200 OK", "/redirect": "302 Found\r\nLocation: /ok", "/bad": "503 No",
                  "/away": "302 Found\r\nLocation: http://203.0.113.1/"}
        if path == "/slow":
            await reader.read()  # until the client leaves
        body = head if path == "/headers" else "body"
        line = bodies.get(path, "200 OK")
        writer.write(f"HTTP/1.1 {line}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.sleep(0.01)  # the connections' ends are heard


@pytest.mark.parametrize(("path", "ok"), [("/ok", True), ("/redirect", True), ("/away", True), ("/bad", False)])
async def test_http_succeeds_from_200_to_399_and_stays_on_its_host(web: int, path: str, ok: bool) -> None:
    assert (await run({"httpGet": {"path": path, "port": web}}, target(), 2)).ok is ok


async def test_a_failed_http_probe_names_its_status(web: int) -> None:
    assert await run({"httpGet": {"path": "/bad", "port": "http"}}, target(web), 2) == Outcome(
        False, "HTTP probe failed with statuscode: 503")


async def test_http_headers_are_sent_and_the_agent_is_kube_probe(web: int) -> None:
    headers = [{"name": "X-A", "value": "1"}, {"name": "Host", "value": "named"}]
    seen = (await run({"httpGet": {"path": "headers", "port": web, "httpHeaders": headers}}, target(), 2)).output
    assert "X-A: 1" in seen and "Host: named" in seen and "User-Agent: kube-probe/1.36" in seen


async def test_a_slow_answer_is_a_timeout_in_gos_words(web: int) -> None:
    outcome = await run({"httpGet": {"path": "/slow", "port": web}}, target(), 0.05)
    assert outcome == Outcome(False, f'Get "http://127.0.0.1:{web}/slow": context deadline exceeded '
                                     "(Client.Timeout exceeded while awaiting headers)")


async def test_nobody_there_is_connection_refused(unused_tcp_port: int) -> None:
    words = f"dial tcp 127.0.0.1:{unused_tcp_port}: connect: connection refused"
    assert await run({"tcpSocket": {"port": unused_tcp_port}}, target(), 1) == Outcome(False, words)
    assert await run({"httpGet": {"port": unused_tcp_port}}, target(), 1) == Outcome(
        False, f'Get "http://127.0.0.1:{unused_tcp_port}/": {words}')
    assert not (await run({"grpc": {"port": unused_tcp_port}}, target(), 1)).ok


async def test_tcp_succeeds_where_somebody_listens(web: int) -> None:
    assert await run({"tcpSocket": {"port": web}}, target(), 1) == Outcome(True)


async def test_an_http_server_is_no_grpc_server(web: int) -> None:
    assert not (await run({"grpc": {"port": web}}, target(), 0.5)).ok


async def test_a_port_name_nobody_has_is_an_error() -> None:
    assert await run({"httpGet": {"port": "none"}}, target(), 1) == Outcome(False, "couldn't find port: none")


async def test_exec_fails_by_exit_code_with_its_output() -> None:
    on = target()
    on.container._runtime.on_exec = lambda argv: FakeExec(2, b"why")  # type: ignore[attr-defined]
    assert await run({"exec": {"command": ["x"]}}, on, 1) == Outcome(False, "why")


async def test_no_handler_at_all_is_a_failure() -> None:
    assert not (await run({}, target(), 1)).ok


# Objects and tokens


async def test_holders_hear_of_changes_until_they_let_go(node: Any) -> None:
    path, key = "/api/v1/namespaces/default/configmaps", ObjectKey("configmap", "default", "cm")
    references, heard = node.around.references, []
    assert await references.get("configmap", "default", "cm") is None
    references.hold("uid-1", {key}, lambda: heard.append(1))
    node.api.put(path, {"metadata": {"name": "cm"}, "data": {"k": "1"}})
    await eventually(lambda: heard)
    assert (await references.get("configmap", "default", "cm"))["data"] == {"k": "1"}
    references.release("uid-1")
    heard.clear()
    node.api.put(path, {"metadata": {"name": "cm"}, "data": {"k": "2"}})
    assert (await references.get("configmap", "default", "cm"))["data"] == {"k": "2"}
    assert not heard


async def test_a_token_is_bound_to_its_pod_and_asked_for_anew_at_four_fifths_of_its_life(node: Any) -> None:
    tokens, key = node.around.tokens, TokenKey(REF, "sa", "aud", 3600)
    first = await tokens.token(key)
    assert await tokens.token(key) == first
    spec = next(body["spec"] for _, path, body in node.api.requests if path.endswith("serviceaccounts/sa/token"))
    assert spec == {"audiences": ["aud"], "expirationSeconds": 3600, "boundObjectRef": {
        "kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "uid-web"}}
    node.clock.passed = 0.8 * 3600
    assert await tokens.token(key) != first


async def test_an_old_token_serves_while_no_new_one_can_be_had(node: Any) -> None:
    tokens, key = node.around.tokens, TokenKey(REF, "sa", "", 3600)
    first = await tokens.token(key)
    node.clock.passed = 0.9 * 3600
    node.api.fail_next = [("/token", 500)]
    assert await tokens.token(key) == first
    node.clock.passed = 3601
    node.api.fail_next = [("/token", 500)]
    with pytest.raises(Exception, match="made to fail"):
        await tokens.token(key)
