"""A real etcd on loopback for the tests: its own data directory, free ports, plain or TLS."""

import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Etcd:
    url: str
    process: subprocess.Popen[bytes]


def require_etcd() -> str:
    path = shutil.which("etcd") or shutil.which("etcd", path="/usr/bin:/usr/local/bin:/usr/sbin")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("etcd is not installed (apt install etcd-server); CI must test both engines")
        pytest.skip("etcd is not installed (apt install etcd-server)")
    return path


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def running_etcd(directory: Path, *, extra: Sequence[str] = (), tls: ssl.SSLContext | None = None) -> Iterator[Etcd]:
    binary = require_etcd()
    client, peer = free_ports(2)
    scheme = "https" if tls else "http"
    url, peer_url = f"{scheme}://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    with (directory / "etcd.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "--data-dir", str(directory / "data"), "--name", "test", "--listen-client-urls", url,
             "--advertise-client-urls", url, "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
             "--initial-cluster", f"test={peer_url}", *extra], stdout=log, stderr=log)
    try:
        _wait_ready(url, process, tls, directory / "etcd.log")
        yield Etcd(url, process)
    finally:
        process.kill()
        process.wait()


def _wait_ready(url: str, process: subprocess.Popen[bytes], tls: ssl.SSLContext | None, log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        request = urllib.request.Request(f"{url}/v3/kv/range", data=b'{"key":"AA=="}')
        try:
            with urllib.request.urlopen(request, timeout=2, context=tls) as response:
                response.read()
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    pytest.fail(f"etcd did not start:\n{log.read_text()[-2000:]}")
