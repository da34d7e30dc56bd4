"""`python -m bench.serviceproxy`: a gibibyte and a few thousand connections through a virtual IP of the user-space
proxy, beside the same straight to the endpoint and, where it is installed, through HAProxy."""

import asyncio
import contextlib
import multiprocessing
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import uvloop

from bench.cluster import cpu_seconds, pss_megabytes
from minikubelet.clock import Clock
from minikubelet.serviceproxy.affinity import Balancer
from minikubelet.serviceproxy.frontends import Entrance, Frontend
from minikubelet.serviceproxy.serviceports import Endpoint, ServicePortName
from minikubelet.serviceproxy.userspace import UserspaceProxy

GIBIBYTE = 1 << 30
CONNECTIONS = 3000
VIP = ("127.96.251.1", 18080)
PEER = ("127.96.251.2", 18080)


def _endpoint(ready: Connection) -> None:
    """Sends a gibibyte to whoever says `g`; ends at once for whoever says anything else."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    ready.send(listener.getsockname()[1])
    piece = bytes(1 << 20)
    while True:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            if client.recv(1) == b"g":
                for _ in range(GIBIBYTE // len(piece)):
                    client.sendall(piece)


def _proxy(port: int, ready: Connection) -> None:
    async def serve() -> None:
        async with UserspaceProxy(Balancer(random.Random()), Clock()) as proxy:
            endpoints = (Endpoint("127.0.0.1", port),)
            proxy.apply({VIP: Frontend(ServicePortName("default", "web", ""), Entrance.CLUSTER_IP, endpoints)})
            ready.send(os.getpid())
            await asyncio.Event().wait()

    uvloop.run(serve())


def measure(name: str, address: tuple[str, int], pid: int | None) -> None:
    before, started, size = cpu_seconds(pid) if pid else 0.0, time.perf_counter(), 0
    with socket.create_connection(address) as client:
        client.sendall(b"g")
        while piece := client.recv(1 << 20):
            size += len(piece)
    assert size == GIBIBYTE, f"{name}: {size} bytes"
    rate, used = size / (time.perf_counter() - started) / 1e6, (cpu_seconds(pid) - before if pid else 0.0)
    started = time.perf_counter()
    for _ in range(CONNECTIONS):
        with socket.create_connection(address) as client:
            client.sendall(b"c")
            client.recv(1)
    each = (time.perf_counter() - started) / CONNECTIONS
    memory = f", {pss_megabytes(pid):.0f} MB" if pid else ""
    print(f"{name}: {rate:.0f} MB/s, {used:.2f} CPU s per GiB; a connection {each * 1e6:.0f} us{memory}")


@contextlib.contextmanager
def _process(target: object, *args: object) -> Iterator[int]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(*args, theirs), daemon=True)  # type: ignore[arg-type]
    process.start()
    try:
        yield int(ours.recv())
    finally:
        process.terminate()
        process.join()


@contextlib.contextmanager
def _haproxy(port: int) -> Iterator[int | None]:
    program = shutil.which("haproxy")
    if program is None:
        yield None
        return
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(f"defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n"
                   f"listen web\n bind {PEER[0]}:{PEER[1]}\n server a 127.0.0.1:{port}\n")
        file.flush()
        with subprocess.Popen([program, "-db", "-f", file.name]) as process:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(PEER):
                    break
                time.sleep(0.05)
            yield process.pid
            process.terminate()


def main() -> None:
    with _process(_endpoint) as port, _process(_proxy, port) as proxy, _haproxy(port) as peer:
        measure("straight to the endpoint", ("127.0.0.1", port), None)
        measure("through the virtual IP", VIP, proxy)
        if peer is not None:
            measure("through HAProxy", PEER, peer)


if __name__ == "__main__":
    main()
