"""What the Konnectivity benchmark compares: our two ends, upstream's, one of each, and OpenSSH.

Job: start a pair of processes with certificates of their own in a temporary folder, wait until it carries connections,
give a `Way` through it, and end exactly those processes. Neighbours: `konnectivity_load` uses the ways.
"""

import contextlib
import errno
import getpass
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import trustme

from bench.konnectivity_load import TIMEOUT, Targets, Way

BINARIES = "KONNECTIVITY_UPSTREAM_BIN"  # folder with upstream's proxy-server and proxy-agent


def write_certificates(folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    for name, names in (("server", ("127.0.0.1", "localhost")), ("agent", ("agent",))):
        leaf = authority.issue_cert(*names)
        leaf.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        (folder / f"{name}.crt").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row. Upstream insists on 1024..49151, so port 0 will not do."""
    start = 10000 + (os.getpid() * 37 + next(_turn) * 101) % 20000
    for first in range(start, start + 2000, count):
        try:
            with contextlib.ExitStack() as stack:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return first
    raise OSError("no free ports")


_turn = itertools.count()


def server_command(upstream: str) -> list[str]:
    return [str(Path(upstream) / "proxy-server")] if upstream else [sys.executable, "-m", "konnectivity.server"]


def agent_command(upstream: str) -> list[str]:
    return [str(Path(upstream) / "proxy-agent")] if upstream else [sys.executable, "-m", "konnectivity.agent"]


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(2 if "konnectivity" in " ".join(command) else 0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def connect_through(path: str, host: str, port: int) -> socket.socket:
    """A connection by HTTP CONNECT over the UNIX socket `path`. Anything behind the answer is an error, as for k8s."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(TIMEOUT)
        while True:
            try:
                connection.connect(path)
                break
            except BlockingIOError:  # its queue is full
                time.sleep(0.002)
        connection.sendall(b"CONNECT %s:%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % (host.encode(), port))
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = connection.recv(4096)
            if not more:
                raise OSError(f"closed during CONNECT: {answer[:100]!r}")
            answer += more
        if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"\r\n\r\n"):
            raise OSError(f"CONNECT refused: {answer[:200]!r}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def konnectivity(name: str, folder: Path, targets: Targets, server_bin: str, agent_bin: str) -> Iterator[Way]:
    """A server and an agent; a folder of upstream binaries for either, or "" for ours."""
    port = free_ports(5)
    front = str(folder / f"{name.replace(' ', '-')}.sock")
    server = [
        *server_command(server_bin), "--mode=http-connect", f"--uds-name={front}", "--server-port=0",
        f"--agent-port={port}", "--agent-bind-address=127.0.0.1", "--health-bind-address=127.0.0.1",
        f"--health-port={port + 1}", f"--admin-port={port + 2}", f"--cluster-cert={folder}/server.crt",
        f"--cluster-key={folder}/server.key", f"--cluster-ca-cert={folder}/ca.crt", "--v=0",
    ]  # fmt: skip
    agent = [
        *agent_command(agent_bin), "--proxy-server-host=127.0.0.1", f"--proxy-server-port={port}",
        f"--ca-cert={folder}/ca.crt", f"--agent-cert={folder}/agent.crt", f"--agent-key={folder}/agent.key",
        "--health-server-host=127.0.0.1", f"--health-server-port={port + 3}",
        f"--admin-server-port={port + 4}", "--v=0",
    ]  # fmt: skip
    with (
        running(server, folder / f"{name}-server.log") as one,
        running(agent, folder / f"{name}-agent.log") as other,
    ):
        way = Way(
            name,
            lambda target: connect_through(front, "127.0.0.1", targets.ports[target]),
            lambda: [one.pid, other.pid],
        )
        wait_until_it_carries(way)
        yield way


def wait_until_it_carries(way: Way) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            way.dial("echo").close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def openssh(folder: Path, targets: Targets) -> Iterator[Way]:
    """`ssh -L` to a temporary sshd on loopback, with keys of its own."""
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / f"ssh-{key}"], check=True)
    (folder / "authorized").write_bytes((folder / "ssh-user.pub").read_bytes())
    port = free_ports(1 + len(targets.ports))
    Path("/run/sshd").mkdir(exist_ok=True)
    local = {name: port + index for index, name in enumerate(targets.ports, 1)}
    server = [
        sshd, "-D", "-e", "-f", "/dev/null", "-p", str(port), "-o", "ListenAddress=127.0.0.1",
        "-h", str(folder / "ssh-host"),
        "-o", f"AuthorizedKeysFile={folder / 'authorized'}", "-o", "StrictModes=no", "-o", "UsePAM=no",
        "-o", "PidFile=none", "-o", "PermitRootLogin=prohibit-password",
    ]  # fmt: skip
    client = [
        "ssh", "-N", "-F", "/dev/null", "-p", str(port), "-i", str(folder / "ssh-user"),
        "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ExitOnForwardFailure=yes",
        *(part for name, at in local.items() for part in ("-L", f"127.0.0.1:{at}:127.0.0.1:{targets.ports[name]}")),
        f"{getpass.getuser()}@127.0.0.1",
    ]  # fmt: skip
    with running(server, folder / "sshd.log") as one:
        time.sleep(0.5)
        with running(client, folder / "ssh.log") as other:
            way = Way(
                "OpenSSH -L",
                lambda target: socket.create_connection(("127.0.0.1", local[target]), TIMEOUT),
                lambda: [other.pid, *descendants(one.pid)],
            )
            wait_until_it_carries(way)
            yield way


def descendants(pid: int) -> list[int]:
    """`pid` and its children's children: sshd forks one process per connection."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return found
