"""A v5 WebSocket client in front of a kubelet that speaks only SPDY, with hand-made peers on both sides."""

import base64
from typing import Any

import orjson
import pytest
from aiohttp import web
from node_cluster import cluster
from wire_certificates import Certificates

from wire.protocol.spdy.session import Role as SpdyRole
from wire.protocol.status import failure
from wire.protocol.websocket import Role
from wire.spdy_session import spdy_session
from wire.upgrade import TakenOver, request_upgrade, switching_protocols, take_over
from wire.websocket_session import WebSocket, websocket_request

EXEC = "/api/v1/namespaces/default/pods/p/exec?command=id&stdout=true&stderr=true"
KEY = base64.b64encode(bytes(16)).decode()


async def result_of(kubelet: Any, certificates: Certificates) -> tuple[dict[str, Any], list[bytes]]:
    """The Status and the output messages that a v5 client gets."""
    async with cluster(certificates, kubelet) as made:
        headers = websocket_request(["v5.channel.k8s.io"], KEY)
        status, head, stream = await request_upgrade(await made.connect(), "GET", EXEC, headers, host="h")
        assert (status, head.get("sec-websocket-protocol")) == (101, "v5.channel.k8s.io")
        socket = WebSocket(stream, Role.CLIENT)
        messages = []
        while message := await socket.receive():
            messages.append(message.data)
        assert socket.close_received is not None and socket.close_received.code == 1000
        await stream.aclose()
        return orjson.loads(messages[-1][1:]), messages[1:-1]


def speaking(name: str, script: Any) -> Any:
    """A kubelet that answers 101 with a protocol name and then runs `script(streams by type)`."""

    async def kubelet(request: web.BaseRequest) -> web.StreamResponse:
        headers = [("X-Stream-Protocol-Version", name)] if name else []
        channel = await take_over(request, switching_protocols("SPDY/3.1", headers))
        async with spdy_session(channel, SpdyRole.SERVER) as session:
            streams = {}
            while len(streams) < 3:
                stream = await session.accept()
                assert stream is not None
                streams[stream.headers["streamtype"]] = stream
            assert list(streams) == ["error", "stdout", "stderr"]
            await script(streams, channel)
        return TakenOver()

    return kubelet


async def test_kubelet_that_dies_in_the_middle_is_a_failure(certificates: Certificates) -> None:
    async def die(streams: Any, channel: Any) -> None:
        await streams["stdout"].write(b"half")
        channel.abort()

    status, messages = await result_of(speaking("v4.channel.k8s.io", die), certificates)
    assert messages == [b"\x01half"]
    assert status["status"] == "Failure"
    assert "the connection to the kubelet ended before the command's result" in status["message"]


@pytest.mark.parametrize("name", ["channel.k8s.io", "v3.channel.k8s.io", ""])
async def test_old_kubelets_texts_become_a_status(name: str, certificates: Certificates) -> None:
    async def fail(streams: Any, channel: Any) -> None:
        streams["stdout"].finish()
        streams["stderr"].finish()
        await streams["error"].write(b"no such file")
        streams["error"].finish()

    status, _ = await result_of(speaking(name, fail), certificates)
    assert (status["status"], status["message"]) == ("Failure", "Internal error occurred: no such file")


async def test_status_is_passed_on_behind_all_output(certificates: Certificates) -> None:
    sent = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode"}]}}

    async def finish(streams: Any, channel: Any) -> None:
        # The Status first: output that comes later must still be delivered before it.
        await streams["error"].write(orjson.dumps(sent))
        streams["error"].finish()
        await streams["stderr"].write(b"late")
        streams["stderr"].finish()
        await streams["stdout"].write(b"later")
        streams["stdout"].finish()

    status, messages = await result_of(speaking("v4.channel.k8s.io", finish), certificates)
    assert status == sent
    assert sorted(messages) == [b"\x01later", b"\x02late"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"container not found", "Internal error occurred: unable to upgrade connection: container not found"),
        (orjson.dumps(failure(404, "NotFound", "pod gone")), "pod gone"),
    ],
)
async def test_refusal_of_the_kubelet_is_told_on_the_error_channel(
    body: bytes, message: str, certificates: Certificates
) -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        assert request.method == "POST"
        offered = request.headers.getall("X-Stream-Protocol-Version")
        assert offered == [f"v{n}.channel.k8s.io" for n in (5, 4, 3, 2)] + ["channel.k8s.io"]
        return web.Response(status=500, body=body)

    status, _ = await result_of(refuse, certificates)
    assert status["message"] == message


async def test_tunnel_passes_the_kubelets_refusal_on(certificates: Certificates) -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        assert "sec-websocket-key" not in request.headers
        assert request.headers["X-Stream-Protocol-Version"] == "portforward.k8s.io"
        return web.Response(status=404, text="pod not found")

    async with cluster(certificates, refuse) as made:
        target = "/api/v1/namespaces/default/pods/p/portforward"
        headers = websocket_request(["SPDY/3.1+portforward.k8s.io"], KEY)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        stream = await made.connect()
        stream.write(f"GET {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode())
        head = await stream.read_until(b"\r\n\r\n", 4096)
        assert head.startswith(b"HTTP/1.1 404 ") and b"Connection: close" in head
        assert b"pod not found" in await stream.read()
        await stream.aclose()
