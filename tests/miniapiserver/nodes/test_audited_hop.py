"""The audit event says what protected the hop to the node, by the facts of that connection."""

from aiohttp import web
from node_cluster import cluster
from wire_certificates import Certificates

from wire.http import HTTPServer

HOP = "miniplane.io/hop"


async def said(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=b"hello")


async def test_a_verified_log_and_a_plain_proxy_are_told_apart(certificates: Certificates) -> None:
    async with HTTPServer(said) as pod, cluster(certificates, said) as made:
        status, _ = await made.ask("/api/v1/namespaces/default/pods/p/log")
        assert (status, made.annotations[HOP]) == (200, "direct, verified")
        made.objects.pods["default", "p"]["status"] = {"podIPs": [{"ip": "127.0.0.1"}]}
        port = await pod.listen()
        status, _ = await made.ask(f"/api/v1/namespaces/default/pods/p:{port}/proxy/")
        assert (status, made.annotations[HOP]) == (200, "direct, plain")


async def test_a_kept_connection_is_noted_for_each_request(certificates: Certificates) -> None:
    async with cluster(certificates, said) as made:
        for _ in range(2):
            made.annotations.clear()
            await made.ask("/api/v1/namespaces/default/pods/p/log")
            assert made.annotations == {HOP: "direct, verified"}
