"""Strict stand-ins for upstream's programs: they speak plain packets, know no extension and do as they are told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from konnectivity.grpclink import Call, GRPCLink
from konnectivity.listener import bind_tcp, serve_tls
from konnectivity.protocol.grpc import GRPCConnection
from konnectivity.protocol.grpcevents import CallOpened, Message, Metadata
from konnectivity.tls import ServerTLS
from tests.konnectivity.conftest import Certificates, until
from wire.protocol.konnectivity import Buffer, Data, Packet, data_head, decode, encode


class Peer:
    """One call: keeps what it receives, sends what the test says."""

    def __init__(self, link: GRPCLink) -> None:
        self.link = link
        self.call = 0
        self.metadata: Metadata | None = None
        self.packets: list[Packet] = []
        self.ended: tuple[int, str] | None = None
        self.acknowledges = True

    def on_accepted(self, metadata: Metadata) -> None:
        self.metadata = metadata

    def on_message(self, message: Message) -> None:
        packet = decode(bytes(message.payload))
        self.packets.append(Data(packet.connect_id, bytes(packet.data)) if isinstance(packet, Data) else packet)
        if self.acknowledges:
            self.link.connection.acknowledge(self.call, message.cost)

    def on_ended(self, status: int, text: str) -> None:
        self.ended = (status, text)

    def on_writable(self) -> None: ...

    def send(self, packet: Packet) -> None:
        self.link.send(self.call, encode(packet))

    def send_data(self, connect_id: int, data: Buffer) -> None:
        self.link.send(self.call, data_head(connect_id, len(data)), data)

    async def receive(self, kind: type, number: int = 1) -> Packet:
        """The `number`th packet of a kind."""
        await until(lambda: len(self.of(kind)) >= number or self.ended)
        return self.of(kind)[number - 1]

    def of(self, kind: type) -> list[Packet]:
        return [packet for packet in self.packets if isinstance(packet, kind)]


async def close(link: GRPCLink) -> None:
    link.close("test is over")
    async with asyncio.timeout(5):
        await asyncio.shield(link.closed)


@contextlib.asynccontextmanager
async def plain_agent(
    certificates: Certificates, port: int, metadata: Metadata | None = None
) -> AsyncIterator[Peer]:
    """An agent as upstream's: connected, introduced, and accepted unless the test expects otherwise."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(
        lambda: GRPCLink(GRPCConnection(client=True, call_window=4 << 20)),
        "127.0.0.1",
        port,
        ssl=certificates.client_context(),
        server_hostname="127.0.0.1",
    )
    peer = Peer(link)
    metadata = metadata or {"agentid": ["real"], "agentidentifiers": [""]}
    peer.call = link.open_call(peer, "/AgentService/Connect", metadata)
    await until(lambda: peer.metadata is not None or peer.ended)
    try:
        yield peer
    finally:
        await close(link)


@contextlib.asynccontextmanager
async def grpc_front(path: str) -> AsyncIterator[Peer]:
    """An API server in gRPC mode: one connection, one Proxy call."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(lambda: GRPCLink(GRPCConnection(client=True)), path)
    peer = Peer(link)
    peer.call = link.open_call(peer, "/ProxyService/Proxy", {})
    try:
        yield peer
    finally:
        await close(link)


class PlainServer:
    """A server as upstream's: accepts every agent under one id."""

    def __init__(self, server_id: str = "real-server", server_count: int = 1) -> None:
        self.port = 0
        self.agents: list[Peer] = []
        self.calls: list[CallOpened] = []
        self._links: set[GRPCLink] = set()
        self._answer = {"serverid": [server_id], "servercount": [str(server_count)]}

    def _make(self) -> GRPCLink:
        return GRPCLink(GRPCConnection(client=False, call_window=4 << 20), lambda *call: self._open(*call), self._links)

    def _open(self, link: GRPCLink, call: CallOpened) -> Call | None:
        peer = Peer(link)
        peer.call = call.call
        self.calls.append(call)
        self.agents.append(peer)
        link.connection.accept_call(call.call, self._answer)
        return peer

    async def agent(self) -> Peer:
        await until(lambda: self.agents)
        return self.agents[-1]

    async def aclose(self) -> None:
        for link in list(self._links):
            await close(link)


@contextlib.asynccontextmanager
async def plain_server(certificates: Certificates, server: PlainServer | None = None) -> AsyncIterator[PlainServer]:
    server = server or PlainServer()
    sock = bind_tcp("127.0.0.1", 0)
    server.port = sock.getsockname()[1]
    tls = ServerTLS(certificates.path("server.crt"), certificates.path("server.key"), certificates.path("ca.crt"))
    serving = asyncio.create_task(serve_tls(sock, tls, server._make))
    try:
        yield server
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await server.aclose()
