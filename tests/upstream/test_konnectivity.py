"""Against upstream's own binaries; opt-in: KONNECTIVITY_UPSTREAM_BIN names the folder of apiserver-network-proxy's
proxy-server, proxy-agent and proxy-test-client.

Each direction of the wire protocol: our server with the real agent, our agent with the real server, the real client
library (the one in kube-apiserver) with our server in both modes, and our API server's dialers with the real server.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from miniapiserver.egress.interface import Dialer
from miniapiserver.egress.konnectivity import ConnectOverTLS, ConnectOverUDS, GRPCOverUDS
from tests.konnectivity.conftest import Certificates, echo, target
from wire.errors import DialError, NoTunnel
from wire.tls import ClientTLS

FOLDER = os.environ.get("KONNECTIVITY_UPSTREAM_BIN", "")

pytestmark = pytest.mark.upstream
if not FOLDER:
    pytest.skip("KONNECTIVITY_UPSTREAM_BIN does not name a folder", allow_module_level=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("cluster")).write()


def free_ports(count: int) -> int:
    """The first of `count` free ports in upstream's range 1024..49151."""
    for first in range(30000 + os.getpid() % 9000, 48000, count):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise OSError("no free ports")


@contextlib.asynccontextmanager
async def running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()  # the real agent drains for ever on SIGTERM
        await process.wait()


@dataclass
class Ends:
    """Who plays the server and who the agent, and where they meet."""

    certificates: Certificates
    folder: Path
    mode: str
    server: str
    agent: str
    over_tls: bool = False

    def __post_init__(self) -> None:
        self.port = free_ports(6)
        self.path = str(self.folder / "front.sock")

    def program(self, role: str, who: str) -> list[str]:
        if who == "real":
            return [f"{FOLDER}/proxy-{role}"]
        return [sys.executable, "-m", f"konnectivity.{role}"]

    def server_command(self) -> list[str]:
        files = self.certificates
        front = [f"--uds-name={self.path}", "--server-port=0"]
        if self.over_tls:
            front = [
                f"--server-port={self.port + 5}",
                "--server-bind-address=127.0.0.1",
                f"--server-cert={files.path('server.crt')}",
                f"--server-key={files.path('server.key')}",
                f"--server-ca-cert={files.path('ca.crt')}",
            ]
        return [
            *self.program("server", self.server), *front, f"--mode={self.mode}", f"--agent-port={self.port}",
            "--agent-bind-address=127.0.0.1", f"--health-port={self.port + 1}", "--health-bind-address=127.0.0.1",
            f"--admin-port={self.port + 2}", f"--cluster-cert={files.path('server.crt')}",
            f"--cluster-key={files.path('server.key')}", f"--cluster-ca-cert={files.path('ca.crt')}",
        ]  # fmt: skip

    def agent_command(self) -> list[str]:
        files = self.certificates
        return [
            *self.program("agent", self.agent), "--proxy-server-host=127.0.0.1", f"--proxy-server-port={self.port}",
            "--health-server-host=127.0.0.1", f"--health-server-port={self.port + 3}",
            f"--admin-server-port={self.port + 4}", f"--ca-cert={files.path('ca.crt')}",
            f"--agent-cert={files.path('client.crt')}", f"--agent-key={files.path('client.key')}",
        ]  # fmt: skip

    def dialer(self) -> Dialer:
        if self.over_tls:
            files = self.certificates
            tls = ClientTLS(files.path("ca.crt"), files.path("client.crt"), files.path("client.key"))
            return ConnectOverTLS("127.0.0.1", self.port + 5, tls)
        return ConnectOverUDS(self.path) if self.mode == "http-connect" else GRPCOverUDS(self.path)


@contextlib.asynccontextmanager
async def carrying(ends: Ends) -> AsyncIterator[Dialer]:
    """Both programs up, and a dial that works."""
    async with running(*ends.server_command()), running(*ends.agent_command()):
        dialer = ends.dialer()
        async with target(echo) as port:
            (await until_dialled(dialer, port, 15)).close()
        try:
            yield dialer
        finally:
            await dialer.aclose()


async def until_dialled(dialer: Dialer, port: int, seconds: float) -> socket.socket:
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await dialer.dial("127.0.0.1", port)
            except DialError:
                await asyncio.sleep(0.05)


async def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await asyncio.get_running_loop().sock_recv(sock, size - len(data))):
        data += more
    return data


PAIRS = [("ours", "real"), ("real", "ours"), ("real", "real")]
MODES = ["http-connect", "grpc"]


@pytest.mark.parametrize(("server", "agent"), PAIRS)
@pytest.mark.parametrize("mode", MODES)
async def test_bulk_passes_unchanged_in_both_directions(
    certificates: Certificates, tmp_path: Path, mode: str, server: str, agent: str
) -> None:
    blob = os.urandom(1 << 20) * 8
    async with carrying(Ends(certificates, tmp_path, mode, server, agent)) as dialer, target(echo) as port:

        async def once() -> bool:
            sock = await dialer.dial("127.0.0.1", port)
            with sock:
                sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(sock, blob))
                got = await asyncio.wait_for(read(sock, len(blob)), 30)
                await sending
            return got == blob

        assert await asyncio.gather(*(once() for _ in range(4))) == [True] * 4


@pytest.mark.parametrize(("server", "agent"), PAIRS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_refused_dial_is_an_error_and_says_why(
    certificates: Certificates, tmp_path: Path, mode: str, server: str, agent: str
) -> None:
    async with carrying(Ends(certificates, tmp_path, mode, server, agent)) as dialer:
        with pytest.raises(DialError, match="connection refused"):
            await dialer.dial("127.0.0.1", 1)


@pytest.mark.parametrize(("server", "agent"), PAIRS)
async def test_connections_over_tls_with_client_certificates(
    certificates: Certificates, tmp_path: Path, server: str, agent: str
) -> None:
    ends = Ends(certificates, tmp_path, "http-connect", server, agent, over_tls=True)
    async with carrying(ends) as dialer, target(echo) as port:
        for _ in range(20):
            with await dialer.dial("127.0.0.1", port) as sock:
                await asyncio.get_running_loop().sock_sendall(sock, b"hello")
                assert await asyncio.wait_for(read(sock, 5), 5) == b"hello"


@pytest.mark.parametrize(("server", "agent"), [("ours", "real"), ("real", "ours")])
@pytest.mark.parametrize("mode", MODES)
async def test_no_greeting_is_lost_as_soon_as_one_end_is_ours(
    certificates: Certificates, tmp_path: Path, mode: str, server: str, agent: str
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read(1)

    good = 0
    async with carrying(Ends(certificates, tmp_path, mode, server, agent)) as dialer, target(greet) as port:
        for _ in range(100):
            with await dialer.dial("127.0.0.1", port) as sock:
                good += await asyncio.wait_for(read(sock, 5), 5) == b"hello"
    assert good == 100


@pytest.mark.parametrize("mode", MODES)
async def test_our_agent_delivers_every_upload_that_a_real_server_passed_on(
    certificates: Certificates, tmp_path: Path, mode: str
) -> None:
    got: asyncio.Queue[int] = asyncio.Queue()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = 0
        while data := await reader.read(65536):
            total += len(data)
            await asyncio.sleep(0.002)
        got.put_nowait(total)

    async with carrying(Ends(certificates, tmp_path, mode, "real", "ours")) as dialer, target(slow) as port:
        for _ in range(5):
            with await dialer.dial("127.0.0.1", port) as sock:
                await asyncio.get_running_loop().sock_sendall(sock, bytes(2_000_000))
            assert await asyncio.wait_for(got.get(), 10) == 2_000_000


async def test_our_agent_is_back_within_two_seconds_of_a_real_server(
    certificates: Certificates, tmp_path: Path
) -> None:
    ends = Ends(certificates, tmp_path, "http-connect", "real", "ours")
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(*ends.server_command()))
        await stack.enter_async_context(running(*ends.agent_command()))
        port = await stack.enter_async_context(target(echo))
        (await until_dialled(ends.dialer(), port, 15)).close()
        first.send_signal(signal.SIGKILL)
        await first.wait()
        await stack.enter_async_context(running(*ends.server_command()))
        dialler = ConnectOverUDS(ends.path)
        async with asyncio.timeout(5):
            while True:  # the server itself needs a moment to listen
                try:
                    (await dialler.dial("127.0.0.1", 1)).close()
                except NoTunnel as error:
                    if "No agent" in str(error) or "no tunnels" in str(error):
                        break
                    await asyncio.sleep(0.02)
                except DialError:
                    break
        (await until_dialled(dialler, port, 2.0)).close()


# ---------------------------------------------------------------- the real client library


@pytest.mark.parametrize("agent", ["ours", "real"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("over_tls", [False, True], ids=["uds", "tls"])
async def test_the_real_client_fetches_through_our_server(
    certificates: Certificates, tmp_path: Path, mode: str, over_tls: bool, agent: str
) -> None:
    ends = Ends(certificates, tmp_path, mode, "ours", agent, over_tls)
    where = [f"--proxy-uds={ends.path}", "--proxy-host=", "--proxy-port=0"]
    if over_tls:
        where = ["--proxy-host=127.0.0.1", f"--proxy-port={ends.port + 5}",
                 f"--ca-cert={certificates.path('ca.crt')}", f"--client-cert={certificates.path('client.crt')}",
                 f"--client-key={certificates.path('client.key')}"]  # fmt: skip
    served = 0

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        body = b"through the tunnel" * 1000
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        served += 1

    async with running(*ends.server_command()), running(*ends.agent_command()), target(page) as port:
        command = [f"{FOLDER}/proxy-test-client", f"--mode={mode}", *where, "--request-host=127.0.0.1",
                   f"--request-port={port}", "--request-path=x", "--test-requests=5"]  # fmt: skip
        async with asyncio.timeout(20):
            while True:
                client = await asyncio.create_subprocess_exec(
                    *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
                )
                output, _ = await client.communicate()
                if client.returncode == 0:
                    break
                await asyncio.sleep(0.2)
        assert served >= 5
        assert output.count(b"through the tunnel") == 5000
