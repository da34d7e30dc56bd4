"""nodes|pods|services/proxy: names, paths, headers, rewriting."""

import gzip
from typing import Any

import orjson
import pytest
from aiohttp import web
from node_cluster import Cluster, cluster
from stub_kubelet import handle as stub_kubelet
from wire_certificates import Certificates

from miniapiserver.endpoints.htmlrewrite import rewrite_page
from miniapiserver.endpoints.proxy import Proxied, rewritten_location
from miniapiserver.errors import BadRequest
from miniapiserver.location import ProxyID, proxied_path, proxy_id
from wire.http import HTTPServer
from wire.upgrade import TakenOver, request_upgrade, switching_protocols, take_over

PREFIX = "/api/v1/namespaces/default/pods/p/proxy"


async def echo(request: web.BaseRequest) -> web.StreamResponse:
    """What the backend saw, as JSON."""
    seen = {
        "method": request.method,
        "path": request.raw_path,
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "body": (await request.read()).decode(),
    }
    return web.Response(body=orjson.dumps(seen), headers={"X-Own": "1", "Access-Control-Allow-Origin": "*"})


def give_pod(made: Cluster, port: int, ip: str = "127.0.0.1") -> None:
    container = {"name": "c", "ports": [{"containerPort": port}]}
    made.objects.pods["default", "p"] = {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "first"}, container]},
        "status": {"podIPs": [{"ip": ip}]},
    }


async def ask_pod(certificates: Certificates, handler: Any, path: str, **more: Any) -> tuple[int, str, bytes]:
    async with HTTPServer(handler) as pod, cluster(certificates, stub_kubelet) as made:
        give_pod(made, await pod.listen())
        return await made.exchange(path, **more)


async def test_request_reaches_the_first_declared_port_rewritten(certificates: Certificates) -> None:
    headers = "X-Custom: 1\r\nTE: trailers\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Forwarded-For: 9.9.9.9\r\n"
    status, head, body = await ask_pod(
        certificates, echo, PREFIX + "/a/%2e%2e/b%20c/?q=1&q=%2F", method="PUT",
        headers=headers + "Content-Length: 4\r\n", body=b"data"
    )  # fmt: skip
    seen = orjson.loads(body)
    assert (status, seen["method"], seen["path"], seen["body"]) == (200, "PUT", "/b%20c/?q=1&q=%2F", "data")
    assert seen["headers"]["host"] == "api"
    assert seen["headers"]["x-custom"] == "1"
    assert seen["headers"]["x-forwarded-for"] == "9.9.9.9, 127.0.0.1"
    assert seen["headers"]["x-forwarded-uri"] == PREFIX + "/b%20c/"
    assert "x-forwarded-host" not in seen["headers"] and "x-hop" not in seen["headers"]
    assert "X-Own: 1" in head and "Access-Control" not in head
    assert "Cache-Control: no-cache, private" in head


async def test_chunked_body_is_forwarded(certificates: Certificates) -> None:
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    _, _, answer = await ask_pod(
        certificates, echo, PREFIX + "/x", method="POST", headers="Transfer-Encoding: chunked\r\n", body=body
    )
    assert orjson.loads(answer)["body"] == "hello world"


async def test_empty_path_redirects_a_reader_and_serves_a_writer(certificates: Certificates) -> None:
    status, head, _ = await ask_pod(certificates, echo, PREFIX + "?a=b")
    assert (status, f"Location: {PREFIX}/?a=b\r\n" in head) == (301, True)
    status, _, body = await ask_pod(certificates, echo, PREFIX, method="POST", headers="Content-Length: 0\r\n")
    assert (status, orjson.loads(body)["path"]) == (200, "/")


async def test_unreachable_pod_is_503_and_a_forbidden_address_400(certificates: Certificates) -> None:
    async with cluster(certificates, stub_kubelet) as made:
        give_pod(made, 1)
        status, body = await made.ask(PREFIX + "/")
        message = "error trying to reach service: dial tcp 127.0.0.1:1: connect: connection refused"
        assert (status, orjson.loads(body)["message"]) == (503, message)
        give_pod(made, 1, "169.254.169.254")
        status, body = await made.ask(PREFIX + "/")
        assert (status, orjson.loads(body)["message"]) == (400, "address not allowed")


async def test_half_an_answer_is_not_passed_on_as_a_whole_one(certificates: Certificates) -> None:
    async def broken(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    _, _, body = await ask_pod(certificates, broken, PREFIX + "/")
    assert b"half" in body and not body.endswith(b"0\r\n\r\n")


async def test_upgrade_through_the_proxy_keeps_its_query(certificates: Certificates) -> None:
    async def shouting(request: web.BaseRequest) -> web.StreamResponse:
        stream = await take_over(request, switching_protocols("echo"))
        stream.write(request.raw_path.encode())
        while data := await stream.read():
            stream.write(data.upper())
        await stream.aclose()
        return TakenOver()

    async with HTTPServer(shouting) as pod, cluster(certificates, stub_kubelet) as made:
        give_pod(made, await pod.listen())
        headers = [("Connection", "Upgrade"), ("Upgrade", "echo")]
        status, _, stream = await request_upgrade(await made.connect(), "GET", PREFIX + "/ws?x=1", headers, host="h")
        assert (status, await stream.read()) == (101, b"/ws?x=1")
        stream.write(b"hello")
        assert await stream.read() == b"HELLO"
        await stream.aclose()


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_pages_lead_back_through_the_proxy(encoding: str, certificates: Certificates) -> None:
    page = b'<html><a href="/x?a=1&amp;b=2">\xe9</a><img src=/i.png><a href="http://else.where/">o</a></html>'

    async def pages(request: web.BaseRequest) -> web.StreamResponse:
        body = gzip.compress(page) if encoding else page
        headers = {"Content-Type": "text/html; charset=latin-1"} | ({"Content-Encoding": encoding} if encoding else {})
        return web.Response(body=body, headers=headers)

    status, _, body = await ask_pod(certificates, pages, PREFIX + "/")
    text = gzip.decompress(body) if encoding else body
    changed = f'<html><a href="{PREFIX}/x?a=1&amp;b=2">é</a><img src="{PREFIX}/i.png">'.encode("latin-1")
    assert (status, text) == (200, changed + b'<a href="http://else.where/">o</a></html>')


async def test_node_proxy_uses_the_kubelets_tls_on_its_own_port_only(certificates: Certificates) -> None:
    async with cluster(certificates, echo) as made:
        for name in ("n", f"n:{made.kubelet_port}", f"http:n:{made.kubelet_port}"):
            assert (await made.ask(f"/api/v1/nodes/{name}/proxy/pods"))[0] == 200
            assert "CN=kube-apiserver-kubelet-client" in made.ledger.snapshot()[0]["credentials"]
        async with HTTPServer(echo) as other:
            port = await other.listen()
            assert (await made.ask(f"/api/v1/nodes/n:{port}/proxy/x"))[0] == 200
            entry = made.ledger.snapshot()[0]
            assert (entry["credentials"], entry["tls"]) == ("none", None)


def test_proxy_ids_have_three_forms() -> None:
    assert proxy_id("web", "pod") == ProxyID("", "web", "")
    assert proxy_id("web:80", "pod") == ProxyID("", "web", "80")
    assert proxy_id("https:web:", "pod") == ProxyID("https", "web", "")
    assert proxy_id(":web:port", "pod") == ProxyID("", "web", "port")
    for wrong in ("", ":80", "ftp:web:80", "a:b:c:d", "https::443"):
        with pytest.raises(BadRequest, match="invalid pod request"):
            proxy_id(wrong, "pod")


@pytest.mark.parametrize(
    ("tail", "path"),
    [("", ""), ("/", "/"), ("/a//b", "/a/b"), ("/../../etc/", "/etc/"), ("/a%2Fb", "/a/b"), ("/%2e%2e/x", "/x"),
     ("/a b", "/a%20b"), ("/a%3Fb", "/a%3Fb"), ("/%ff", "/%FF"), ("//evil.example/", "/evil.example/")],
)  # fmt: skip
def test_proxied_path_is_cleaned_and_can_not_climb(tail: str, path: str) -> None:
    assert proxied_path(tail) == path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/x?q#f", "/p/proxy/x?q#f"),
        ("/p/proxy/x", "/p/proxy/x"),
        ("http://10.0.0.1:80/x/", "/p/proxy/x/"),
        ("https://api/x", "https://api/p/proxy/x"),
        ("http://elsewhere/x", "http://elsewhere/x"),
        ("relative/x", "relative/x"),
        ("http://[bad", "http://[bad"),
    ],
)
def test_locations_of_the_backend_come_back_below_the_proxy(url: str, expected: str) -> None:
    assert rewritten_location(url, Proxied("/p/proxy", "10.0.0.1:80", "api")) == expected


def test_page_rewriting_touches_urls_only_and_survives_broken_html() -> None:
    def mark(url: str) -> str:
        return f"!{url}"

    assert rewrite_page('<a class="/x" href=\'/y\'>/z</a>', mark) == '<a class="/x" href="!/y">/z</a>'
    assert rewrite_page('<script src="/a">if (a<b) "<a href=/x>"</script>', mark) == (
        '<script src="!/a">if (a<b) "<a href=/x>"</script>'
    )
    for same in ("<!-- <a href=/x> -->", "a < b", '<a href="/x', "<a href='x' \"", "", "<p href=/x>"):
        assert rewrite_page(same, mark) == same
    assert rewrite_page('<a "' * 200_000, mark)


async def test_a_zip_bomb_of_a_page_is_passed_on_as_it_is(certificates: Certificates) -> None:
    bomb = gzip.compress(b"<p>" + bytes(50_000_000))

    async def pages(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Type": "text/html", "Content-Encoding": "gzip"})

    _, _, body = await ask_pod(certificates, pages, PREFIX + "/")
    assert body == bomb
