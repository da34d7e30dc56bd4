"""What probes and lifecycle hooks do: exec, httpGet, tcpSocket, grpc, sleep.

My job: run one handler once and say how it went, in upstream's words. I own each connection and process for the
length of one call. Neighbours: `probes`, `hooks`. Rule: a handler never outlives its timeout.
"""

import asyncio
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin, urlsplit

from minikubelet.pods.grpchealth import GRPCError, HealthCall, Serving
from minikubelet.pods.grpchealth import request as health_request
from minikubelet.runtime.interface import ByteSource, Container, RuntimeFailure
from wire.errors import DialError, DialTimeout, WireError
from wire.httpclient import HTTPClient
from wire.net import dial_tcp, join_host_port
from wire.stream import Stream, open_stream
from wire.tls import client_context

JSON = dict[str, Any]

MAX_OUTPUT = 10 * 1024
MAX_REDIRECTS = 10
USER_AGENT = "kube-probe/1.36"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call went; `output` is what the user is told."""

    ok: bool
    output: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Which container a handler acts on, and where the pod can be reached."""

    container: Container
    spec: JSON
    pod_ip: str


async def run(handler: JSON, target: Target, timeout: float) -> Outcome:
    """One probe handler."""
    try:
        if action := handler.get("exec"):
            return await execute(tuple(action.get("command") or ()), target.container, timeout)
        if action := handler.get("httpGet"):
            return await http_get(action, target, timeout)
        if action := handler.get("tcpSocket"):
            return await tcp_connect(action, target, timeout)
        if action := handler.get("grpc"):
            return await grpc_check(action, target, timeout)
    except UnknownPort as error:
        return Outcome(False, str(error))
    return Outcome(False, "missing probe handler")


class UnknownPort(Exception):
    """A handler names a port the container does not have."""


def resolve_port(port: int | str, spec: JSON) -> int:
    if isinstance(port, int) or port.isdigit():
        number = int(port)
    else:
        named = (item for item in spec.get("ports") or () if item.get("name") == port)
        found = next(named, None)
        if found is None:
            raise UnknownPort(f"couldn't find port: {port}")
        number = int(found["containerPort"])
    if not 0 < number < 65536:
        raise UnknownPort(f"invalid port number: {number}")
    return number


# exec

async def execute(argv: tuple[str, ...], container: Container, timeout: float) -> Outcome:
    """The command's exit code decides; its output (both streams, 10 KiB of it) is the message."""
    output = bytearray()
    try:
        async with asyncio.timeout(timeout), await container.exec(argv) as process:
            async with asyncio.TaskGroup() as readers:
                readers.create_task(_collect(process.stdout, output), name="probe stdout")
                if process.stderr is not None:
                    readers.create_task(_collect(process.stderr, output), name="probe stderr")
            status = await process.wait()
    except TimeoutError:
        return Outcome(False, f'command timed out: "{" ".join(argv)}" timed out after {timeout:g}s')
    except RuntimeFailure as error:
        return Outcome(False, str(error))
    return Outcome(status.code == 0, output.decode("utf-8", "replace"))


async def _collect(source: ByteSource, output: bytearray) -> None:
    while data := await source.read():
        output += data[:max(MAX_OUTPUT - len(output), 0)]


# HTTP

async def http_get(action: JSON, target: Target, timeout: float) -> Outcome:
    host = action.get("host") or target.pod_ip
    scheme = (action.get("scheme") or "HTTP").lower()
    port = resolve_port(action["port"], target.spec)
    path = action.get("path") or "/"
    url = f"{scheme}://{join_host_port(host, port)}{path if path.startswith('/') else '/' + path}"
    headers = {item["name"]: item.get("value", "") for item in action.get("httpHeaders") or ()}
    try:
        async with asyncio.timeout(timeout):
            return await _follow(url, headers)
    except TimeoutError:
        return Outcome(False, f'Get "{url}": context deadline exceeded '
                              "(Client.Timeout exceeded while awaiting headers)")
    except (WireError, ValueError) as error:
        return Outcome(False, f'Get "{url}": {error}')


async def _follow(url: str, headers: dict[str, str]) -> Outcome:
    """Redirects within the host are followed; one to another host counts as success, as upstream has it."""
    first = urlsplit(url).hostname
    for _ in range(MAX_REDIRECTS):
        status, location, body = await _get(url, headers)
        if status not in (301, 302, 303, 307, 308) or not location:
            break
        url = urljoin(url, location)
        if urlsplit(url).hostname != first:
            return Outcome(True, "Probe terminated redirects, Response body: " + body)
    if 200 <= status < 400:
        return Outcome(True, body)
    return Outcome(False, f"HTTP probe failed with statuscode: {status}")


async def _get(url: str, headers: dict[str, str]) -> tuple[int, str, str]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)

    async def connect() -> Stream:
        sock = await dial_tcp(host, port)
        return await open_stream(sock, ssl=_unverified() if secure else None, server_hostname=host if secure else None)

    named = {key.lower(): key for key in headers}
    authority = headers.get(named.get("host", ""), parts.netloc)
    sent = [(key, value) for key, value in headers.items() if key.lower() != "host"]
    if "user-agent" not in named:
        sent.append(("User-Agent", USER_AGENT))
    if "accept" not in named:
        sent.append(("Accept", "*/*"))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    client = HTTPClient(connect, authority)
    async with await client.request("GET", path, [*sent, ("Connection", "close")]) as answer:
        body = await answer.read(MAX_OUTPUT)
        location = answer.head.get("location") or ""
        return answer.status, location, body.decode("utf-8", "replace")


@lru_cache(maxsize=1)
def _unverified() -> ssl.SSLContext:
    # A probe asks whether somebody answers; upstream does not verify either.
    return client_context(None, verify=False)


# TCP and gRPC

async def tcp_connect(action: JSON, target: Target, timeout: float) -> Outcome:
    host = action.get("host") or target.pod_ip
    port = resolve_port(action["port"], target.spec)
    try:
        (await dial_tcp(host, port, timeout=timeout)).close()
    except DialError as error:
        return Outcome(False, str(error))
    return Outcome(True)


async def grpc_check(action: JSON, target: Target, timeout: float) -> Outcome:
    host, port = target.pod_ip, int(action["port"])
    service, address = action.get("service") or "", join_host_port(target.pod_ip, int(action["port"]))
    try:
        async with asyncio.timeout(timeout):
            stream = await open_stream(await dial_tcp(host, port, timeout=timeout))
            try:
                verdict = await _check_health(stream, address, service)
            finally:
                stream.abort()
    except (TimeoutError, DialTimeout):
        return Outcome(False, f'timeout: health rpc did not complete within {timeout:g}s')
    except DialError:
        return Outcome(False, f'timeout: failed to connect service "{address}" within {timeout:g}s: connection refused')
    except (GRPCError, WireError) as error:
        return Outcome(False, f"error: health rpc probe failed: {error}")
    if verdict is Serving.SERVING:
        return Outcome(True, "service healthy")
    return Outcome(False, f'service unhealthy (responded with "{verdict.name}")')


async def _check_health(stream: Stream, authority: str, service: str) -> Serving:
    call = HealthCall()
    stream.write(health_request(authority, service))
    await stream.drain()
    while call.verdict is None:
        data = await stream.read()
        if not data:
            call.feed_eof()
        if reply := call.feed(data):
            stream.write(reply)
            await stream.drain()
    return call.verdict
