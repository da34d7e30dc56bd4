"""A client of the API server: get, list, create, update, patch, delete, watch, with a kubeconfig's credentials.

I own the connections to one API server and re-read credentials when their files change. Objects stay plain dicts.
`wire.informer` stands on me. Errors: `APIError` when the server answered with a Status, `WireError` when it did not.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import quote, urlencode

import orjson

from wire.connections import Ledger
from wire.errors import ConnectionLost, PeerProtocolError
from wire.httpclient import Answer, HTTPClient
from wire.kubeconfig import Access, load_access
from wire.net import dial_tcp, join_host_port
from wire.stream import Stream, open_stream
from wire.tls import Stamp

JSON = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

REQUEST_TIMEOUT = 60.0  # upstream's own limit for ordinary requests
WATCH_SECONDS = (300, 600)  # client-go's reflector: random, so that watches do not end together
MAX_EVENT = 64 * 1024 * 1024  # an object is at most 1.5 MiB in etcd; a list of bookmarks less. Above: not a watch.
CHECK_FILES_EVERY = 1.0

_log = logging.getLogger("wire.apiclient")


class APIError(Exception):
    """The API server said no. `status` is its whole Status."""

    def __init__(self, status: JSON) -> None:
        self.status = status
        self.code = int(status.get("code") or 0)
        self.reason = str(status.get("reason") or "")
        self.message = str(status.get("message") or "")
        super().__init__(f"{self.code} {self.reason}: {self.message}")

    REASONS: ClassVar[dict[str, type["APIError"]]] = {}

    @staticmethod
    def of(status: JSON) -> "APIError":
        """The subclass for this Status."""
        causes = (status.get("details") or {}).get("causes") or ()
        if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
            return NamespaceTerminating(status)
        return APIError.REASONS.get(str(status.get("reason") or ""), APIError)(status)


class NotFound(APIError):
    pass


class Conflict(APIError):
    pass


class AlreadyExists(APIError):
    pass


class Expired(APIError):
    """The resourceVersion is too old (410): list again."""


class Unauthorized(APIError):
    pass


class Forbidden(APIError):
    pass


class NamespaceTerminating(Forbidden):
    """Nothing new is made in a namespace that is going."""


class Invalid(APIError):
    pass


class TooManyRequests(APIError):
    pass


APIError.REASONS.update(
    {
        "NotFound": NotFound,
        "Conflict": Conflict,
        "AlreadyExists": AlreadyExists,
        "Expired": Expired,
        "Gone": Expired,
        "Unauthorized": Unauthorized,
        "Forbidden": Forbidden,
        "Invalid": Invalid,
        "TooManyRequests": TooManyRequests,
    }
)
_BY_CODE = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired", 422: "Invalid",
            429: "TooManyRequests"}  # fmt: skip


def resource_path(
    group: str,
    version: str,
    plural: str,
    namespace: str | None = None,
    name: str | None = None,
    subresource: str | None = None,
) -> str:
    """The URL path of a collection, an object or a subresource."""
    parts = ["/api" if not group else f"/apis/{group}", version]
    if namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(plural)
    if name:
        parts.append(quote(name, safe=""))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


class Client:
    """One API server, one identity. `async with` it; all methods may run side by side."""

    #: In what form collections are asked for.
    lists_as = watches_as = "application/json"

    def __init__(
        self,
        access: Access,
        *,
        user_agent: str = "miniplane",
        path: str | PathLike[str] | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._path = path
        self._ledger = ledger
        self._user_agent = user_agent
        self._checked = 0.0
        self._use(access)

    @classmethod
    def from_kubeconfig(
        cls, path: str | PathLike[str], user_agent: str = "miniplane", ledger: Ledger | None = None
    ) -> "Client":
        """A client for the file's current context. With a ledger its connections are entered there.

        Raises InvalidKubeconfig.
        """
        return cls(load_access(path), user_agent=user_agent, path=path, ledger=ledger)

    def _use(self, access: Access) -> None:
        self._access = access
        self._stamp: Stamp = access.stamp()
        self._context = access.ssl_context()
        token = access.bearer_token()
        self._headers = [("User-Agent", self._user_agent)]
        if token:
            self._headers.append(("Authorization", f"Bearer {token}"))
        self._http = HTTPClient(self._connect, join_host_port(access.host, access.port))

    async def _connect(self) -> Stream:
        access = self._access
        address = join_host_port(access.host, access.port)
        entry = None
        if self._ledger is not None:
            entry = self._ledger.record(source=self._user_agent, target=address, purpose="kubernetes API",
                                        credentials=access.credentials)  # fmt: skip
        try:
            sock = await dial_tcp(access.host, access.port)
            stream = await open_stream(sock, ssl=self._context, server_hostname=access.server_name, address=address)
        except BaseException as error:
            if entry is not None:
                entry.close(str(error) or type(error).__name__)
            raise
        if entry is not None:
            entry.connected(stream, access.ca_file or "kubeconfig")
        return stream

    def _refresh(self) -> None:
        """Follow the files: a rotated certificate or token is used from the next request on."""
        now = time.monotonic()
        if now - self._checked < CHECK_FILES_EVERY:
            return
        self._checked = now
        if self._access.stamp() == self._stamp:
            return
        old = self._http
        try:
            self._use(load_access(self._path) if self._path is not None else self._access)
        except (OSError, ValueError) as error:
            # Between two writes of a rotation: what we have still works, look again at the next request.
            _log.debug("credentials.unreadable error=%s", error)
            return
        old.drop_idle()
        _log.debug("credentials.reloaded server=%s", self.server)

    @property
    def server(self) -> str:
        access = self._access
        return f"{access.scheme}://{join_host_port(access.host, access.port)}{access.prefix}"

    @property
    def access(self) -> Access:
        return self._access

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    # Verbs

    async def get(self, path: str, **params: Any) -> JSON:
        return await self._json("GET", path, params)

    async def list(self, path: str, **params: Any) -> JSON:
        return await self._json("GET", path, params, accept=self.lists_as)

    async def create(self, path: str, body: Mapping[str, Any], **params: Any) -> JSON:
        return await self._json("POST", path, params, orjson.dumps(body))

    async def update(self, path: str, body: Mapping[str, Any], **params: Any) -> JSON:
        return await self._json("PUT", path, params, orjson.dumps(body))

    async def patch(
        self, path: str, body: Mapping[str, Any] | Sequence[Any], content_type: str = STRATEGIC, **params: Any
    ) -> JSON:
        return await self._json("PATCH", path, params, orjson.dumps(body), content_type)

    async def delete(self, path: str, body: Mapping[str, Any] | None = None, **params: Any) -> JSON:
        return await self._json("DELETE", path, params, orjson.dumps(body) if body is not None else None)

    async def get_text(self, path: str, **params: Any) -> str:
        """A body that is no JSON: `/healthz`, logs."""
        async with await self._send("GET", path, params) as answer:
            return (await answer.read()).decode("utf-8", "replace")

    async def stream(self, path: str, **params: Any) -> Answer:
        """An answer whose body is read as it comes (followed logs). The caller closes it."""
        return await self._send("GET", path, params)

    async def _json(
        self, method: str, path: str, params: Mapping[str, Any], body: bytes | None = None,
        content_type: str = "application/json", accept: str = "application/json",
    ) -> JSON:  # fmt: skip
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                async with await self._send(method, path, params, body, content_type, accept) as answer:
                    return _object(await answer.read())
        except TimeoutError as error:
            raise ConnectionLost(f"{method} {self.server}{path}: no answer in {REQUEST_TIMEOUT:.0f}s") from error

    async def _send(
        self, method: str, path: str, params: Mapping[str, Any], body: bytes | None = None,
        content_type: str = "application/json", accept: str = "application/json",
    ) -> Answer:  # fmt: skip
        self._refresh()
        headers = [*self._headers, ("Accept", accept)]
        if body is not None:
            headers.append(("Content-Type", content_type))
        answer = await self._http.request(method, self._access.prefix + path + _query(params), headers, body)
        if answer.status >= 400 or answer.status < 200:
            async with answer:
                raise APIError.of(_status(answer.status, await answer.read(1 << 20)))
        return answer

    async def watch(self, path: str, resource_version: str, **params: Any) -> AsyncIterator[tuple[str, JSON]]:
        """Events since `resource_version` as (type, object), until the server ends the watch.

        Raises Expired when the version is gone (as an answer or as an ERROR event). A connection that breaks in the
        middle raises ConnectionLost. Lines of any size up to 64 MiB are read.
        """
        asked: dict[str, Any] = {"watch": True, "allowWatchBookmarks": True, "resourceVersion": resource_version}
        asked |= params
        asked.setdefault("timeoutSeconds", random.randint(*WATCH_SECONDS))
        silence = float(asked["timeoutSeconds"]) + 30
        async with await self._send("GET", path, asked, accept=self.watches_as) as answer:
            async for line in _lines(answer, silence):
                event = _object(line)
                if event.get("type") == "ERROR":
                    raise APIError.of(event.get("object") or {})
                yield event["type"], event["object"]


async def _lines(answer: Answer, silence: float) -> AsyncIterator[bytes]:
    """Non-empty lines, in linear time however many pieces one line comes in."""
    held: list[bytes] = []
    size = 0
    while piece := await _chunk(answer, silence):
        *whole, rest = piece.split(b"\n")
        for line in whole:
            if held:
                held.append(line)
                line, held, size = b"".join(held), [], 0
            if line.strip():
                yield line
        if rest:
            held.append(rest)
            size += len(rest)
            if size > MAX_EVENT:
                raise PeerProtocolError(f"a watch event of more than {MAX_EVENT} bytes")
    if held:
        # The body ended as HTTP says it should, so this line is whole.
        yield b"".join(held)


async def _chunk(answer: Answer, silence: float) -> bytes:
    # The limit stands around the wait only: around a `yield` it would cancel whatever the consumer does then.
    try:
        async with asyncio.timeout(silence):
            return await answer.chunk()
    except TimeoutError as error:
        raise ConnectionLost(f"a watch said nothing for {silence:.0f}s and did not end") from error


def _object(data: bytes) -> JSON:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise PeerProtocolError(f"the API server answered with something that is no JSON: {data[:80]!r}") from error
    if not isinstance(value, dict):
        raise PeerProtocolError(f"the API server answered with {type(value).__name__}, not an object")
    return value


def _status(code: int, body: bytes) -> JSON:
    """The Status in a refusal; one made from the code if the body is none."""
    with contextlib.suppress(orjson.JSONDecodeError):
        value = orjson.loads(body)
        if isinstance(value, dict) and value.get("kind") == "Status":
            return {"code": code, **value}
    return {"code": code, "reason": _BY_CODE.get(code, ""), "message": body[:1000].decode("utf-8", "replace").strip()}


def _query(params: Mapping[str, Any]) -> str:
    pairs: list[tuple[str, str]] = []
    for name, value in params.items():
        if value is None:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        pairs += [(name, _word(item)) for item in values]
    return "?" + urlencode(pairs) if pairs else ""


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
