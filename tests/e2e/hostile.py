"""A peer that behaves badly: raw bytes over real TLS to a real API server, and what it costs the other side."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from certs import kubeconfig
from miniplane.apiclient import tls_context
from miniplane.testing import TestCluster

JSON = dict[str, Any]

NAMESPACE = "/api/v1/namespaces/default"
POD = f"{NAMESPACE}/pods/victim"
WEBSOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {}\r\n"
)
SPDY = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {}\r\nContent-Length: 0\r\n"


def head(method: str, target: str, headers: str = "Connection: close\r\n") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n".encode("latin-1")


def upgrade(target: str, protocol: str) -> bytes:
    """The head of a WebSocket upgrade, or of a SPDY one for the protocols of SPDY (`v4`, `portforward.k8s.io`)."""
    if protocol in ("v4.channel.k8s.io", "portforward.k8s.io"):
        return head("POST", target, SPDY.format(protocol))
    return head("GET", target, WEBSOCKET.format(protocol))


def frame(opcode: int, data: bytes, *, mask: bool = True, fin: bool = True, rsv: int = 0, length: int = -1) -> bytes:
    """A WebSocket frame, correct or not (RFC 6455 section 5.2)."""
    size = len(data) if length < 0 else length
    first, masked = bytes([(0x80 if fin else 0) | rsv | opcode]), 0x80 if mask else 0
    if size < 126:
        first += bytes([masked | size])
    else:
        wide = size >= 65536
        first += bytes([masked | (127 if wide else 126)]) + size.to_bytes(8 if wide else 2, "big")
    return first + (bytes(4) + data if mask else data)


def control(kind: int, data: bytes, *, flags: int = 0, version: int = 3) -> bytes:
    """A SPDY control frame."""
    return bytes([0x80, version, 0, kind, flags]) + len(data).to_bytes(3, "big") + data


@dataclass(frozen=True, slots=True)
class Peer:
    """One cluster as its enemy sees it; the credentials are the admin's."""

    cluster: TestCluster
    host: str
    port: int
    context: ssl.SSLContext

    @classmethod
    def of(cls, cluster: TestCluster) -> "Peer":
        where = urlsplit(cluster.url)
        context = tls_context(kubeconfig.load(cluster.kubeconfig).credentials())
        return cls(cluster, where.hostname or "", where.port or 443, context)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Aborted at the end, as by a client that is gone."""
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.context)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)

    async def exchange(self, request: bytes, seconds: float = 10.0) -> bytes:
        """All bytes that come back until the server closes; it must within `seconds`."""
        async with self.connection() as (reader, writer):
            writer.write(request)
            with contextlib.suppress(OSError):
                await writer.drain()
            got = b""
            async with asyncio.timeout(seconds):
                with contextlib.suppress(OSError):
                    while data := await reader.read(65536):
                        got += data
            return got

    async def ask(self, method: str, target: str, body: JSON | None = None, seconds: float = 10.0) -> tuple[int, JSON]:
        data = b"" if body is None else orjson.dumps(body)
        headers = f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        if method == "PATCH":
            headers = headers.replace("/json", "/merge-patch+json")
        before, _, after = (await self.exchange(head(method, target, headers) + data, seconds)).partition(b"\r\n\r\n")
        return int(before[9:12]), orjson.loads(after) if after.startswith(b"{") else {"text": after.decode()}

    async def stream(
        self, request: bytes, *pieces: bytes, linger: float = 1.5, seconds: float = 10.0
    ) -> tuple[int, bytes, bool]:
        """Upgrade, send pieces, wait: the status, what came behind the head, and whether the server closed."""
        async with self.connection() as (reader, writer):
            writer.write(request)
            async with asyncio.timeout(seconds):
                status = int((await reader.readuntil(b"\r\n\r\n"))[9:12])
            rest, closed = b"", False
            try:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.02)
                async with asyncio.timeout(linger):
                    while data := await reader.read(65536):
                        rest = (rest + data)[-4096:]
                    closed = True
            except TimeoutError:
                pass
            except OSError:
                closed = True
            return status, rest, closed

    async def running_pod(self, name: str = "victim", node: str = "") -> None:
        """A busy pod: a line of log every few hundredths of a second."""
        loop = "while true; do echo tick; sleep 0.05; done"
        container = {"name": "c", "image": "busybox", "command": ["sh", "-c", loop]}
        spec = {"terminationGracePeriodSeconds": 0, "containers": [container]} | ({"nodeName": node} if node else {})
        pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec}
        await self.ask("POST", f"{NAMESPACE}/pods", pod)
        for _ in range(200):
            _, found = await self.ask("GET", f"{NAMESPACE}/pods/{name}")
            if found.get("status", {}).get("phase") == "Running":
                return
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{name} does not run")

    def process(self, name: str) -> "Process":
        found = next(entry for entry in self.cluster.status()["processes"] if entry["name"] == name)
        return Process(found["pid"])


@dataclass(frozen=True, slots=True)
class Process:
    """What a process holds, as the kernel says."""

    pid: int

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def resident(self) -> int:
        """Bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descendants(self) -> set[int]:
        parents: dict[int, int] = {}
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        found, fresh = set(), {self.pid}
        while fresh:
            fresh = {pid for pid, parent in parents.items() if parent in fresh}
            found |= fresh
        return found
