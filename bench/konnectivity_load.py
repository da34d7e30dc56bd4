"""The load of the Konnectivity benchmark: targets to talk to, and measurements through any tunnel.

Job: a process of small TCP servers, and functions that push bytes, open connections and time round trips through a
`Way` to them. Blocking sockets and threads on purpose: the load must not share the design of what it measures. Only the
standard library. Neighbours: `konnectivity_peers` makes the ways, `konnectivity` prints.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

MIB, GIB = 1 << 20, 1 << 30
CHUNK = 256 << 10
PING = b"p" * 64
GREETING = b"HELLO-FIRST-0123"
TIMEOUT = 20.0

Dial = Callable[[str], socket.socket]  # name of a target → connected socket


# ---------------------------------------------------------------- targets


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
    return line


def serve_echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def serve_source(connection: socket.socket) -> None:
    """`<bytes>\\n` → so many bytes; again, until the client leaves."""
    block = memoryview(bytes(CHUNK))
    while line := _read_line(connection):
        left = int(line)
        while left:
            left -= connection.send(block[: min(left, CHUNK)])


def serve_sink(connection: socket.socket) -> None:
    """`<bytes>\\n` and so many bytes → how many came."""
    wanted, got = int(_read_line(connection)), 0
    buffer = bytearray(CHUNK)
    while got < wanted and (size := connection.recv_into(buffer)):
        got += size
    connection.sendall(b"%d\n" % got)


def serve_greeting(connection: socket.socket) -> None:
    connection.sendall(GREETING)
    connection.recv(100)


def serve_count(connection: socket.socket) -> None:
    """Reads to EOF, then answers how many bytes came: needs a half-close."""
    got = 0
    while data := connection.recv(65536):
        got += len(data)
    connection.sendall(b"%d\n" % got)


def serve_stuck(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    time.sleep(60)


_slow_counts: dict[bytes, int] = {}


def serve_slow(connection: socket.socket) -> None:
    """`<key>\\n` and bytes, read slowly; `?<key>\\n` asks later how many came."""
    key = _read_line(connection).strip()
    if key.startswith(b"?"):
        connection.sendall(b"%d\n" % _slow_counts.get(key[1:], -1))
        return
    got = 0
    try:
        while data := connection.recv(65536):
            got += len(data)
            time.sleep(len(data) / 20e6)
    finally:
        _slow_counts[key] = got


SERVICES = {
    "echo": serve_echo,
    "source": serve_source,
    "sink": serve_sink,
    "greeting": serve_greeting,
    "count": serve_count,
    "stuck": serve_stuck,
    "slow": serve_slow,
}


def _accept(listener: socket.socket, service: Callable[[socket.socket], None]) -> None:
    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                service(connection)
            except (OSError, ValueError):
                return

    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def _run_targets(ready: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.stack_size(256 << 10)
    ports = {}
    for name, service in SERVICES.items():
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        ports[name] = listener.getsockname()[1]
        threading.Thread(target=_accept, args=(listener, service), daemon=True).start()
    ready.send(ports)
    ready.recv()  # until the benchmark closes its end


class Targets:
    """The servers, in a process of their own. `ports` by name."""

    def __enter__(self) -> "Targets":
        context = multiprocessing.get_context("fork")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_run_targets, args=(theirs,), daemon=True)
        self._process.start()
        self.ports: dict[str, int] = self._ours.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def dial(self, name: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports[name]), TIMEOUT)


# ---------------------------------------------------------------- measurements


@dataclass
class Way:
    """A tunnel to the targets, and the processes it costs."""

    name: str
    dial: Dial
    pids: Callable[[], list[int]] = field(default=list)

    def cpu(self) -> float:
        """CPU seconds of its processes so far."""
        return sum(map(_cpu, self.pids()))

    def memory(self) -> int:
        """Resident kB of its processes."""
        return sum(map(_resident, self.pids()))


def _cpu(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    except (OSError, StopIteration):
        return 0


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def _pull(connection: socket.socket, size: int) -> int:
    connection.sendall(b"%d\n" % size)
    buffer, got = bytearray(1 << 20), 0
    while got < size and (part := connection.recv_into(buffer)):
        got += part
    return got


def download(way: Way, size: int) -> dict[str, float]:
    with way.dial("source") as connection:
        before, start = way.cpu(), time.monotonic()
        got = _pull(connection, size)
        spent = time.monotonic() - start
        return {"down MB/s": got / spent / 1e6, "down CPU s/GiB": (way.cpu() - before) / (got / GIB)}


def upload(way: Way, size: int) -> dict[str, float]:
    with way.dial("sink") as connection:
        before, start, left, block = way.cpu(), time.monotonic(), size, memoryview(bytes(CHUNK))
        connection.sendall(b"%d\n" % size)
        while left:
            left -= connection.send(block[: min(left, CHUNK)])
        got = int(_read_line(connection))
        spent = time.monotonic() - start
        return {"up MB/s": got / spent / 1e6, "up CPU s/GiB": (way.cpu() - before) / (got / GIB)}


def connects(way: Way, seconds: float, at_once: int) -> dict[str, float]:
    """Dial, 64 bytes there and back, close; how many per second."""
    end = time.monotonic() + seconds

    def work(_: int) -> tuple[int, int]:
        done = failed = 0
        while time.monotonic() < end:
            try:
                with way.dial("echo") as connection:
                    connection.sendall(PING)
                    good = _read(connection, len(PING)) == PING
                done, failed = done + good, failed + (not good)
            except OSError:
                failed += 1
        return done, failed

    before, start = way.cpu(), time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        results = list(pool.map(work, range(at_once)))
    spent, cpu = time.monotonic() - start, way.cpu() - before
    done, failed = (sum(counts) for counts in zip(*results, strict=True))
    label = f"connects/s x{at_once}"
    return {
        label: done / spent,
        f"{label} failed": failed,
        f"CPU s/1000 connects x{at_once}": cpu / max(done, 1) * 1000,
    }


def _ping(connection: socket.socket, seconds: float) -> list[float]:
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        connection.sendall(PING)
        if len(_read(connection, len(PING))) < len(PING):
            raise OSError("echo ended")
        times.append((time.monotonic() - start) * 1e3)
    return times


def _percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, round(part * (len(values) - 1)))]


def round_trips(way: Way, seconds: float) -> dict[str, float]:
    with way.dial("echo") as connection:
        _ping(connection, 0.2)
        times = _ping(connection, seconds)
    return {"rtt idle ms": statistics.median(times), "rtt idle p99 ms": _percentile(times, 0.99)}


def _pull_for_ever(way: Way, started: "multiprocessing.synchronize.Event") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with way.dial("source") as connection:
        _pull(connection, 16 * MIB)
        started.set()
        while True:
            _pull(connection, GIB)


def round_trips_beside_bulk(way: Way, seconds: float) -> dict[str, float]:
    context = multiprocessing.get_context("fork")
    started = context.Event()
    with way.dial("echo") as connection:
        _ping(connection, 0.2)
        bulk = context.Process(target=_pull_for_ever, args=(way, started), daemon=True)
        bulk.start()
        try:
            started.wait(30)
            times = _ping(connection, seconds)
        finally:
            bulk.terminate()
            bulk.join()
    time.sleep(0.3)
    return {"rtt beside bulk ms": statistics.median(times), "rtt beside bulk p99 ms": _percentile(times, 0.99)}


def idle_memory(way: Way, count: int) -> dict[str, float]:
    before = way.memory()
    with contextlib.ExitStack() as open_ones:
        for _ in range(count):
            connection = open_ones.enter_context(way.dial("echo"))
            connection.sendall(PING)
            _read(connection, len(PING))
        time.sleep(0.5)
        after = way.memory()
    return {"kB per idle connection": (after - before) / count}


def truncated_uploads(way: Way, targets: Targets, count: int) -> dict[str, float]:
    """Write, close at once, a target that reads slowly: how many uploads lost their end."""
    keys = {}
    for number in range(count):
        size = (100_000, 1_000_000, 4_000_000)[number % 3]
        key = os.urandom(6).hex().encode()
        with way.dial("slow") as connection:
            connection.sendall(key + b"\n" + bytes(size))
        keys[key] = size
    deadline, whole = time.monotonic() + 8, 0
    while keys and time.monotonic() < deadline:
        time.sleep(0.1)
        for key, size in list(keys.items()):
            with targets.dial("slow") as connection:
                connection.sendall(b"?" + key + b"\n")
                got = int(_read_line(connection))
            if got >= 0:
                del keys[key]
                whole += got == size
    return {f"truncated uploads of {count}": count - whole}


def half_closes(way: Way, count: int) -> dict[str, float]:
    good = 0
    for _ in range(count):
        try:
            with way.dial("count") as connection:
                connection.settimeout(3)
                connection.sendall(bytes(1000))
                connection.shutdown(socket.SHUT_WR)
                good += _read_line(connection) == b"1000\n"
        except OSError:
            continue
    return {f"half-closed exchanges of {count}": good}


def greetings(way: Way, count: int) -> dict[str, float]:
    broken = 0
    for _ in range(count):
        try:
            with way.dial("greeting") as connection:
                connection.settimeout(3)
                broken += _read(connection, len(GREETING)) != GREETING
        except OSError:
            broken += 1
    return {f"broken greetings of {count}": broken}


def stalls(way: Way) -> dict[str, float]:
    """A reader and a target that stop: do a neighbour and a new dial still work? 1 = yes."""
    results = {}
    for label, stall in (("reader", _stall_reader), ("target", _stall_target)):
        with way.dial("echo") as neighbour:
            neighbour.settimeout(3)
            with stall(way):
                results[f"alive beside stalled {label}"] = float(_answers(neighbour) and _can_dial(way))
        time.sleep(0.2)
    return results


def _stall_reader(way: Way) -> socket.socket:
    connection = way.dial("source")
    connection.sendall(b"%d\n" % GIB)
    time.sleep(1.0)
    return connection


def _stall_target(way: Way) -> socket.socket:
    connection = way.dial("stuck")
    connection.settimeout(0.5)
    end = time.monotonic() + 3
    try:
        while time.monotonic() < end:
            connection.send(bytes(65536))
    except OSError:
        pass
    return connection


def _answers(connection: socket.socket) -> bool:
    try:
        connection.sendall(PING)
        return _read(connection, len(PING)) == PING
    except OSError:
        return False


def _can_dial(way: Way) -> bool:
    try:
        with way.dial("echo") as connection:
            connection.settimeout(3)
            return _answers(connection)
    except OSError:
        return False
