"""The API client and the informer, against a small server on a real socket."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from aiohttp import web
from wire_certificates import Certificates

from wire.apiclient import APIError, Client, Expired, Forbidden, NamespaceTerminating, NotFound, resource_path
from wire.errors import ConnectionLost, DialRefused
from wire.http import HTTPServer
from wire.informer import Informer
from wire.protocol.status import failure
from wire.tls import server_context

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def kubeconfig(
    path: Path, server: str, user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None
) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": server, **(cluster or {})}}],
                "users": [{"name": "u", "user": user or {}}],
            }
        )
    )
    return path


@contextlib.asynccontextmanager
async def serving(handler: Handler, tmp_path: Path) -> AsyncIterator[Client]:
    async with HTTPServer(handler) as server:
        port = await server.listen()
        config = kubeconfig(tmp_path / "config", f"http://127.0.0.1:{port}")
        async with Client.from_kubeconfig(config) as client:
            yield client


def answer(body: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def pod(name: str, version: int, **labels: str) -> dict[str, Any]:
    metadata = {"namespace": "default", "name": name, "resourceVersion": str(version), "labels": labels}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}


async def test_verbs_send_json_and_reuse_one_connection(tmp_path: Path) -> None:
    seen: list[tuple[str, str, bytes, Any]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        seen.append((request.method, request.path_qs, await request.read(), request.transport))
        return answer({"kind": "Pod", "ok": True})

    async with serving(handler, tmp_path) as client:
        await client.create("/api/v1/namespaces/a/pods", {"x": 1}, dryRun="All")
        await client.list("/api/v1/pods", labelSelector="a=b", watch=False)
        await client.delete("/api/v1/pods/p")
    assert [entry[:3] for entry in seen] == [
        ("POST", "/api/v1/namespaces/a/pods?dryRun=All", b'{"x":1}'),
        ("GET", "/api/v1/pods?labelSelector=a%3Db&watch=false", b""),
        ("DELETE", "/api/v1/pods/p", b""),
    ]
    assert len({id(entry[3]) for entry in seen}) == 1


async def test_a_refusal_is_raised_as_its_reason(tmp_path: Path) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/plain":
            return web.Response(status=410, text="gone")
        return answer(failure(404, "NotFound", 'pods "p" not found'), 404)

    async with serving(handler, tmp_path) as client:
        with pytest.raises(NotFound) as caught:
            await client.get("/api/v1/namespaces/a/pods/p")
        assert (caught.value.code, caught.value.message) == (404, 'pods "p" not found')
        with pytest.raises(Expired):
            await client.get("/plain")


def test_a_namespace_that_is_going_is_told_by_the_cause() -> None:
    status = {"reason": "Forbidden", "code": 403, "details": {"causes": [{"reason": "NamespaceTerminating"}]}}
    assert type(APIError.of(status)) is NamespaceTerminating
    assert type(APIError.of(status | {"details": {}})) is Forbidden


async def test_nobody_listening_is_a_dial_error(tmp_path: Path) -> None:
    client = Client.from_kubeconfig(kubeconfig(tmp_path / "c", "http://127.0.0.1:1"))
    with pytest.raises(DialRefused, match=r"dial tcp 127.0.0.1:1: connect: connection refused"):
        await client.get("/api")


async def test_lists_and_watches_are_asked_for_in_their_own_forms(tmp_path: Path) -> None:
    accepted: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        accepted.append(request.headers["Accept"])
        return web.Response() if "watch" in request.query else answer({"ok": True})

    async with serving(handler, tmp_path) as client:
        client.lists_as, client.watches_as = "application/json;as=L", "application/json;as=W"
        await client.list("/api/v1/pods")
        assert [event async for event in client.watch("/api/v1/pods", "1")] == []
        await client.get("/api/v1/pods/p")
    assert accepted == ["application/json;as=L", "application/json;as=W", "application/json"]


async def test_watch_reads_an_event_of_ten_megabytes_in_small_pieces(tmp_path: Path) -> None:
    big = pod("big", 2, blob="x" * 10_000_000)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        line = orjson.dumps({"type": "ADDED", "object": big}) + b"\n"
        line += b'{"type":"BOOKMARK","object":{"metadata":{}}}\n'
        for start in range(0, len(line), 50_000):
            await response.write(line[start : start + 50_000])
        return response

    async with serving(handler, tmp_path) as client:
        events = [event async for event in client.watch("/api/v1/pods", "1")]
    assert events == [("ADDED", big), ("BOOKMARK", {"metadata": {}})]


async def test_watch_that_is_cut_off_is_not_reported_as_ended(tmp_path: Path) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type":"ADDED","object":{"metadata":{}}}\n')
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(handler, tmp_path) as client:
        events = []
        with pytest.raises(ConnectionLost):
            async for event in client.watch("/api/v1/pods", "1"):
                events.append(event)
        assert len(events) == 1


async def test_error_event_410_is_expired(tmp_path: Path) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return answer({"type": "ERROR", "object": failure(410, "Expired", "too old resource version: 1 (5)")})

    async with serving(handler, tmp_path) as client:
        with pytest.raises(Expired, match="too old"):
            async for _ in client.watch("/api/v1/pods", "1"):
                pass


async def test_client_certificate_and_rotated_token_are_used(tmp_path: Path, certificates: Certificates) -> None:
    seen: list[tuple[str, str]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        peer = request.get_extra_info("ssl_object").getpeercert()
        seen.append((str(peer["subject"]), request.headers.get("Authorization", "")))
        return answer({})

    token = tmp_path / "token"
    token.write_text("first")
    encode = lambda path: base64.b64encode(Path(path).read_bytes()).decode()  # noqa: E731
    user = {
        "client-certificate-data": encode(certificates.client_cert),
        "client-key-data": encode(certificates.client_key),
        "tokenFile": str(token),
    }
    async with HTTPServer(handler) as server:
        context = server_context(certificates.cert, certificates.key, [certificates.ca])
        port = await server.listen(ssl_context=context)
        cluster = {"certificate-authority-data": encode(certificates.ca)}
        config = kubeconfig(tmp_path / "c", f"https://127.0.0.1:{port}", user, cluster)
        async with Client.from_kubeconfig(config) as client:
            await client.get("/api")
            token.write_text("second!")
            client._checked = 0.0
            await client.get("/api")
    assert [who[1] for who in seen] == ["Bearer first", "Bearer second!"]
    assert "me" in seen[0][0]


class Collection:
    """A pods collection that serves list and watch from scripted answers."""

    def __init__(self) -> None:
        self.lists: list[dict[str, Any]] = []
        self.watches: asyncio.Queue[list[dict[str, Any]] | None] = asyncio.Queue()
        self.asked: list[str] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        version = request.query.get("resourceVersion", "")
        if request.query.get("watch") != "true":
            self.asked.append(f"list {version}")
            return answer(self.lists.pop(0))
        self.asked.append(f"watch {version}")
        response = web.StreamResponse()
        await response.prepare(request)
        while (events := await self.watches.get()) is not None:
            for event in events:
                await response.write(orjson.dumps(event) + b"\n")
        return response


def listing(version: int, *items: dict[str, Any]) -> dict[str, Any]:
    bare = [{key: item[key] for key in item if key not in ("kind", "apiVersion")} for item in items]
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}, "items": bare}


async def test_informer_follows_and_relists_after_410(tmp_path: Path) -> None:
    collection = Collection()
    collection.lists = [listing(5, pod("a", 3), pod("b", 4)), listing(20, pod("a", 3), pod("c", 19))]
    changes: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async with serving(collection, tmp_path) as client:
        informer = Informer(client, "/api/v1/pods")
        informer.subscribe(lambda kind, new, old: changes.put_nowait((kind, (new or old or {})["metadata"]["name"])))
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(informer.run())
            await informer.synced.wait()
            collection.watches.put_nowait([{"type": "MODIFIED", "object": pod("b", 6)}])
            collection.watches.put_nowait([{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}])
            collection.watches.put_nowait(None)
            first = [await changes.get() for _ in range(3)]
            gone = {"type": "ERROR", "object": failure(410, "Expired", "too old")}
            collection.watches.put_nowait([gone])
            collection.watches.put_nowait(None)
            second = [await changes.get() for _ in range(2)]
            task.cancel()
    assert first == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "b")]
    assert second == [("DELETED", "b"), ("ADDED", "c")]
    assert collection.asked[:4] == ["list 0", "watch 5", "watch 9", "list "]
    assert informer.objects[("default", "a")]["kind"] == "Pod"


def test_resource_path_names_every_form() -> None:
    assert resource_path("", "v1", "pods", "a", "p", "log") == "/api/v1/namespaces/a/pods/p/log"
    assert resource_path("apps", "v1", "deployments") == "/apis/apps/v1/deployments"
    assert resource_path("", "v1", "nodes", name="n:1") == "/api/v1/nodes/n%3A1"


def test_an_error_without_status_keeps_the_code() -> None:
    assert APIError.of({"code": 500, "message": "x"}).code == 500
