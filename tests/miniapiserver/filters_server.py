"""A whole API server inside a test: real storage and filters on a loopback port, no TLS, three users by token."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from miniapiserver.config import Config
from miniapiserver.registry.clock import Clock
from miniapiserver.server import Running, running
from wire.http import HTTPServer

JSON = dict[str, Any]

ADMIN, NOBODY = "admin-token-0123456789", "nobody-token-0123456789"
NAMESPACE = "/api/v1/namespaces/default"
CONFIGMAPS = f"{NAMESPACE}/configmaps"


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    headers: Any
    raw: bytes

    @property
    def body(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))


@dataclass(frozen=True, slots=True)
class Server:
    """Lives as long as `serving`. `session` is the admin's."""

    parts: Running
    port: int
    session: aiohttp.ClientSession
    folder: Path

    async def ask(self, method: str, path: str, body: Any = None, token: str = ADMIN, **headers: str) -> Answer:
        data = body if isinstance(body, bytes | None) else orjson.dumps(body)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent.setdefault("Content-Type", "application/json")
        if token:
            sent["Authorization"] = f"Bearer {token}"
        async with self.session.request(method, path, data=data, headers=sent) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, **headers)

    async def raw(self, request: bytes, seconds: float = 5.0) -> bytes:
        """Bytes in, all bytes out until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(seconds):
                return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def audit_lines(self) -> list[JSON]:
        return [orjson.loads(line) for line in (self.folder / "audit.log").read_bytes().splitlines()]


def config_of(folder: Path, **changes: Any) -> Config:
    for name in ("tls.crt", "tls.key"):
        (folder / name).touch()
    tokens = folder / "tokens.csv"
    tokens.write_text(f"{ADMIN},admin,1,system:masters\n{NOBODY},nobody,2\n")
    plain = Config(
        bind_address="127.0.0.1",
        tls_cert_file=folder / "tls.crt",
        tls_private_key_file=folder / "tls.key",
        token_auth_file=tokens,
        authorization_mode=("RBAC",),
        storage_path=folder / "storage.db",
        service_cluster_ip_range="127.96.0.0/28",
        service_node_port_range="30000-30007",
        audit_log_path=str(folder / "audit.log"),
        disable_admission_plugins=("ServiceAccount",),
    )
    return replace(plain, **changes)


@contextlib.asynccontextmanager
async def serving(folder: Path, **changes: Any) -> AsyncIterator[Server]:
    async with running(config_of(folder, **changes), Clock()) as parts, HTTPServer(parts.filters.handle) as http:
        await parts.bootstrap.run()
        port = await http.listen()
        connector = aiohttp.TCPConnector(limit=200)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:
            yield Server(parts, port, session, folder)
        await asyncio.sleep(0)


NUMBERS = itertools.count()


def config_map(name: str = "", **metadata: Any) -> JSON:
    return {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": name or f"cm-{next(NUMBERS)}"} | metadata,
        "data": {},
    }


def service(name: str, kind: str = "ClusterIP", **spec: Any) -> JSON:
    return {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"name": name},
        "spec": {"type": kind, "ports": [{"port": 80, "protocol": "TCP"}]} | spec,
    }
