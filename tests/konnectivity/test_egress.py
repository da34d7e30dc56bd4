"""The API server's side: its three dialers against our server, in both front modes, and what a refusal means."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from konnectivity.agent.agent import Agent
from konnectivity.server.server import Server
from miniapiserver.egress.interface import Dialer
from miniapiserver.egress.konnectivity import ConnectOverTLS, ConnectOverUDS, GRPCOverUDS, refusal
from tests.konnectivity.conftest import Certificates, agent_config, echo, server_config, target, until
from wire.errors import DialError, DialRefused, DialTimeout, NoTunnel
from wire.tls import ClientTLS

Open = Callable[[Server, Certificates], Dialer]
WAYS: dict[str, tuple[str, bool, Open]] = {
    "http-connect over uds": ("http-connect", True, lambda server, _: ConnectOverUDS(server.config.uds_name)),
    "http-connect over tls": (
        "http-connect",
        False,
        lambda server, files: ConnectOverTLS(
            "127.0.0.1",
            server.front_port,
            ClientTLS(files.path("ca.crt"), files.path("client.crt"), files.path("client.key")),
        ),
    ),
    "grpc over uds": ("grpc", True, lambda server, _: GRPCOverUDS(server.config.uds_name)),
}


@contextlib.asynccontextmanager
async def serving(mode: str, over_uds: bool, certificates: Certificates, folder: Path) -> AsyncIterator[Server]:
    front = (
        {}
        if over_uds
        else {
            "uds_name": "",
            "server_bind_address": "127.0.0.1",
            "server_cert": certificates.path("server.crt"),
            "server_key": certificates.path("server.key"),
            "server_ca_cert": certificates.path("ca.crt"),
        }
    )
    async with Server(server_config(certificates, folder, mode=mode, **front)) as server:
        yield server


@pytest.fixture(params=WAYS)
async def way(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[tuple[Server, Dialer]]:
    mode, over_uds, open_dialer = WAYS[request.param]
    async with serving(mode, over_uds, certificates, tmp_path) as server:
        dialer = open_dialer(server, certificates)
        yield server, dialer
        await dialer.aclose()


@contextlib.asynccontextmanager
async def dialled(dialer: Dialer, port: int) -> AsyncIterator[socket.socket]:
    sock = await dialer.dial("127.0.0.1", port)
    try:
        yield sock
    finally:
        sock.close()


async def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await asyncio.get_running_loop().sock_recv(sock, size - len(data))):
        data += more
    return data


async def test_a_dialled_socket_carries_bulk_both_ways(way: tuple[Server, Dialer], certificates: Certificates) -> None:
    server, dialer = way
    async with Agent(agent_config(certificates, server)), target(echo) as port:
        await until(lambda: len(server.backends))
        async with dialled(dialer, port) as sock:
            blob = bytes(range(256)) * 12_000
            sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(sock, blob))
            assert await asyncio.wait_for(read(sock, len(blob)), 10) == blob
            await sending
        await until(lambda: server.open_connections == 0)


async def test_nothing_of_a_target_that_speaks_first_is_lost(
    way: tuple[Server, Dialer], certificates: Certificates
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read(1)

    server, dialer = way
    async with Agent(agent_config(certificates, server)), target(greet) as port:
        await until(lambda: len(server.backends))
        for _ in range(20):
            async with dialled(dialer, port) as sock:
                assert await asyncio.wait_for(read(sock, 5), 2) == b"hello"


async def test_the_end_of_the_target_is_the_end_of_the_socket(
    way: tuple[Server, Dialer], certificates: Certificates
) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 100_000)

    server, dialer = way
    async with Agent(agent_config(certificates, server)), target(leave) as port:
        await until(lambda: len(server.backends))
        async with dialled(dialer, port) as sock:
            assert await asyncio.wait_for(read(sock, 200_000), 5) == b"x" * 100_000


async def test_the_type_of_a_failed_dial_reaches_the_api_server(
    way: tuple[Server, Dialer], certificates: Certificates
) -> None:
    server, dialer = way
    async with Agent(agent_config(certificates, server)):
        await until(lambda: len(server.backends))
        with pytest.raises(DialRefused, match=r"127\.0\.0\.1:1 via konnectivity: .*connection refused"):
            await dialer.dial("127.0.0.1", 1)


async def test_no_agent_is_no_tunnel(way: tuple[Server, Dialer]) -> None:
    with pytest.raises(NoTunnel, match="No agent available"):
        await way[1].dial("127.0.0.1", 1)


async def test_no_server_is_no_tunnel(tmp_path: Path) -> None:
    for dialer in (ConnectOverUDS(str(tmp_path / "none")), GRPCOverUDS(str(tmp_path / "none"))):
        with pytest.raises(NoTunnel, match="proxy server"):
            await dialer.dial("127.0.0.1", 1)


async def test_a_front_client_of_another_ca_is_refused(
    certificates: Certificates, other_certificates: Certificates, tmp_path: Path
) -> None:
    files = other_certificates
    stranger = ClientTLS(certificates.path("ca.crt"), files.path("client.crt"), files.path("client.key"))
    async with serving("http-connect", False, certificates, tmp_path) as server:
        with pytest.raises(NoTunnel):
            await ConnectOverTLS("127.0.0.1", server.front_port, stranger).dial("127.0.0.1", 1)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"HTTP/1.1 504 Gateway Timeout\r\n\r\n", DialTimeout),
        (b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n", NoTunnel),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", DialError),
        (b"HTTP/1.1 502 Bad Gateway\r\nKonnectivity-Error: DialRefused\r\n\r\n", DialRefused),
        (b"HTTP/1.1 502 Bad Gateway\r\nKonnectivity-Error: Invented\r\n\r\n", DialError),
    ],
)
def test_a_refusals_type_is_the_servers_word_or_its_status(head: bytes, kind: type[DialError]) -> None:
    assert type(refusal("a:1", head, b"why")) is kind
