"""Two sshds of a node, OpenSSH's and the embedded one, and a target behind them."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from certs.sshkeys import known_hosts_line, new_ssh_key

OPENSSH = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
USER = "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")
NODE = "node-1"


@dataclass(slots=True)
class Sshd:
    """A node's SSH end, with its files. Ended by its pid only."""

    kind: str
    folder: Path
    address: str
    port: int
    allowed: str
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def keyfile(self) -> Path:
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def host_key(self) -> Path:
        return self.folder / "ssh_host_ed25519_key"

    def write_files(self) -> None:
        user = new_ssh_key("kube-apiserver")
        _write(self.keyfile, user.private)
        _write(self.folder / "authorized_keys", f"{user.public}\n".encode())
        self.new_host_key()

    def new_host_key(self, *, pinned: bool = True) -> None:
        host = new_ssh_key(NODE)
        _write(self.host_key, host.private)
        if pinned:
            _write(self.known_hosts, (known_hosts_line(NODE, 22, host.public) + "\n").encode())

    def start(self) -> None:
        log = (self.folder / "sshd.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                self._openssh() if self.kind == "openssh" else self._embedded(), stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((self.address, self.port)) == 0:
                    return
            assert time.monotonic() < deadline and self.process.poll() is None, (self.folder / "sshd.log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """With every connection it has: OpenSSH has a process for each."""
        assert self.process is not None
        for pid in (self.process.pid, *descendants(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _embedded(self) -> list[str]:
        return [sys.executable, "-m", "minikubelet.sshd", f"--address={self.address}", f"--port={self.port}",
                f"--user={USER}", f"--host-key-file={self.host_key}",
                f"--authorized-keys-file={self.folder / 'authorized_keys'}", f"--allow-cidrs={self.allowed}"]

    def _openssh(self) -> list[str]:
        config = self.folder / "sshd_config"
        config.write_text(f"""
ListenAddress {self.address}
Port {self.port}
HostKey {self.host_key}
AuthorizedKeysFile {self.folder / 'authorized_keys'}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding local
AllowAgentForwarding no
X11Forwarding no
PermitTTY no
MaxStartups 100
""")
        assert OPENSSH is not None
        return [OPENSSH, "-D", "-e", "-f", str(config)]


def descendants(pid: int) -> list[int]:
    """OpenSSH's children make sessions of their own; they are found while their parent is still known."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
    found: list[int] = []
    for child, parent in sorted(parents.items()):
        if parent == pid or parent in found:
            found.append(child)
    return found


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_bytes(content)


def free_port(address: str) -> int:
    with socket.socket() as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


MakeSshd = Callable[[str], Sshd]


@pytest.fixture
def make_sshd(tmp_path: Path) -> Iterator[MakeSshd]:
    made: list[Sshd] = []

    def make(kind: str) -> Sshd:
        if kind == "openssh":
            if OPENSSH is None:
                pytest.skip("no OpenSSH sshd on this machine")
            if os.geteuid() == 0:
                Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its privilege separation wants the folder
        folder = tmp_path / f"sshd-{len(made)}"
        folder.mkdir()
        sshd = Sshd(kind, folder, "127.0.0.1", free_port("127.0.0.1"), "127.0.0.0/24,127.77.0.0/16")
        sshd.write_files()
        sshd.start()
        made.append(sshd)
        return sshd

    yield make
    for sshd in made:
        if sshd.process is not None and sshd.process.poll() is None:
            sshd.kill()


@pytest.fixture(params=["openssh", "embedded"])
def sshd(request: pytest.FixtureRequest, make_sshd: MakeSshd) -> Sshd:
    return make_sshd(request.param)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@contextlib.asynccontextmanager
async def target(handler: Handler, address: str = "127.0.0.1") -> AsyncIterator[int]:
    writers: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        await handler(reader, writer)  # type: ignore[misc]

    server = await asyncio.start_server(handle, address, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Back what came, then the end."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
