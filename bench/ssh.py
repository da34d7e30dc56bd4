"""The API server's SSH egress beside OpenSSH's `ssh -L`, in one run: `python -m bench.ssh`.

Both end in the same kind of OpenSSH sshd on loopback and reach the same targets. Ours is the dialer of the API server
(`miniapiserver.egress.ssh`) in a process of its own, fed by a UNIX socket, as requests feed it in the API server.
Prints medians, the ratio, and what limits ours: where its CPU time goes. OpenSSH takes its own first cipher, ours ours.
Job: measure; `konnectivity_load` has the loads.
"""

import argparse
import asyncio
import contextlib
import cProfile
import getpass
import os
import pstats
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.konnectivity_load import TIMEOUT, Targets, Way, connects, download, round_trips, upload
from bench.konnectivity_peers import descendants, free_ports, openssh, running, wait_until_it_carries

GIB = 1 << 30
NODE = "node-1"


@contextlib.contextmanager
def egress(folder: Path, targets: Targets, kind: str) -> Iterator[Way]:
    """Our client in a process of its own, against OpenSSH's sshd or the embedded one."""
    from certs.sshkeys import known_hosts_line, new_ssh_key

    user, host = new_ssh_key("user"), new_ssh_key("host")
    for name, content in (("ours-user", user.private), ("ours-host", host.private)):
        (folder / name).touch(0o600)
        (folder / name).write_bytes(content)
    (folder / "ours-authorized").write_text(f"{user.public}\n")
    (folder / "ours-known").write_text(known_hosts_line(NODE, 22, host.public) + "\n")
    port, front = free_ports(1), folder / f"{kind}.sock"
    with running(_server(folder, port, kind), folder / f"{kind}-sshd.log") as sshd:
        _wait_for(port)
        client = [sys.executable, "-m", "bench.ssh", "--serve", str(front), str(port), str(folder)]
        with running(client, folder / f"{kind}-client.log") as ours:
            way = Way(f"ours → {kind}", lambda target: _dial(front, targets.ports[target]),
                      lambda: [ours.pid, *descendants(sshd.pid)])
            wait_until_it_carries(way)
            yield way


def _server(folder: Path, port: int, kind: str) -> list[str]:
    if kind == "embedded":
        return [sys.executable, "-m", "minikubelet.sshd", "--address=127.0.0.1", f"--port={port}",
                f"--user={getpass.getuser()}", f"--host-key-file={folder / 'ours-host'}",
                f"--authorized-keys-file={folder / 'ours-authorized'}", "--allow-cidrs=127.0.0.0/8"]
    return [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", str(port),
            "-o", "ListenAddress=127.0.0.1", "-h", str(folder / "ours-host"),
            "-o", f"AuthorizedKeysFile={folder / 'ours-authorized'}", "-o", "StrictModes=no", "-o", "UsePAM=no",
            "-o", "PidFile=none", "-o", "PermitRootLogin=prohibit-password"]


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise OSError(f"nothing listens on {port}")
        time.sleep(0.05)


def _dial(front: Path, port: int) -> socket.socket:
    """The dialled socket itself, handed over: what the API server gets from its dialer."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(TIMEOUT)
        asking.connect(str(front))
        asking.sendall(b"%d" % port)
        said, descriptors, _, _ = socket.recv_fds(asking, 100, 1)
    if not descriptors:
        raise OSError(said.decode() or "no answer")
    found = socket.socket(fileno=descriptors[0])
    found.settimeout(TIMEOUT)
    return found


async def serve(front: str, port: int, folder: Path) -> None:
    """Dial through one tunnel for whoever asks, and give the socket away. SIGUSR1 starts and ends a profile."""
    from miniapiserver.egress.ssh import Credentials
    from wire.errors import DialError

    credentials = Credentials.read(getpass.getuser(), folder / "ours-user", folder / "ours-known", port)
    connection = await credentials.connect(NODE, "127.0.0.1")

    async def answer(asking: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with asking:
            wanted = int(await loop.sock_recv(asking, 100))
            try:
                with await connection.open("127.0.0.1", wanted) as sock:
                    asking.setblocking(True)
                    socket.send_fds(asking, [b"ok"], [sock.fileno()])
            except DialError as error:
                await loop.sock_sendall(asking, str(error).encode())

    profile = cProfile.Profile()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, profile.enable)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, _dump, profile, Path(front).with_suffix(".profile"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(front)
    listener.listen(1024)
    listener.setblocking(False)
    async with asyncio.TaskGroup() as group:
        while True:
            asking, _ = await asyncio.get_running_loop().sock_accept(listener)
            asking.setblocking(False)
            group.create_task(answer(asking))


def _dump(profile: cProfile.Profile, file: Path) -> None:
    profile.disable()
    profile.dump_stats(file)


def measure(way: Way, size: int, rounds: int) -> dict[str, float]:
    """Medians of several rounds."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for step in (download(way, size), upload(way, size), connects(way, 1.0, 1), round_trips(way, 1.0)):
            for name, value in step.items():
                found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def limits(way: Way, folder: Path, size: int) -> list[str]:
    """Where our process spends its time during a download, by kind of work."""
    client = way.pids()[0]
    os.kill(client, signal.SIGUSR1)
    download(way, size)
    os.kill(client, signal.SIGUSR2)
    file = folder / "openssh.profile"
    deadline = time.monotonic() + TIMEOUT
    while not file.exists() and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    time.sleep(0.2)
    # uvloop's writes are C that cProfile cannot name: their time shows as the own time of these two callers.
    kinds = {
        "writing to sockets": ("connection.py _send", "channelbridge.py data_received"),
        "decryption": ("aead", "aes", "chacha", "decrypt"),
        "asyncssh, per packet of 32 KiB": ("asyncssh",),
    }
    spent = dict.fromkeys((*kinds, "rest"), 0.0)
    for (where, _, name), (_, _, own, _, _) in pstats.Stats(str(file)).stats.items():  # type: ignore[attr-defined]
        text = f"{where} {name}".lower()
        spent[next((kind for kind, words in kinds.items() if any(word in text for word in words)), "rest")] += own
    total = sum(spent.values()) or 1.0
    return [f"{kind}: {own / total:.0%}" for kind, own in sorted(spent.items(), key=lambda item: -item[1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--mib", type=int, default=256, help="size of a bulk transfer")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.serve:
        import uvloop

        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(serve(options.serve[0], int(options.serve[1]), Path(options.serve[2])))
        return
    size = options.mib << 20
    table: dict[str, dict[str, float]] = {}
    with Targets() as targets, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with openssh(folder, targets) as way:
            table[way.name] = measure(way, size, options.rounds)
        with egress(folder, targets, "openssh") as way:
            table[way.name] = measure(way, size, options.rounds)
            reasons = limits(way, folder, size)
        with egress(folder, targets, "embedded") as way:
            table[way.name] = measure(way, size, options.rounds)
    show(table, reasons)


def show(table: dict[str, dict[str, float]], reasons: list[str]) -> None:
    names = list(next(iter(table.values())))
    print("".join(f"{title:>24}" for title in ("", *table)))
    for name in names:
        print(f"{name:>24}" + "".join(f"{row.get(name, float('nan')):>24.2f}" for row in table.values()))
    peer, ours, *_ = table.values()
    for name in ("down MB/s", "up MB/s"):
        ratio = ours[name] / peer[name]
        print(f"{name}: {ratio:.2f} of OpenSSH's, at least 0.5 wanted: {'good' if ratio >= 0.5 else 'NOT MET'}")
    print(f"what limits ours (own time of its process in a download): {', '.join(reasons)}")


if __name__ == "__main__":
    main()
