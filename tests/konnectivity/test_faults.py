"""Things that break in the middle, and peers that misbehave: bounded, logged once, and nothing is left behind."""

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from konnectivity import link as link_module
from konnectivity.agent.agent import Agent
from konnectivity.protocol import http2frames as frames
from konnectivity.server.server import Server
from tests.konnectivity.conftest import Certificates, Plane, agent_config, connect, echo, server_config, target, until
from tests.konnectivity.peers import grpc_front, plain_agent, plain_server
from wire.protocol.konnectivity import (
    CloseRequest,
    CloseResponse,
    Data,
    DialRequest,
    DialResponse,
    Drain,
    Unknown,
    encode,
)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_1000_kills_leave_no_task_no_socket_and_no_connection(plane: Plane) -> None:
    chance = random.Random(4)
    async with target(echo) as port:
        await (await plane.connect(port)).aclose()
        await until(lambda: plane.agent.sync.connections == 0 and plane.server.open_connections == 0)
        tasks, files = len(asyncio.all_tasks()), open_files()

        async def kill_one() -> None:
            reader, writer = await asyncio.open_unix_connection(plane.server.config.uds_name)
            writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
            moment = chance.random()
            if moment > 0.3:
                await reader.readuntil(b"\r\n\r\n")
            if moment > 0.6:
                writer.write(bytes(200_000))
            if moment > 0.8:
                await reader.readexactly(1000)
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        for _ in range(20):
            await asyncio.gather(*(kill_one() for _ in range(50)))
        await until(lambda: plane.agent.sync.connections == 0 and plane.server.open_connections == 0, 10)
        await until(lambda: len(asyncio.all_tasks()) <= tasks and open_files() <= files, 10)
        # The agent's last answers may wait a moment for company.
        await until(lambda: all(not backend.pending_dials and not backend.load for backend in plane.server.backends))
        assert len(plane.server.backends) == 1


async def test_killing_the_agent_ends_its_connections_and_another_one_takes_over(
    certificates: Certificates, tmp_path: Path
) -> None:
    async with Server(server_config(certificates, tmp_path)) as server, target(echo) as port:
        async with Agent(agent_config(certificates, server, agent_id="one")):
            await until(lambda: len(server.backends) == 1)
            client = await connect(server.config.uds_name, f"127.0.0.1:{port}")
        assert await asyncio.wait_for(client.reader.read(), 2) == b""
        await client.aclose()
        refused = await connect(server.config.uds_name, f"127.0.0.1:{port}")
        assert refused.answer.startswith(b"HTTP/1.1 500 ")
        assert b"currently no tunnels available" in await refused.reader.read()
        await refused.aclose()
        async with Agent(agent_config(certificates, server, agent_id="two")):
            await until(lambda: len(server.backends) == 1)
            again = await connect(server.config.uds_name, f"127.0.0.1:{port}")
            assert again.answer.startswith(b"HTTP/1.1 200 ")
            await again.aclose()


async def test_agents_are_back_within_two_seconds_of_a_server_that_restarts(
    certificates: Certificates, tmp_path: Path
) -> None:
    config = server_config(certificates, tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(contextlib.AsyncExitStack())
        server = await first.enter_async_context(Server(config))
        await stack.enter_async_context(Agent(agent_config(certificates, server, sync_interval=1.0)))
        await until(lambda: len(server.backends))
        port = server.agent_port
        await first.aclose()
        await asyncio.sleep(1.0)  # away for a while, so that the agent has failed at least once
        again = await stack.enter_async_context(Server(replace(config, agent_port=port)))
        await until(lambda: len(again.backends), 2.0)


async def test_a_dial_in_progress_moves_to_another_agent_when_its_own_is_lost(
    certificates: Certificates, tmp_path: Path
) -> None:
    async with (
        Server(server_config(certificates, tmp_path)) as server,
        target(echo) as port,
        contextlib.AsyncExitStack() as stack,
    ):
        silent = await stack.enter_async_context(plain_agent(certificates, server.agent_port))
        dialling = asyncio.create_task(connect(server.config.uds_name, f"127.0.0.1:{port}"))
        await silent.receive(DialRequest)
        async with Agent(agent_config(certificates, server)):
            await until(lambda: len(server.backends) == 2)
            silent.link.close("lost")
            client = await asyncio.wait_for(dialling, 3)
            assert client.answer.startswith(b"HTTP/1.1 200 ")
            await client.aclose()


async def test_a_dial_nobody_answers_is_504_after_its_deadline(certificates: Certificates, tmp_path: Path) -> None:
    config = server_config(certificates, tmp_path, backend_dial_timeout=0.2)
    async with Server(config) as server, plain_agent(certificates, server.agent_port) as silent:
        client = await connect(config.uds_name, "10.0.0.1:80")
        assert client.answer.startswith(b"HTTP/1.1 504 ")
        await client.aclose()
        # The agent's late answer is closed, not kept.
        asked = await silent.receive(DialRequest)
        assert isinstance(asked, DialRequest)
        silent.send(DialResponse(asked.dial_id, 9))
        assert await silent.receive(CloseRequest) == CloseRequest(9)


async def test_a_front_that_hangs_up_while_dialling_cancels_the_dial(
    certificates: Certificates, tmp_path: Path
) -> None:
    server = Server(server_config(certificates, tmp_path))
    async with server:
        agent_link = plain_agent(certificates, server.agent_port)
        async with agent_link as agent:
            _, writer = await asyncio.open_unix_connection(server.config.uds_name)
            writer.write(b"CONNECT 10.0.0.1:80 HTTP/1.1\r\n\r\n")
            await agent.receive(DialRequest)
            writer.close()
            await until(lambda: not any(backend.pending_dials for backend in server.backends))


# ---------------------------------------------------------------- foreign peers


@pytest.fixture
async def server(certificates: Certificates, tmp_path: Path) -> AsyncIterator[Server]:
    async with Server(server_config(certificates, tmp_path)) as server:
        yield server


async def test_an_agent_without_extensions_gets_only_upstreams_packets(
    server: Server, certificates: Certificates
) -> None:
    async with plain_agent(certificates, server.agent_port) as agent:
        assert agent.metadata is not None
        assert agent.metadata["serverid"] == [server.server_id]
        assert agent.metadata["servercount"] == ["1"]
        assert "miniplane-extensions" not in agent.metadata
        dialling = asyncio.create_task(connect(server.config.uds_name, "10.0.0.1:80"))
        asked = await agent.receive(DialRequest)
        assert isinstance(asked, DialRequest)
        assert asked.address == "10.0.0.1:80"
        agent.send(DialResponse(asked.dial_id, 1))
        agent.send_data(1, b"from the target")
        client = await dialling
        assert await client.reader.readexactly(15) == b"from the target"
        client.writer.write(b"to the target")
        assert await agent.receive(Data) == Data(1, b"to the target")
        agent.send(CloseResponse(1))
        assert await client.reader.read() == b""
        await client.aclose()
        assert {type(packet) for packet in agent.packets} <= {DialRequest, Data, CloseRequest}


async def test_odd_packets_of_an_agent_are_answered_or_ignored(server: Server, certificates: Certificates) -> None:
    async with plain_agent(certificates, server.agent_port) as agent:
        agent.send(Unknown(99))
        agent.send(CloseResponse(12345))
        agent.send(DialRequest("10.0.0.1:80", 7))
        agent.send_data(4242, b"stray")
        assert await agent.receive(CloseRequest) == CloseRequest(4242)
        agent.send(Drain())
        await until(lambda: all(backend.is_draining for backend in server.backends))
        assert agent.ended is None


async def test_a_packet_that_is_no_protobuf_ends_the_agents_link_once(
    server: Server, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with plain_agent(certificates, server.agent_port) as agent:
        agent.link.send(agent.call, b"\xff\xff\xff")
        await until(lambda: len(server.backends) == 0)
    assert len([record for record in caplog.records if "malformed packet" in record.getMessage()]) == 1


async def test_a_frame_that_is_no_http2_ends_the_agents_link(server: Server, certificates: Certificates) -> None:
    async with plain_agent(certificates, server.agent_port) as agent:
        agent.link.transport.write(frames.head(frames.MAX_FRAME + 1, frames.DATA, 0, agent.call))
        await until(lambda: len(server.backends) == 0)


@pytest.mark.parametrize(
    "metadata",
    [{}, {"agentid": ["a", "b"]}, {"agentid": [""]}, {"agentid": ["a"], "agentidentifiers": ["cidr=x"]},
     {"agentid": ["a" * 2000]}],
)  # fmt: skip
async def test_an_agent_that_introduces_itself_badly_is_refused(
    server: Server, certificates: Certificates, metadata: dict[str, list[str]]
) -> None:
    metadata = {**metadata, "x-test": ["1"]}
    async with plain_agent(certificates, server.agent_port, metadata) as agent:
        assert agent.ended is not None
        assert agent.metadata is None
    assert len(server.backends) == 0


async def test_an_agent_that_floods_a_stalled_front_loses_that_connection_only(
    server: Server, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "STALL", 0.2)
    async with plain_agent(certificates, server.agent_port) as agent:
        stuck_dial = asyncio.create_task(connect(server.config.uds_name, "10.0.0.1:80"))
        asked = await agent.receive(DialRequest)
        assert isinstance(asked, DialRequest)
        agent.send(DialResponse(asked.dial_id, 1))
        stuck = await stuck_dial
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]
        lively_dial = asyncio.create_task(connect(server.config.uds_name, "10.0.0.2:80"))
        asked = await agent.receive(DialRequest, 2)
        assert isinstance(asked, DialRequest)
        agent.send(DialResponse(asked.dial_id, 2))
        lively = await lively_dial
        for _ in range(24 << 4):  # 24 MiB in 64 KiB
            agent.send_data(1, bytes(65536))
        assert await agent.receive(CloseRequest) == CloseRequest(1)
        agent.send_data(2, b"alive")
        assert await asyncio.wait_for(lively.reader.readexactly(5), 3) == b"alive"
        stuck.writer.transport.abort()
        await lively.aclose()


async def test_our_agent_speaks_plainly_to_a_plain_server(certificates: Certificates) -> None:
    async with (
        plain_server(certificates) as server,
        Agent(agent_config(certificates, server.port, agent_id="ours", agent_identifiers="host=n1")),
        target(echo) as port,
    ):
        agent = await server.agent()
        assert server.calls[0].metadata["agentid"] == ["ours"]
        assert server.calls[0].metadata["agentidentifiers"] == ["host=n1"]
        agent.send(DialRequest(f"127.0.0.1:{port}", 77))
        answer = await agent.receive(DialResponse)
        assert isinstance(answer, DialResponse)
        assert (answer.dial_id, answer.error, answer.connect_id > 0) == (77, "", True)
        agent.send_data(answer.connect_id, b"echo this")
        assert await agent.receive(Data) == Data(answer.connect_id, b"echo this")
        agent.send(CloseRequest(answer.connect_id))
        assert await agent.receive(CloseResponse) == CloseResponse(answer.connect_id)
        agent.send(DialRequest("127.0.0.1:1", 78))
        refused = await agent.receive(DialResponse, 2)
        assert refused == DialResponse(78, 0, "dial tcp 127.0.0.1:1: connect: connection refused")
        agent.send_data(999, b"stray")
        assert await agent.receive(CloseResponse, 2) == CloseResponse(999, "unrecognized connectID")
        agent.send(DialRequest("not an address", 79))
        bad = await agent.receive(DialResponse, 3)
        assert isinstance(bad, DialResponse)
        assert "not host:port" in bad.error


async def test_our_agent_delivers_an_upload_before_the_close_of_a_plain_server(certificates: Certificates) -> None:
    got: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = 0
        while data := await reader.read(65536):
            total += len(data)
            await asyncio.sleep(0.002)
        got.set_result(total)

    async with (
        plain_server(certificates) as server,
        Agent(agent_config(certificates, server.port)),
        target(slow) as port,
    ):
        agent = await server.agent()
        agent.send(DialRequest(f"127.0.0.1:{port}", 1))
        answer = await agent.receive(DialResponse)
        assert isinstance(answer, DialResponse)
        for _ in range(60):
            agent.send_data(answer.connect_id, bytes(65536))
        agent.send(CloseRequest(answer.connect_id))
        assert await asyncio.wait_for(got, 5) == 60 * 65536


# ---------------------------------------------------------------- fronts that misbehave


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 405),
        (b"CONNECT nowhere HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a:99999 HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nX: " + b"x" * 20000, 431),
    ],
)
async def test_bad_requests_are_answered_and_closed(plane: Plane, request_bytes: bytes, status: int) -> None:
    reader, writer = await asyncio.open_unix_connection(plane.server.config.uds_name)
    writer.write(request_bytes)
    assert (await asyncio.wait_for(reader.read(), 3)).startswith(b"HTTP/1.1 %d " % status)
    writer.close()
    await until(lambda: plane.server.open_connections == 0)


async def test_a_second_dial_on_one_proxy_call_ends_both(certificates: Certificates, tmp_path: Path) -> None:
    config = server_config(certificates, tmp_path, mode="grpc")
    async with Server(config) as server, plain_agent(certificates, server.agent_port) as agent:
        async with grpc_front(config.uds_name) as front:
            front.send(DialRequest("10.0.0.1:80", 1))
            asked = await agent.receive(DialRequest)
            assert isinstance(asked, DialRequest)
            agent.send(DialResponse(asked.dial_id, 5))
            await front.receive(DialResponse)
            front.send(DialRequest("10.0.0.2:80", 2))
            await until(lambda: front.ended)
            assert await agent.receive(CloseRequest) == CloseRequest(5)
        await until(lambda: server.open_connections == 0)


async def test_a_proxy_call_lives_as_upstreams_client_expects(certificates: Certificates, tmp_path: Path) -> None:
    config = server_config(certificates, tmp_path, mode="grpc")
    async with (
        Server(config) as server,
        Agent(agent_config(certificates, server)),
        target(echo) as port,
        grpc_front(config.uds_name) as front,
    ):
        await until(lambda: len(server.backends))
        front.send(DialRequest(f"127.0.0.1:{port}", 321))
        answer = await front.receive(DialResponse)
        assert isinstance(answer, DialResponse)
        assert (answer.dial_id, answer.error) == (321, "")
        front.send_data(answer.connect_id, b"ping")
        assert await front.receive(Data) == Data(answer.connect_id, b"ping")
        front.send(CloseRequest(answer.connect_id))
        assert await front.receive(CloseResponse) == CloseResponse(answer.connect_id)
        await until(lambda: front.ended == (0, ""))


async def test_garbage_on_the_grpc_front_ends_that_connection(certificates: Certificates, tmp_path: Path) -> None:
    config = server_config(certificates, tmp_path, mode="grpc")
    async with Server(config):
        reader, writer = await asyncio.open_unix_connection(config.uds_name)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + os.urandom(200))
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 3)
        writer.close()


async def test_a_slow_client_of_tls_does_not_delay_another(server: Server, certificates: Certificates) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.agent_port)) for _ in range(20)]
    try:
        async with asyncio.timeout(3), plain_agent(certificates, server.agent_port) as agent:
            assert agent.metadata is not None
    finally:
        for sock in idle:
            sock.close()


def test_the_stand_ins_write_packets_with_the_real_codec() -> None:
    assert encode(Drain()) == b"\x08\x06\x42\x00"
