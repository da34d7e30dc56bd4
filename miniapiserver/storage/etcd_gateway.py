"""etcd's JSON gateway: requests to one of several endpoints.

My job: POST JSON to `/v3/...`, try the next endpoint when one cannot be reached, turn every failure into
`StorageUnavailable` or `EtcdError`, read the watch stream. I own the HTTP session and know no Kubernetes.

Why the gateway and no client library: the asyncio clients on PyPI are unmaintained or bring grpc (etcd3gw is
synchronous, aetcd and etcetra pin old protobuf); the gateway is part of every etcd since 3.2 and aiohttp is here
already, so the `etcd` extra needs nothing. With client certificates etcd itself dials its gateway with its server
certificate, which therefore needs the usage clientAuth as well (kubeadm's has it), and users cannot be told by CN.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from io import BytesIO
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from miniapiserver.storage.interface import StorageError, StorageUnavailable

REQUEST_TIMEOUT = 10.0
CONNECT_TIMEOUT = 3.0
LARGE = 256 << 10
OUT_OF_RANGE = 11  # grpc: a revision that is compacted or not yet written
UNANSWERABLE = (4, 8, 13, 14)  # deadline, out of space or too many requests, internal, unavailable (no leader)

JSON = dict[str, Any]


class EtcdError(StorageError):
    """etcd answered with a grpc status that is not about its health."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Gateway:
    """Lives as an async context. The endpoint that answered last is asked first."""

    def __init__(self, endpoints: Sequence[str], tls: ssl.SSLContext | None) -> None:
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self._tls = tls

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else True, limit=256)
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout,
                                              headers={"Content-Type": "application/json"})
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self._session.close()

    async def post(self, path: str, body: JSON) -> JSON:
        """Reads may go to any endpoint again; so may what never reached one. Raises StorageUnavailable, EtcdError."""
        payload = orjson.dumps(body)
        failures = []
        for endpoint in tuple(self._endpoints):
            try:
                # From a file object aiohttp sends in pieces: a large body would hold up the loop.
                data = payload if len(payload) < LARGE else BytesIO(payload)
                async with self._session.post(endpoint + path, data=data) as response:
                    answer: JSON = orjson.loads(await response.read())
                    status = response.status
            except aiohttp.ClientConnectorError as error:
                failures.append(f"{endpoint}: {error}")
                self._demote(endpoint)
                continue
            except (TimeoutError, aiohttp.ClientError, orjson.JSONDecodeError) as error:
                self._demote(endpoint)
                raise StorageUnavailable(f"etcd {endpoint}{path}: {str(error) or type(error).__name__}") from error
            return _checked(answer, status, endpoint + path)
        raise StorageUnavailable("etcd: " + "; ".join(failures))

    async def stream(self, path: str, body: JSON, idle: float) -> AsyncGenerator[JSON | None, None]:
        """The `result` objects of a streaming call; None whenever `idle` seconds passed without one."""
        endpoint = self._endpoints[0]
        unlimited = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
        try:
            async with (self._session.post(endpoint + path, data=orjson.dumps(body), timeout=unlimited) as response,
                        aclosing(_lines(response.content, idle)) as lines):
                async for line in lines:
                    if line is None:
                        yield None
                    else:
                        yield _checked(orjson.loads(line), response.status, endpoint + path)["result"]
        except (TimeoutError, aiohttp.ClientError, orjson.JSONDecodeError) as error:
            self._demote(endpoint)
            raise StorageUnavailable(f"etcd {endpoint}{path}: {str(error) or type(error).__name__}") from error
        self._demote(endpoint)
        raise StorageUnavailable(f"etcd {endpoint}{path}: the stream ended")

    def _demote(self, endpoint: str) -> None:
        self._endpoints.remove(endpoint)
        self._endpoints.append(endpoint)


def _checked(answer: JSON, status: int, where: str) -> JSON:
    error = answer.get("error")
    if error is None and status == 200:
        return answer
    fields = error if isinstance(error, dict) else answer
    code = int(fields.get("grpc_code") or fields.get("code") or 0)
    message = f"{where}: {fields.get('message', error)}"
    if code in UNANSWERABLE:
        raise StorageUnavailable(message)
    raise EtcdError(code, message)


async def _lines(content: aiohttp.StreamReader, idle: float) -> AsyncGenerator[bytes | None, None]:
    """Lines of any length (`readline` has a limit that an event may pass); None after `idle` seconds of silence."""
    parts: list[bytes] = []
    while True:
        try:
            async with asyncio.timeout(idle):
                chunk = await content.readany()
        except TimeoutError:
            yield None
            continue
        if not chunk:
            return
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            parts.append(line)
            yield b"".join(parts)
            parts.clear()
        if rest:
            parts.append(rest)
