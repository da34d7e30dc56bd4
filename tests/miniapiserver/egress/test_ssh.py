"""The SSH path against OpenSSH's sshd and the embedded one: bytes, ends, refusals, faults."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certs.sshkeys import new_ssh_key
from miniapiserver.config import Config, ConfigError
from miniapiserver.egress.nodetunnels import ssh_tunnels
from miniapiserver.egress.ssh import Credentials, InvalidCredentials, SSHConnection
from miniapiserver.egress.tunnels import NodeTunnelDown, Phase, Tunnels
from miniapiserver.endpoints.health import Health
from miniapiserver.metrics import Metrics
from tests.miniapiserver.egress.sshds import NODE, USER, MakeSshd, Sshd, echo, free_port, target
from wire.connections import Ledger
from wire.errors import DialError, NoTunnel


def credentials(sshd: Sshd, user: str = USER) -> Credentials:
    return Credentials.read(user, sshd.keyfile, sshd.known_hosts, sshd.port)


@contextlib.asynccontextmanager
async def connected(sshd: Sshd) -> AsyncIterator[SSHConnection]:
    connection = await credentials(sshd).connect(NODE, sshd.address)
    try:
        yield connection
    finally:
        await connection.aclose()


@contextlib.asynccontextmanager
async def streams(sock: socket.socket) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield reader, writer
    finally:
        writer.close()


async def until(true: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)


# -- bytes


async def test_bulk_goes_both_ways_and_half_close_comes_back_as_the_end(sshd: Sshd) -> None:
    payload = bytes(range(256)) * 4096 * 4

    async def send(writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(payload), 65536):
            writer.write(payload[start : start + 65536])
            await writer.drain()
        writer.write_eof()

    async with target(echo) as port, connected(sshd) as connection:
        async with streams(await connection.open("127.0.0.1", port)) as (reader, writer):
            sending = asyncio.create_task(send(writer))
            assert await reader.read(-1) == payload
            await sending
        await until(lambda: connection.channels == 0)


async def test_the_ledger_follows_a_tunnel_to_its_end(sshd: Sshd) -> None:
    payload, ledger = bytes(1_000_000), Ledger()
    entry = ledger.record(source="kube-apiserver", target=sshd.address, purpose="SSH tunnel")

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(payload)
        await writer.drain()
        writer.close()

    async with target(shout) as port, connected(sshd) as connection:
        entry.secured(connection, "SSH-2.0", connection.cipher, str(sshd.known_hosts))
        async with streams(await connection.open("127.0.0.1", port)) as (reader, _writer):
            assert len(await reader.read(-1)) == len(payload)
        (facts,) = ledger.snapshot()
        assert (facts["protection"], facts["verifiedBy"]) == ("verified", str(sshd.known_hosts))
        assert facts["tls"] == {"version": "SSH-2.0", "cipher": "aes128-gcm@openssh.com"}
        assert facts["bytesIn"] > len(payload) > facts["bytesOut"] > 0
    (facts,) = ledger.snapshot()
    assert facts["state"] in ("closed", "failed")
    assert facts["bytesIn"] > len(payload), "and what it carried is known afterwards"


async def test_everything_sent_before_a_close_arrives(sshd: Sshd) -> None:
    payload = b"x" * 3_000_000

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(payload)
        await writer.drain()
        writer.close()

    async with target(shout) as port, connected(sshd) as connection:
        for _ in range(5):
            async with streams(await connection.open("127.0.0.1", port)) as (reader, _writer):
                assert len(await reader.read(-1)) == len(payload)


async def test_an_upload_whose_client_closes_at_once_arrives_whole(sshd: Sshd) -> None:
    arrived: asyncio.Queue[int] = asyncio.Queue()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await arrived.put(len(await reader.read(-1)))
        writer.close()

    async with target(swallow) as port, connected(sshd) as connection:
        for _ in range(5):
            _reader, writer = await asyncio.open_connection(sock=await connection.open("127.0.0.1", port))
            writer.write(b"y" * 1_000_000)
            writer.close()
            assert await asyncio.wait_for(arrived.get(), 5) == 1_000_000


async def test_a_stalled_reader_stops_its_target_and_nobody_else(sshd: Sshd) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"z" * 65536)
                await writer.drain()
                sent += 65536

    async with target(flood) as flooding, target(echo) as echoing, connected(sshd) as connection:
        stalled = await connection.open("127.0.0.1", flooding)
        before = -1
        while before != sent:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 40 * 2**20, "the buffers on the way are bounded"
        async with streams(await connection.open("127.0.0.1", echoing)) as (reader, writer):
            writer.write(b"hello")
            assert await asyncio.wait_for(reader.read(5), 2) == b"hello"
        stalled.close()


async def test_many_dials_at_once(sshd: Sshd) -> None:
    async with target(echo) as port, connected(sshd) as connection:

        async def exchange(number: int) -> bytes:
            async with streams(await connection.open("127.0.0.1", port)) as (reader, writer):
                writer.write(b"%d" % number)
                writer.write_eof()
                return await reader.read(-1)

        answers = await asyncio.gather(*(exchange(number) for number in range(200)))
        assert answers == [b"%d" % number for number in range(200)]
        await until(lambda: connection.channels == 0)


# -- ends


async def test_killing_sshd_resets_open_connections(sshd: Sshd) -> None:
    async with target(echo) as port, connected(sshd) as connection:
        async with streams(await connection.open("127.0.0.1", port)) as (reader, writer):
            writer.write(b"a")
            assert await reader.read(1) == b"a"
            sshd.kill()
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(reader.read(1), 5)
        with pytest.raises(NoTunnel):
            await connection.open("127.0.0.1", port)


async def test_nothing_listening_is_a_dial_error_and_the_tunnel_stays(sshd: Sshd) -> None:
    async with target(echo) as port, connected(sshd) as connection:
        with pytest.raises(DialError) as refused:
            await connection.open("127.0.0.1", free_port("127.0.0.1"))
        assert refused.value.via == f"ssh {NODE}" and not isinstance(refused.value, NoTunnel)
        (await connection.open("127.0.0.1", port)).close()


async def test_a_cancelled_dial_leaves_no_channel_behind(sshd: Sshd) -> None:
    async with target(echo) as port, connected(sshd) as connection:
        for _ in range(20):
            dialling = asyncio.create_task(connection.open("127.0.0.1", port))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            dialling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await dialling).close()
        await until(lambda: connection.channels == 0 and not connection._connection._channels)


# -- refusals, each with its twin


async def test_an_unknown_host_key_refuses_the_tunnel(sshd: Sshd) -> None:
    lines = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text("")
    with pytest.raises(NoTunnel, match=f"unknown host key: .*known_hosts has no line for {NODE} or 127.0.0.1"):
        await credentials(sshd).connect(NODE, sshd.address)
    sshd.known_hosts.write_text(lines)
    async with connected(sshd):
        pass


async def test_a_changed_host_key_refuses_the_tunnel(sshd: Sshd) -> None:
    sshd.kill()
    sshd.new_host_key(pinned=False)
    sshd.start()
    with pytest.raises(NoTunnel, match="host key mismatch"):
        await credentials(sshd).connect(NODE, sshd.address)
    sshd.kill()
    sshd.new_host_key(pinned=True)
    sshd.start()
    async with connected(sshd):
        pass


async def test_another_nodes_host_key_is_no_proof_for_this_one(sshd: Sshd) -> None:
    line = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text(line.replace(NODE, "node-2") + f"{NODE} {new_ssh_key(NODE).public}\n")
    with pytest.raises(NoTunnel, match="host key mismatch"):
        await credentials(sshd).connect(NODE, sshd.address)
    (await credentials(sshd).connect("node-2", sshd.address))._connection.abort()


async def test_a_key_the_node_does_not_know_is_refused(sshd: Sshd) -> None:
    right = sshd.keyfile.read_bytes()
    sshd.keyfile.write_bytes(new_ssh_key("somebody").private)
    with pytest.raises(NoTunnel, match="permission denied"):
        await credentials(sshd).connect(NODE, sshd.address)
    sshd.keyfile.write_bytes(right)
    async with connected(sshd):
        pass


def test_a_key_file_that_is_none_is_said_at_start(make_sshd: MakeSshd) -> None:
    sshd = make_sshd("embedded")
    sshd.keyfile.write_text("no key")
    with pytest.raises(InvalidCredentials, match="id_ed25519"):
        credentials(sshd)


# -- tunnels


def node(address: str = "127.0.0.1", name: str = NODE, cidr: str = "127.77.0.0/16") -> dict[str, object]:
    return {"metadata": {"name": name}, "spec": {"podCIDR": cidr},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]}}


def address_of(one: object) -> str:
    return str(one["status"]["addresses"][0]["address"])  # type: ignore[index]


async def test_a_tunnel_is_back_within_two_seconds_of_its_sshd(sshd: Sshd) -> None:
    async with target(echo) as port, Tunnels.open(credentials(sshd).connect, address_of) as tunnels:
        tunnels.put(node())
        (await tunnels.dial("127.0.0.1", port)).close()  # waits for the first attempt
        sshd.kill()
        await until(lambda: tunnels.tunnels[NODE].phase is Phase.BACKING_OFF)
        with pytest.raises(NodeTunnelDown, match=f"via ssh {NODE}: no tunnel"):
            await tunnels.dial("127.0.0.1", port)
        assert NODE in tunnels.health()
        await asyncio.sleep(2)  # long enough for the back-off to be at its longest
        sshd.start()
        await until(lambda: tunnels.tunnels[NODE].phase is Phase.UP, 2.0)
        assert tunnels.health() == ""
        async with streams(await tunnels.dial("127.0.0.1", port)) as (reader, writer):
            writer.write(b"again")
            assert await reader.read(5) == b"again"


async def test_pods_are_reached_through_their_nodes_tunnel_and_strangers_through_none(sshd: Sshd) -> None:
    async with target(echo, "127.77.0.9") as port, Tunnels.open(credentials(sshd).connect, address_of) as tunnels:
        tunnels.put(node())
        (await tunnels.dial("127.77.0.9", port)).close()
        with pytest.raises(NodeTunnelDown, match="no node has this address"):
            await tunnels.dial("127.78.0.9", port)
        tunnels.remove(NODE)
        with pytest.raises(NodeTunnelDown, match="no node has this address"):
            await tunnels.dial("127.77.0.9", port)


async def test_many_kills_leave_nothing_behind(make_sshd: MakeSshd) -> None:
    sshd = make_sshd("embedded")
    before, files = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
    async with target(echo) as port, Tunnels.open(credentials(sshd).connect, address_of) as tunnels:
        tunnels.put(node())
        for _ in range(50):
            sock = await tunnels.dial("127.0.0.1", port)
            async with streams(sock) as (reader, writer):
                writer.write(b"1")
                assert await reader.read(1) == b"1"
                connection = tunnels.tunnels[NODE]._connection
                assert isinstance(connection, SSHConnection)
                assert connection._connection._transport is not None
                connection._connection._transport.abort()
                with pytest.raises(ConnectionError):
                    await reader.read(1)
            tunnels.tunnels[NODE]._hurry.set()
            await until(lambda: tunnels.tunnels[NODE].phase is Phase.UP)
    await until(lambda: len(asyncio.all_tasks()) <= before)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= files)


async def test_an_error_of_the_servers_own_passes_the_tunnels_as_it_is(make_sshd: MakeSshd) -> None:
    sshd = make_sshd("embedded")
    with pytest.raises(OSError, match="port taken"):
        async with Tunnels.open(credentials(sshd).connect, address_of) as tunnels:
            tunnels.put(node())
            raise OSError("port taken")


async def test_a_node_that_moves_is_reached_where_it_is_now(make_sshd: MakeSshd) -> None:
    sshd = make_sshd("embedded")
    async with target(echo) as port, Tunnels.open(credentials(sshd).connect, address_of) as tunnels:
        tunnels.put(node("127.88.0.1"))  # nobody is there
        await until(lambda: "connection refused" in tunnels.tunnels[NODE].reason)
        tunnels.put(node(sshd.address))
        await until(lambda: tunnels.tunnels[NODE].phase is Phase.UP)
        (await tunnels.dial(sshd.address, port)).close()


async def test_a_dial_that_waits_for_a_node_ends_when_the_node_is_removed() -> None:
    async def never(node: str, address: str) -> SSHConnection:
        await asyncio.Event().wait()
        raise AssertionError

    async with Tunnels.open(never, address_of) as tunnels:
        tunnels.put(node())
        dialling = asyncio.create_task(tunnels.dial("127.0.0.1", 1))
        await asyncio.sleep(0.05)
        assert not dialling.done()
        tunnels.remove(NODE)
        with pytest.raises(NodeTunnelDown, match="the node was removed"):
            await asyncio.wait_for(dialling, 2)


def config(sshd: Sshd, tmp_path: Path, **ssh: object) -> Config:
    return Config(tls_cert_file=sshd.keyfile, tls_private_key_file=sshd.keyfile, storage_path=tmp_path / "db",
                  ssh_user=USER, **ssh)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{}, {"ssh_keyfile"}, {"ssh_known_hosts"}])
async def test_without_a_key_and_pinned_hosts_the_server_does_not_start(
    make_sshd: MakeSshd, tmp_path: Path, given: set[str]
) -> None:
    sshd = make_sshd("embedded")
    files = {"ssh_keyfile": sshd.keyfile, "ssh_known_hosts": sshd.known_hosts}
    chosen = config(sshd, tmp_path, **{name: files[name] for name in given})
    with pytest.raises(ConfigError, match="no host key is learned on first use"):
        async with ssh_tunnels(chosen, None, Health(), Metrics(), Ledger()):  # type: ignore[arg-type]
            pass
