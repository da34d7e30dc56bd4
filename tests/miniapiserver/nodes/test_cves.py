"""Old holes of this path, each with the attempt that used to work. Twins show the attempt succeed where it may."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web
from node_cluster import Cluster, cluster, node_at
from stub_kubelet import handle as stub_kubelet
from wire_certificates import Certificates

from miniapiserver.kubelet import AddressRule
from wire.errors import ConnectionLost
from wire.http import HTTPServer
from wire.upgrade import request_upgrade

EXEC = "/api/v1/namespaces/default/pods/p/exec?command=id&stdout=true"
SPDY = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", "v4.channel.k8s.io")]
WEBSOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
)


def upgrade_headers() -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in SPDY)


async def test_cve_2018_1002105_nothing_is_joined_after_a_refused_upgrade(certificates: Certificates) -> None:
    seen: list[str] = []

    async def kubelet(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.path)
        return web.Response(status=400, text="no")  # and the connection stays open

    async with cluster(certificates, kubelet) as made:
        stream = await made.connect()
        status, head, stream = await request_upgrade(stream, "POST", EXEC, SPDY, host="h")
        assert (status, head.get("connection")) == (400, "close")
        stream.write(b"GET /runningpods/ HTTP/1.1\r\nHost: h\r\n\r\n")
        with contextlib.suppress(ConnectionLost):
            while await stream.read():
                pass
        await stream.aclose()
        assert seen == ["/exec/default/p/c"]


@contextlib.asynccontextmanager
async def canary() -> AsyncIterator[tuple[int, list[str]]]:
    """Somebody who must not be called."""
    called: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        called.append(request.path)
        return web.Response(text="here")

    async with HTTPServer(handler) as server:
        yield await server.listen(), called


@pytest.mark.parametrize("headers", [upgrade_headers(), WEBSOCKET], ids=["spdy", "websocket"])
async def test_cve_2020_8559_redirects_of_a_kubelet_reach_nobody(headers: str, certificates: Certificates) -> None:
    async with canary() as (port, called):

        async def kubelet(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{port}/stolen"})

        async with cluster(certificates, kubelet) as made:
            method = "POST" if "SPDY" in headers else "GET"
            status, head, body = await made.exchange(EXEC, method, headers)
            assert "location" not in head.lower()
            assert b"stolen" not in body
            if method == "POST":
                assert status == 500
                assert orjson.loads(body)["message"] == "invalid upgrade response: status code 302"
            else:
                assert b"redirect not allowed" in body
        assert called == []


async def test_cve_2018_1002102_redirects_of_a_log_are_not_followed(certificates: Certificates) -> None:
    async with canary() as (port, called):

        async def kubelet(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{port}/"})

        async with cluster(certificates, kubelet) as made:
            status, body = await made.ask("/api/v1/namespaces/default/pods/p/log")
            assert status == 500
            assert "redirects forbidden" in orjson.loads(body)["message"]
        assert called == []


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "fe80::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("suffix", ["", ":10250", ":80"])
async def test_cve_2022_3294_node_addresses_are_checked_for_every_port(
    address: str, suffix: str, certificates: Certificates
) -> None:
    async with cluster(certificates, stub_kubelet, allowed=()) as made:
        made.objects.nodes["bad"] = node_at(address, 10250)
        status, body = await made.ask(f"/api/v1/nodes/bad{suffix}/proxy/pods")
        assert (status, orjson.loads(body)["message"]) == (400, "address not allowed")


async def test_cve_2022_3294_twin_an_opened_range_is_proxied_to(certificates: Certificates) -> None:
    async with cluster(certificates, stub_kubelet, allowed=("127.0.0.0/8",)) as made:
        status, body = await made.ask("/api/v1/nodes/n/proxy/api")
        assert (status, b"APIVersions" in body) == (200, True)


async def test_cve_2020_8562_the_checked_address_is_the_dialed_one(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["8.8.8.8", "127.0.0.1"] * 1000)
    loop = asyncio.get_running_loop()
    dialed: list[str] = []

    async def rebinding(host: str, port: Any, **more: Any) -> list[Any]:
        address = next(answers) if host == "rebind.example" else host
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0))]

    async def dial(host: str, port: int) -> socket.socket:
        dialed.append(host)
        raise ConnectionRefusedError

    async with cluster(certificates, stub_kubelet, allowed=()) as made:
        made.objects.nodes["rebind"] = node_at("rebind.example", 10250)
        monkeypatch.setattr(loop, "getaddrinfo", rebinding)
        monkeypatch.setattr(made.path.egress._direct, "dial", dial)
        for attempt in range(100):
            with contextlib.suppress(ValueError):
                address = await made.path.resolve_checked("rebind.example")
                assert address == "8.8.8.8", attempt
        from miniapiserver.endpoints.noderequest import NodeRequest
        from miniapiserver.endpoints.proxy import _node

        info = NodeRequest("", "rebind", "proxy", made.objects, made.path, "nodes")
        target = await _node(info)
        with pytest.raises(ConnectionRefusedError):
            await made.path.connect(target)
        assert dialed == ["8.8.8.8"]


def endpoints_of(ip: str, port: int, namespace: str, pod: str) -> dict[str, Any]:
    reference = {"kind": "Pod", "namespace": namespace, "name": pod}
    return {
        "metadata": {"name": "s"},
        "subsets": [{"addresses": [{"ip": ip, "targetRef": reference}], "ports": [{"name": "", "port": port}]}],
    }


SERVICE = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}


@pytest.mark.parametrize(
    ("namespace", "pod", "pod_ip"),
    [("other", "p", "127.0.0.1"), ("default", "missing", "127.0.0.1"), ("default", "p", "127.0.0.9")],
    ids=["pod of another namespace", "no such pod", "pod has another address"],
)
async def test_cve_2021_25740_forged_endpoints_are_not_proxied_to(
    namespace: str, pod: str, pod_ip: str, certificates: Certificates
) -> None:
    async with canary() as (port, called), cluster(certificates, stub_kubelet) as made:
        give_service(made, port, namespace, pod, pod_ip)
        status, body = await made.ask("/api/v1/namespaces/default/services/s/proxy/")
        assert (status, orjson.loads(body)["message"]) == (503, 'no endpoints available for service "s"')
        assert called == []


def give_service(made: Cluster, port: int, namespace: str, pod: str, pod_ip: str) -> None:
    made.objects.services["default", "s"] = SERVICE
    made.objects.endpoints["default", "s"] = endpoints_of("127.0.0.1", port, namespace, pod)
    made.objects.pods["default", "p"] = {"metadata": {"name": "p"}, "status": {"podIPs": [{"ip": pod_ip}]}}


async def test_cve_2021_25740_twin_a_real_endpoint_is_proxied_to(certificates: Certificates) -> None:
    async with canary() as (port, called), cluster(certificates, stub_kubelet) as made:
        give_service(made, port, "default", "p", "127.0.0.1")
        status, body = await made.ask("/api/v1/namespaces/default/services/s:80/proxy/x")
        assert (status, b"here" in body, called) == (200, True, ["/x"])


@pytest.mark.parametrize("subresource", ["exec", "attach", "portforward"])
async def test_get_alone_does_not_run_commands(subresource: str, certificates: Certificates) -> None:
    """kubernetes 1.35 (PR 134577): a WebSocket is a GET, and needs create as well."""
    async with cluster(certificates, stub_kubelet) as made:
        made.may_create = False
        path = f"/api/v1/namespaces/default/pods/p/{subresource}?command=id&stdout=true"
        status, body = await made.ask(path, headers=WEBSOCKET)
        assert (status, orjson.loads(body)["message"]) == (403, 'pods "p" is forbidden: no create for you')
        # The twins: POST was authorized as create already; with create the GET passes.
        assert (await made.ask(path, "POST", "Content-Length: 0\r\n"))[0] == 400
        made.may_create = True
        if subresource != "portforward":
            assert (await made.ask(path, headers=WEBSOCKET))[0] == 101


async def test_no_credential_and_no_identity_reaches_a_backend(certificates: Certificates) -> None:
    seen: list[dict[str, str]] = []

    async def kubelet(request: web.BaseRequest) -> web.StreamResponse:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=403)

    secrets = (
        "Authorization: Bearer s3cret\r\nX-Remote-User: root\r\nX-Remote-Group: system:masters\r\n"
        "X-Remote-Extra-Scopes: all\r\nImpersonate-User: root\r\n"
        "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.czNjcmV0, v4.channel.k8s.io\r\n"
    )
    async with cluster(certificates, kubelet) as made:
        websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        await made.ask(EXEC, headers=websocket + secrets)
        await made.ask("/api/v1/nodes/n/proxy/pods", headers=secrets + "Cookie: kept\r\n")
    for headers in seen:
        text = repr(headers)
        assert "s3cret" not in text and "czNjcmV0" not in text and "root" not in text and "masters" not in text
        assert headers["x-forwarded-for"] == "127.0.0.1"
    assert seen[0]["sec-websocket-protocol"] == "v4.channel.k8s.io"
    assert seen[1]["cookie"] == "kept"
    assert len(seen) == 2


def test_address_rule_is_gos_global_unicast() -> None:
    rule = AddressRule()
    refused = ["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "255.255.255.255",
               "::ffff:169.254.169.254", "", "name"]  # fmt: skip
    allowed = ["10.0.0.1", "192.168.1.1", "8.8.8.8", "240.0.0.1", "0.1.2.3", "2001:db8::1", "fd00::1"]
    assert [address for address in refused if rule.permits(address)] == []
    assert [address for address in allowed if not rule.permits(address)] == []
    assert AddressRule(["127.0.0.0/8"]).permits("127.0.10.1")
    assert not AddressRule(["127.0.0.0/8"]).permits("::1")
