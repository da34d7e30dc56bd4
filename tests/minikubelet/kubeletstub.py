"""A small API server in memory: enough of lists, watches, patches and reviews for a kubelet's tests."""

import asyncio
import copy
import itertools
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from wire.http import HTTPServer
from wire.protocol.status import failure, success

JSON = dict[str, Any]

MERGE_KEYS = {"conditions": "type", "podIPs": "ip", "hostIPs": "ip"}


def merged(old: Any, patch: JSON) -> JSON:
    """A merge patch with the merge keys a kubelet relies on."""
    out = dict(old or {})
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        elif key in MERGE_KEYS and isinstance(out.get(key), list):
            out[key] = merged_list(out[key], value, MERGE_KEYS[key])
        else:
            out[key] = value
    return out


def merged_list(old: list[JSON], patch: list[JSON], key: str) -> list[JSON]:
    items = {item[key]: item for item in old}
    for item in patch:
        if item.get("$patch") == "delete":
            items.pop(item[key], None)
        else:
            items[item[key]] = merged(items.get(item[key]), item)
    return list(items.values())


class StubAPI:
    """`async with` it; `objects` maps (collection path, name) to objects."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], JSON] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.log: list[tuple[int, str, str, JSON]] = []
        self.revision = 1
        self.changed = asyncio.Event()
        self.token_reviews: dict[str, JSON] = {}
        self.allow = lambda spec: True
        self.fail_next: list[tuple[str, int]] = []
        self._names = itertools.count()
        self._server = HTTPServer(self._handle)
        self.port = 0

    async def __aenter__(self) -> "StubAPI":
        await self._server.__aenter__()
        self.port = await self._server.listen("127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.__aexit__(None, None, None)

    def kubeconfig(self) -> str:
        return orjson.dumps({
            "kind": "Config", "apiVersion": "v1", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}).decode()

    # For tests

    def put(self, path: str, item: JSON) -> JSON:
        meta = item["metadata"]
        known = self.objects.get((path, meta["name"]))
        self.revision += 1
        meta.setdefault("uid", f"uid-{self.revision}")
        meta["resourceVersion"] = str(self.revision)
        if "/namespaces/" in path:
            meta.setdefault("namespace", path.split("/namespaces/")[1].split("/")[0])
        self.objects[path, meta["name"]] = item
        self._announce(path, "ADDED" if known is None else "MODIFIED", item)
        return item

    def remove(self, path: str, name: str) -> None:
        self.revision += 1
        item = self.objects.pop((path, name))
        item["metadata"]["resourceVersion"] = str(self.revision)
        self._announce(path, "DELETED", item)

    def get(self, path: str, name: str) -> JSON | None:
        return self.objects.get((path, name))

    def pod(self, name: str, namespace: str = "default") -> JSON:
        return self.objects[f"/api/v1/namespaces/{namespace}/pods", name]

    def put_pod(self, pod: JSON) -> JSON:
        return self.put(f"/api/v1/namespaces/{pod['metadata'].get('namespace', 'default')}/pods", pod)

    def delete_pod(self, name: str, grace: int, namespace: str = "default") -> None:
        pod = copy.deepcopy(self.pod(name, namespace))
        pod["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}
        self.put_pod(pod)

    def events(self) -> list[tuple[str, str]]:
        return [(item["reason"], item["message"]) for (path, _), item in self.objects.items()
                if path.endswith("/events")]

    def _announce(self, path: str, kind: str, item: JSON) -> None:
        self.log.append((self.revision, path, kind, copy.deepcopy(item)))
        self.changed.set()
        self.changed = asyncio.Event()

    # HTTP

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = urlsplit(str(request.rel_url)).path
        body = orjson.loads(data) if (data := await request.read()) else None
        self.requests.append((request.method, path, body))
        for index, (part, code) in enumerate(self.fail_next):
            if part in path:
                del self.fail_next[index]
                return _answer(failure(code, "InternalError", "made to fail"), code)
        if request.method == "GET" and request.query.get("watch") == "true":
            return await self._watch(request, path)
        return getattr(self, f"_{request.method.lower()}")(request, path, body)

    def _members(self, path: str) -> list[tuple[tuple[str, str], JSON]]:
        plural = path.rsplit("/", 1)[1]
        every = "/namespaces/" not in path
        return [(key, item) for key, item in self.objects.items()
                if key[0] == path or (every and key[0].endswith("/" + plural)
                                      and key[0].split("/namespaces/")[0] == path.rsplit("/", 1)[0])]

    def _get(self, request: web.BaseRequest, path: str, body: Any) -> web.Response:
        collection, _, name = path.rpartition("/")
        if (item := self.objects.get((collection, name))) is not None:
            return _answer(item)
        if path.rsplit("/", 1)[1] in COLLECTIONS:
            items = [item for _, item in self._members(path) if _selected(item, request)]
            return _answer({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": str(self.revision)},
                            "items": items})
        return _answer(failure(404, "NotFound", f'{collection.rsplit("/", 1)[1]} "{name}" not found'), 404)

    def _post(self, request: web.BaseRequest, path: str, body: JSON) -> web.Response:
        last = path.rsplit("/", 1)[1]
        if last == "tokenreviews":
            status = self.token_reviews.get(body["spec"]["token"], {"authenticated": False})
            return _answer(body | {"status": status}, 201)
        if last == "subjectaccessreviews":
            return _answer(body | {"status": {"allowed": self.allow(body["spec"])}}, 201)
        if last == "token":
            return _answer(body | {"status": {"token": f"token-{next(self._names)}",
                                              "expirationTimestamp": "2026-01-01T01:00:00Z"}}, 201)
        name = body["metadata"].get("name") or f"{body['metadata']['generateName']}{next(self._names)}"
        body["metadata"]["name"] = name
        if (path, name) in self.objects:
            return _answer(failure(409, "AlreadyExists", f'{last} "{name}" already exists'), 409)
        return _answer(self.put(path, body), 201)

    def _put(self, request: web.BaseRequest, path: str, body: JSON) -> web.Response:
        return _answer(self.put(path.rpartition("/")[0], body))

    def _patch(self, request: web.BaseRequest, path: str, body: JSON) -> web.Response:
        path = path.removesuffix("/status")
        collection, _, name = path.rpartition("/")
        item = self.objects.get((collection, name))
        if item is None:
            return _answer(failure(404, "NotFound", f'"{name}" not found'), 404)
        uid = (body.get("metadata") or {}).get("uid")
        if uid and uid != item["metadata"]["uid"]:
            return _answer(failure(409, "Conflict", "uid mismatch"), 409)
        return _answer(self.put(collection, copy.deepcopy(merged(item, body))))

    def _delete(self, request: web.BaseRequest, path: str, body: JSON | None) -> web.Response:
        collection, _, name = path.rpartition("/")
        item = self.objects.get((collection, name))
        if item is None:
            return _answer(failure(404, "NotFound", f'"{name}" not found'), 404)
        uid = ((body or {}).get("preconditions") or {}).get("uid")
        if uid and uid != item["metadata"]["uid"]:
            return _answer(failure(409, "Conflict", "uid mismatch"), 409)
        self.remove(collection, name)
        return _answer(success())

    async def _watch(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        since = int(request.query.get("resourceVersion") or 0)
        plural = path.rsplit("/", 1)[1]
        while True:
            changed = self.changed
            for revision, where, kind, item in list(self.log):
                mine = where == path or ("/namespaces/" not in path and where.endswith("/" + plural))
                if revision > since and mine and _selected(item, request):
                    await answer.write(orjson.dumps({"type": kind, "object": item}) + b"\n")
            since = self.revision
            await changed.wait()


COLLECTIONS = {"pods", "nodes", "services", "events", "configmaps", "secrets", "leases", "certificatesigningrequests"}


def _selected(item: JSON, request: web.BaseRequest) -> bool:
    selector = request.query.get("fieldSelector", "")
    if "metadata.name=" in selector:
        return bool(item["metadata"]["name"] == selector.partition("=")[2])
    if selector.startswith("spec.nodeName="):
        return bool(item["spec"].get("nodeName") == selector.partition("=")[2])
    return True


def _answer(body: JSON, code: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=code, content_type="application/json")
