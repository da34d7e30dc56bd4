"""The embedded sshd does one thing. Each refusal has its twin: what it allows, in the same connection."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator

import asyncssh
import pytest

from certs.sshkeys import new_ssh_key
from tests.miniapiserver.egress.sshds import USER, MakeSshd, Sshd, echo, target


@pytest.fixture
def node(make_sshd: MakeSshd) -> Sshd:
    return make_sshd("embedded")


@contextlib.asynccontextmanager
async def logged_in(sshd: Sshd, **options: object) -> AsyncIterator[asyncssh.SSHClientConnection]:
    settings: dict[str, object] = {"username": USER, "client_keys": [str(sshd.keyfile)], "known_hosts": None,
                                   "config": None, "agent_path": None, "preferred_auth": "publickey"}
    async with asyncssh.connect(sshd.address, sshd.port, **(settings | options)) as connection:  # type: ignore[arg-type]
        yield connection


async def test_a_channel_to_its_own_network_is_opened_and_to_another_is_not(node: Sshd) -> None:
    async with target(echo) as inside, target(echo, "127.99.0.1") as outside, logged_in(node) as connection:
        reader, writer = await connection.open_connection("127.0.0.1", inside)
        writer.write(b"in")
        writer.write_eof()
        assert await reader.read() == b"in"
        for host, port in (("127.99.0.1", outside), ("localhost", inside), ("::ffff:127.0.0.1", inside), ("", inside)):
            with pytest.raises(asyncssh.ChannelOpenError) as refused:
                await connection.open_connection(host, port)
            assert refused.value.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED


async def test_no_shell_no_command_no_subsystem(node: Sshd) -> None:
    async with logged_in(node) as connection:
        for attempt in (connection.run("id"), connection.run(), connection.run("id", term_type="xterm"),
                        connection.start_sftp_client()):
            with pytest.raises(asyncssh.ChannelOpenError):
                await attempt


async def test_nothing_listens_on_its_behalf_and_no_unix_path_is_reached(node: Sshd) -> None:
    async with logged_in(node) as connection:
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.start_server(lambda *_: None, "127.0.0.1", 0)  # type: ignore[arg-type,return-value]
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection("/run/anything.sock")


async def test_another_user_and_another_key_may_not_log_in(node: Sshd) -> None:
    stranger = asyncssh.import_private_key(new_ssh_key("stranger").private)
    for options in ({"username": "somebody"}, {"client_keys": [stranger]}, {"client_keys": None, "password": "x"}):
        with pytest.raises(asyncssh.PermissionDenied):
            async with logged_in(node, **options):
                pass
    async with logged_in(node):
        pass


async def test_a_target_that_resets_is_no_clean_end(node: Sshd) -> None:
    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: RST
        writer.transport.abort()

    ended: asyncio.Queue[str] = asyncio.Queue()

    class Session(asyncssh.SSHTCPSession[bytes]):
        def eof_received(self) -> bool:
            ended.put_nowait("eof")
            return False

        def connection_lost(self, exc: Exception | None) -> None:
            ended.put_nowait("closed")

    async with target(slam) as port, logged_in(node) as connection:
        channel, _ = await connection.create_connection(Session, "127.0.0.1", port)
        channel.write(b"x")
        assert await asyncio.wait_for(ended.get(), 5) == "closed"


@pytest.mark.parametrize("flag", ["--host-key-file", "--allow-cidrs", "--authorized-keys-file"])
def test_a_setting_that_cannot_be_used_is_one_line(node: Sshd, flag: str) -> None:
    argv = [word if not word.startswith(flag) else f"{flag}=/nowhere" for word in node._embedded()]
    done = subprocess.run([sys.executable, *argv[1:]], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith("minikubelet.sshd: ") and done.stderr.count("\n") == 1


def test_help_says_that_it_is_deprecated() -> None:
    done = subprocess.run([sys.executable, "-m", "minikubelet.sshd", "--help"], capture_output=True, text=True)
    assert "deprecated" in done.stdout
