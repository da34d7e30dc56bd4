"""A server and an agent in this process, with certificates of their own, and targets for them to reach."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from konnectivity.agent.agent import Agent
from konnectivity.agent.config import Config as AgentConfig
from konnectivity.server.config import Config as ServerConfig
from konnectivity.server.server import Server

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Certificates:
    """Files of one CA: a server, a client."""

    folder: Path

    def write(self) -> "Certificates":
        self.folder.mkdir(exist_ok=True)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.folder / "ca.crt"))
        for name, leaf in (
            ("server", authority.issue_cert("127.0.0.1", "localhost")),
            ("client", authority.issue_cert("agent")),
        ):
            (self.folder / f"{name}.key").write_bytes(leaf.private_key_pem.bytes())
            (self.folder / f"{name}.crt").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        return self

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def client_context(self, alpn: str = "h2", with_certificate: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.path("ca.crt"))
        context.set_alpn_protocols([alpn])
        if with_certificate:
            context.load_cert_chain(self.path("client.crt"), self.path("client.key"))
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("cluster")).write()


@pytest.fixture(scope="session")
def other_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of a CA nobody here trusts."""
    return Certificates(tmp_path_factory.mktemp("stranger")).write()


def server_config(certificates: Certificates, folder: Path, **changes: Any) -> ServerConfig:
    config = ServerConfig(
        mode="http-connect",
        uds_name=str(folder / "front.sock"),
        server_port=0,
        agent_port=0,
        agent_bind_address="127.0.0.1",
        admin_port=0,
        health_port=0,
        health_bind_address="127.0.0.1",
        cluster_cert=certificates.path("server.crt"),
        cluster_key=certificates.path("server.key"),
        cluster_ca_cert=certificates.path("ca.crt"),
    )
    return replace(config, **changes)


def agent_config(certificates: Certificates, server: Server | int, **changes: Any) -> AgentConfig:
    config = AgentConfig(
        ca_cert=certificates.path("ca.crt"),
        agent_cert=certificates.path("client.crt"),
        agent_key=certificates.path("client.key"),
        proxy_server_host="127.0.0.1",
        proxy_server_port=server if isinstance(server, int) else server.agent_port,
        health_server_host="127.0.0.1",
        health_server_port=0,
        admin_server_port=0,
        sync_interval=0.1,
        probe_interval=0.1,
    )
    return replace(config, **changes)


async def until(condition: Callable[[], object], timeout: float = 5.0) -> None:
    """Until a fact that has no event of its own is true; fails after `timeout`."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def target(handler: Handler) -> AsyncIterator[int]:
    """A TCP server on loopback; its port. Connections are closed behind their handlers, and all at the end."""
    running: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(handle(reader, writer))
        running[task] = writer
        task.add_done_callback(running.pop)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        left = dict(running)
        for task, writer in left.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*left, return_exceptions=True)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@dataclass
class Client:
    """The API server's end of one CONNECT connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answer: bytes

    async def aclose(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@dataclass
class Plane:
    """A server, an agent, and the way in."""

    server: Server
    agent: Agent

    async def connect(self, port: int, host: str = "127.0.0.1") -> Client:
        return await connect(self.server.config.uds_name, f"{host}:{port}")


async def connect(path: str, address: str) -> Client:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"CONNECT {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    return Client(reader, writer, answer)


@pytest.fixture
async def plane(certificates: Certificates, tmp_path: Path) -> AsyncIterator[Plane]:
    server = Server(server_config(certificates, tmp_path))
    async with server, Agent(agent_config(certificates, server)) as agent:
        await until(lambda: len(server.backends))
        yield Plane(server, agent)
