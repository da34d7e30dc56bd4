"""Who may be an agent, how agents find all servers, and how they leave."""

import asyncio
import contextlib
import logging
import shutil
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from konnectivity.agent.agent import Agent
from konnectivity.protocol import http2frames as frames
from konnectivity.protocol.grpc import GRPCConnection
from konnectivity.protocol.grpcevents import Metadata
from konnectivity.server.authentication import TokenAuthentication, Unauthenticated, bearer_token
from konnectivity.server.server import Server
from tests.konnectivity.conftest import Certificates, Plane, agent_config, connect, echo, server_config, target, until
from tests.konnectivity.peers import PlainServer, plain_agent, plain_server
from wire.errors import ConnectionLost
from wire.protocol.konnectivity import Drain

AUDIENCE = "system:konnectivity-server"
USER = "system:serviceaccount:kube-system:konnectivity-agent"


# ---------------------------------------------------------------- mTLS


async def test_an_agent_of_another_ca_is_refused(
    certificates: Certificates, other_certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "konnectivity.listener")
    stranger = {"agent_cert": other_certificates.path("client.crt"), "agent_key": other_certificates.path("client.key")}
    async with Server(server_config(certificates, tmp_path)) as server:
        async with Agent(agent_config(certificates, server, sync_interval=10.0, sync_interval_cap=10.0, **stranger)):
            await until(lambda: caplog.records)
            assert len(server.backends) == 0
        assert "tls.refused" in caplog.text
        # The twin: the same agent with a certificate of the right CA.
        async with Agent(agent_config(certificates, server)):
            await until(lambda: len(server.backends) == 1)


async def test_an_agent_without_a_certificate_is_refused(certificates: Certificates, tmp_path: Path) -> None:
    async with Server(server_config(certificates, tmp_path)) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            server.agent_port,
            ssl=certificates.client_context(with_certificate=False),
            server_hostname="127.0.0.1",
        )
        with pytest.raises((ssl.SSLError, ConnectionError)):
            while await reader.read():
                pass  # TLS 1.3: the client learns of it at its first read
            raise ConnectionError
        writer.close()
        assert len(server.backends) == 0


async def test_an_agent_does_not_talk_to_a_server_of_another_ca(
    certificates: Certificates, other_certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "konnectivity.agent")
    async with plain_server(other_certificates) as server, Agent(agent_config(certificates, server.port)) as agent:
        await until(lambda: "link.failed" in caplog.text)
        assert not agent.sync.links
        assert not server.calls
    assert "certificate verify failed" in caplog.text


async def test_the_ledger_says_what_protects_the_link_and_when_it_ended(
    certificates: Certificates, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as life:
        server = await life.enter_async_context(Server(server_config(certificates, tmp_path)))
        async with Agent(agent_config(certificates, server)) as agent, target(echo) as port:
            await until(lambda: len(server.backends) == 1)
            client = await connect(server.config.uds_name, f"127.0.0.1:{port}")
            (before,) = agent.ledger.snapshot()
            client.writer.write(bytes(1000))
            await client.reader.readexactly(1000)
            (entry,) = agent.ledger.snapshot()
            assert entry["bytesIn"] - before["bytesIn"] > 1000 < entry["bytesOut"] - before["bytesOut"]
            assert (entry["to"], entry["purpose"]) == (f"127.0.0.1:{server.agent_port}", "konnectivity tunnel")
            assert (entry["protection"], entry["verifiedBy"]) == ("verified", certificates.path("ca.crt"))
            assert entry["tls"]["version"] == "TLSv1.3"
            assert "127.0.0.1" in entry["peerCertificate"]["sans"]
            assert entry["credentials"].startswith("client certificate ")
            await client.aclose()
            await life.aclose()
            await until(lambda: not agent.ledger.live)
            assert agent.ledger.snapshot()[-1]["ended"]


async def test_a_server_of_another_ca_stands_in_the_ledger_as_refused(
    certificates: Certificates, other_certificates: Certificates, tmp_path: Path
) -> None:
    config = server_config(other_certificates, tmp_path)
    async with Server(config) as server, Agent(agent_config(certificates, server)) as agent:
        await until(lambda: agent.ledger.snapshot() and not agent.ledger.live)
        entry = agent.ledger.snapshot()[-1]
        assert (entry["protection"], entry["state"]) == ("none", "failed")
        assert "certificate verify failed" in entry["error"]


async def test_replaced_certificates_are_used_without_a_restart(
    certificates: Certificates, other_certificates: Certificates, tmp_path: Path
) -> None:
    live = Certificates(tmp_path / "live")
    shutil.copytree(certificates.folder, live.folder)
    async with Server(server_config(live, tmp_path)) as server:
        async with plain_agent(certificates, server.agent_port) as agent:
            assert agent.metadata is not None
        shutil.copytree(other_certificates.folder, live.folder, dirs_exist_ok=True)
        async with plain_agent(other_certificates, server.agent_port) as agent:
            assert agent.metadata is not None
        with pytest.raises(ssl.SSLError):
            async with plain_agent(certificates, server.agent_port):
                pass


# ---------------------------------------------------------------- tokens


def review(**status: Any) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
    async def answer(body: dict[str, Any]) -> dict[str, Any]:
        assert body["spec"]["audiences"] == [AUDIENCE]
        good = {"authenticated": True, "user": {"username": USER}, "audiences": [AUDIENCE]}
        return {**body, "status": good | status}

    return answer


def authentication(**status: Any) -> TokenAuthentication:
    return TokenAuthentication(review(**status), "kube-system", "konnectivity-agent", AUDIENCE)


TOKEN = {"authorization": ["Bearer abc\n"]}


async def test_a_good_token_is_accepted_also_untrimmed() -> None:
    await authentication()(TOKEN)
    assert bearer_token(TOKEN) == "abc"


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": False, "error": "expired"},
        {"authenticated": None},
        {"audiences": ["https://kubernetes.default.svc"]},
        {"audiences": None},
        {"user": {"username": "system:serviceaccount:default:konnectivity-agent"}},
        {"user": {"username": USER + "2"}},
        {"user": None},
    ],
)
async def test_any_other_answer_of_the_review_is_a_no(status: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        await authentication(**status)(TOKEN)


@pytest.mark.parametrize(
    "metadata",
    [{}, {"authorization": []}, {"authorization": ["Bearer a", "Bearer b"]}, {"authorization": ["Basic abc"]},
     {"authorization": ["Bearer "]}],
)  # fmt: skip
async def test_what_is_no_single_bearer_token_is_never_reviewed(metadata: Metadata) -> None:
    with pytest.raises(Unauthenticated):
        await authentication()(metadata)


@pytest.mark.parametrize(
    ("authenticate", "status"), [(authentication(authenticated=False), 16), (authentication(), None)]
)
async def test_the_server_asks_before_it_introduces_itself(
    certificates: Certificates, tmp_path: Path, authenticate: TokenAuthentication, status: int | None
) -> None:
    async with Server(server_config(certificates, tmp_path)) as server:
        server.agents._authenticate = authenticate
        async with plain_agent(certificates, server.agent_port, {"agentid": ["a"], **TOKEN}) as agent:
            assert (agent.ended and agent.ended[0]) == status
            assert (agent.metadata is None) == (status is not None)
            assert len(server.backends) == (0 if status else 1)


async def test_a_review_that_cannot_be_asked_is_unavailable_not_allowed(
    certificates: Certificates, tmp_path: Path
) -> None:
    async def lost(body: dict[str, Any]) -> dict[str, Any]:
        raise ConnectionLost("no API server")

    async with Server(server_config(certificates, tmp_path)) as server:
        server.agents._authenticate = TokenAuthentication(lost, "n", "s", AUDIENCE)
        async with plain_agent(certificates, server.agent_port, {"agentid": ["a"], **TOKEN}) as agent:
            assert agent.ended == (14, "authentication is not available")


async def test_the_agent_reads_its_token_anew_at_each_connect(certificates: Certificates, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    async with (
        plain_server(certificates) as server,
        Agent(agent_config(certificates, server.port, service_account_token_path=str(token))),
    ):
        first = await server.agent()
        token.write_text("second\n")
        first.link.close("again")
        await until(lambda: len(server.calls) == 2)
    assert [call.metadata["authorization"] for call in server.calls] == [["Bearer first"], ["Bearer second"]]


# ---------------------------------------------------------------- several servers


async def test_an_agent_finds_every_server_behind_one_address(certificates: Certificates) -> None:
    """One port, three servers in turn: what a load balancer does."""
    turn = 0
    servers = [PlainServer(f"s{number}", server_count=3) for number in range(3)]
    async with plain_server(certificates, servers[0]) as front:
        original = front._open

        def in_turn(link: Any, call: Any) -> Any:
            nonlocal turn
            turn += 1
            chosen = servers[turn % 3]
            return original(link, call) if chosen is front else PlainServer._open(chosen, link, call)

        front._open = in_turn  # type: ignore[method-assign]
        async with Agent(agent_config(certificates, front.port)) as agent:
            await until(lambda: set(agent.sync.links) == {"s0", "s1", "s2"})
            assert agent.checks() == {"server-connected": ""}
        assert turn <= 6


async def test_a_duplicate_link_is_not_kept(certificates: Certificates) -> None:
    async with (
        plain_server(certificates, PlainServer("only", server_count=2)) as server,
        Agent(agent_config(certificates, server.port)) as agent,
    ):
        await until(lambda: len(server.calls) >= 3)
        assert set(agent.sync.links) == {"only"}
        await until(lambda: sum(peer.ended is None for peer in server.agents) <= 2)


async def test_two_agents_share_the_work_of_one_server(certificates: Certificates, tmp_path: Path) -> None:
    async with (
        Server(server_config(certificates, tmp_path)) as server,
        Agent(agent_config(certificates, server, agent_id="a")) as one,
        Agent(agent_config(certificates, server, agent_id="b")) as other,
        target(echo) as port,
    ):
        await until(lambda: len(server.backends) == 2)
        clients = [await connect(server.config.uds_name, f"127.0.0.1:{port}") for _ in range(20)]
        assert one.sync.connections == other.sync.connections == 10, "the less loaded of the two, each time"
        for client in clients:
            await client.aclose()


# ---------------------------------------------------------------- leaving


async def test_a_draining_agent_is_passed_over_and_keeps_what_it_has(
    certificates: Certificates, tmp_path: Path
) -> None:
    async with (
        Server(server_config(certificates, tmp_path)) as server,
        Agent(agent_config(certificates, server, agent_id="old")) as old,
        target(echo) as port,
    ):
        await until(lambda: len(server.backends) == 1)
        client = await connect(server.config.uds_name, f"127.0.0.1:{port}")
        async with Agent(agent_config(certificates, server, agent_id="new")) as new:
            await until(lambda: len(server.backends) == 2)
            draining = asyncio.create_task(old.sync.drain(5.0))
            await until(lambda: any(backend.is_draining for backend in server.backends))
            others = [await connect(server.config.uds_name, f"127.0.0.1:{port}") for _ in range(5)]
            assert (old.sync.connections, new.sync.connections) == (1, 5)
            client.writer.write(b"x")
            assert await client.reader.readexactly(1) == b"x"
            assert not draining.done()
            await client.aclose()
            await asyncio.wait_for(draining, 2)
            for other in others:
                await other.aclose()


async def test_a_drain_ends_with_the_server_that_its_connections_came_from(
    certificates: Certificates, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as life, target(echo) as port:
        server = await life.enter_async_context(Server(server_config(certificates, tmp_path)))
        async with Agent(agent_config(certificates, server)) as agent:
            await until(lambda: len(server.backends) == 1)
            client = await connect(server.config.uds_name, f"127.0.0.1:{port}")
            draining = asyncio.create_task(agent.sync.drain(60.0))
            await until(lambda: any(backend.is_draining for backend in server.backends))
            assert agent.sync.connections == 1 and not draining.done()
            await life.aclose()
            await asyncio.wait_for(draining, 2)
            await client.aclose()


async def test_an_agent_says_drain_to_a_plain_server(certificates: Certificates) -> None:
    async with plain_server(certificates) as server, Agent(agent_config(certificates, server.port)) as agent:
        peer = await server.agent()
        await until(lambda: agent.sync.links)
        await agent.sync.drain(0.1)
        assert await peer.receive(Drain) == Drain()


async def test_health_tells_ready_from_alive(certificates: Certificates, tmp_path: Path) -> None:
    async with Server(server_config(certificates, tmp_path)) as server:
        assert (await get(server.health_port, "/healthz"))[0] == 200
        status, body = await get(server.health_port, "/readyz")
        assert (status, "no connection to any proxy agent" in body) == (500, True)
        async with Agent(agent_config(certificates, server)) as agent:
            await until(lambda: len(server.backends))
            assert (await get(server.health_port, "/readyz"))[0] == 200
            await until(lambda: agent.sync.links)
            status, body = await get(agent.health_port, "/readyz?verbose")
            assert (status, body) == (200, "[+]server-connected ok\nready check passed\n")
        status, _ = await get(server.health_port, "/nowhere")
        assert status == 404


async def test_metrics_have_upstreams_names_and_return_to_zero(plane: Plane) -> None:
    async with target(echo) as port:
        client = await plane.connect(port)
        _, text = await get(plane.server.health_port, "/metrics")
        assert "konnectivity_network_proxy_server_established_connections 1\n" in text
        assert "konnectivity_network_proxy_server_http_connections 1\n" in text
        assert 'konnectivity_network_proxy_server_ready_backends{proxy_strategy="default"} 1\n' in text
        await client.aclose()
        refused = await plane.connect(1)
        await refused.aclose()
    await until(lambda: plane.server.open_connections == 0)
    await asyncio.sleep(0.01)  # a close may wait a moment for company
    _, text = await get(plane.server.admin_port, "/metrics")
    assert "konnectivity_network_proxy_server_established_connections 0\n" in text
    assert 'konnectivity_network_proxy_server_dial_failure_count{reason="error_response"} 1\n' in text
    _, text = await get(plane.agent.health_port, "/metrics")
    assert "konnectivity_network_proxy_agent_open_server_connections 1\n" in text
    assert "konnectivity_network_proxy_agent_open_endpoint_connections 0\n" in text
    assert 'konnectivity_network_proxy_agent_endpoint_dial_failure_total{reason="unknown"} 1\n' in text


async def test_a_target_that_never_answers_is_given_up_and_counted(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("konnectivity.agent.serverlink.DIAL_TIMEOUT", 0.1)
    server = Server(server_config(certificates, tmp_path))
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # its queue is full: the kernel drops whoever else knocks
            knocking = waiting.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(full.getsockname())
        async with server, Agent(agent_config(certificates, server)) as agent, asyncio.timeout(5):
            await until(lambda: len(server.backends))
            client = await connect(server.config.uds_name, f"127.0.0.1:{full.getsockname()[1]}")
            assert client.answer.startswith(b"HTTP/1.1 504 ")
            await client.aclose()
            assert 'agent_endpoint_dial_failure_total{reason="timeout"} 1\n' in agent.metrics_text()
            assert not agent.sync.connections


async def test_packets_are_counted_under_upstreams_label_values(plane: Plane) -> None:
    prefix, labels = "konnectivity_network_proxy_", 'stream_packets_total{segment="%s",packet_type="%s"} 1\n'
    async with target(echo) as port:
        client = await plane.connect(port)
        client.writer.write(b"hello")
        assert await client.reader.readexactly(5) == b"hello"
        await client.aclose()
    await until(lambda: not plane.agent.sync.connections)
    await asyncio.sleep(0.01)
    for who, at in (("server", plane.server.health_port), ("agent", plane.agent.health_port)):
        _, text = await get(at, "/metrics")
        for segment, kind in (
            ("to_agent", "DIAL_REQ"), ("from_agent", "DIAL_RSP"), ("to_agent", "DATA"), ("from_agent", "DATA"),
            ("to_agent", "CLOSE_REQ"), ("from_agent", "CLOSE_RSP"),
        ):  # fmt: skip
            assert prefix + f"{who}_" + labels % (segment, kind) in text
    assert f"{prefix}agent_dial_duration_seconds_count 1\n" in text


async def test_a_lost_stream_is_counted_as_an_error_at_both_ends(plane: Plane) -> None:
    next(iter(plane.server.agents.links)).transport.abort()
    name = "stream_errors_total"
    await until(lambda: name + '{segment="from_agent",code="Canceled",packet_type="Unknown"} 1' in
                plane.server.metrics_text())  # fmt: skip
    await until(lambda: name + '{segment="to_agent",code="Unavailable",packet_type="Unknown"} 1' in
                plane.agent.metrics_text())  # fmt: skip


async def test_a_write_to_a_front_is_timed(plane: Plane) -> None:
    async with target(echo) as port:
        client = await plane.connect(port)
        client.writer.write(b"hello")
        assert await client.reader.readexactly(5) == b"hello"
        assert "server_frontend_write_duration_seconds_count 1\n" in plane.server.metrics_text()
        await client.aclose()


async def test_a_silent_grpc_front_is_pinged(certificates: Certificates, tmp_path: Path) -> None:
    config = server_config(certificates, tmp_path, mode="grpc", frontend_keepalive_time=0.1)
    async with Server(config), asyncio.timeout(5):
        reader, writer = await asyncio.open_unix_connection(config.uds_name)
        writer.writelines(GRPCConnection(client=True).take_output())
        frame = frames.head(8, frames.PING, 0, 0) + (1).to_bytes(8, "big")
        await reader.readuntil(frame)
        writer.close()
        await writer.wait_closed()


async def get(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body
