"""`miniplane capture`: what anybody on the untrusted network sees, by somebody else's eyes.

My job: tshark on the untrusted network (its namespace with `--topology netns`, else this cluster's loopback addresses)
while a command runs, and its findings as one row per conversation: which protocol, which TLS, what of it is readable.
I believe nothing that the cluster says of itself; `paths` does that, and the two should agree.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from miniplane.errors import OptionsError
from miniplane.state import Record, StateDir, Topology
from miniplane.terminal import Paint, byte_count, table
from miniplane.topology import namespaces

#: The kernel hands packets over in blocks: so long until the last of them are surely in the file.
SETTLE: Final = 1.5
PATIENCE: Final = 60.0
VERSIONS: Final = {"0x0304": "TLS 1.3", "0x0303": "TLS 1.2"}
_FIELDS: Final = ("tcp.stream", "ip.src", "tcp.srcport", "ip.dst", "tcp.dstport", "tcp.len", "tcp.flags.syn",
                  "tcp.flags.ack", "_ws.col.Protocol", "tls.handshake.type",
                  "tls.handshake.extensions.supported_version", "tls.handshake.version")  # fmt: skip


@dataclass(slots=True)
class Conversation:
    """One TCP connection as the network saw it."""

    client: str
    server: str
    bytes: int = 0
    protocols: set[str] = field(default_factory=set)
    tls: str = ""

    @property
    def protection(self) -> str:
        if self.tls:
            return self.tls
        if any(name.startswith("SSH") for name in self.protocols):
            return "SSH"
        return "TLS" if any(name.startswith("TLS") for name in self.protocols) else "plain"


def capture(state: StateDir, command: Sequence[str], seconds: float, write: Path | None, look_for: str) -> int:
    record = state.require_record()
    tshark = shutil.which("tshark")
    if tshark is None:
        raise OptionsError("tshark is not installed (package tshark, or wireshark-cli)")
    if os.geteuid() != 0:
        raise OptionsError("capturing packets needs root")
    with tempfile.TemporaryDirectory(prefix="miniplane-capture-") as folder:
        file = write or Path(folder) / "network.pcapng"
        with _capturing(tshark, record, file):
            code = _run(command, seconds)
            time.sleep(SETTLE)
        found = conversations(_frames(tshark, file))
        readable = _streams_with(tshark, file, look_for) if look_for else set()
    for line in lines(found, readable, look_for, Paint.for_stream()):
        print(line)
    return code or (5 if readable else 0)


def _run(command: Sequence[str], seconds: float) -> int:
    if not command:
        time.sleep(seconds)
        return 0
    return subprocess.run(command).returncode


@contextmanager
def _capturing(tshark: str, record: Record, file: Path) -> Iterator[None]:
    where: tuple[str, ...] = ()
    if record.options.topology is Topology.NETNS:
        # One of the router's two ends: every packet passes it once.
        where = ("nsenter", f"--net=/run/netns/{namespaces(record.place.slot)[1]}")
        device, wanted = "control", "tcp"
    else:
        device = "lo"
        wanted = "tcp and (" + " or ".join(f"net {network}" for network in record.ranges.all) + ")"
    argv = [*where, tshark, "-q", "-i", device, "-f", wanted, "-w", str(file)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "Capture started" in line:
                break
        else:
            raise OptionsError(f"tshark: {said.strip().splitlines()[-1] if said.strip() else 'ended at once'}")
        try:
            yield
        finally:
            process.terminate()
            process.stderr.read()


def _tshark(tshark: str, file: Path, *arguments: str) -> list[list[str]]:
    # Port 10250 is nobody's in tshark's tables: without a word it would guess.
    argv = [tshark, "-r", str(file), "-d", "tcp.port==10250,tls", "-T", "fields", *arguments]
    answer = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)
    return [line.split("\t") for line in answer.stdout.splitlines()]


def _frames(tshark: str, file: Path) -> list[list[str]]:
    return _tshark(tshark, file, "-Y", "tcp", *(word for name in _FIELDS for word in ("-e", name)))


def _streams_with(tshark: str, file: Path, text: str) -> set[str]:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return {row[0] for row in _tshark(tshark, file, "-Y", f'tcp.payload contains "{escaped}"', "-e", "tcp.stream")}


def conversations(frames: Iterable[Sequence[str]]) -> dict[str, Conversation]:
    """By tshark's number of the connection."""
    found: dict[str, Conversation] = {}
    for frame in frames:
        if len(frame) != len(_FIELDS):
            continue
        stream, source, sport, target, tport, length, syn, ack, protocol, hello, supported, version = frame
        near, far = f"{source}:{sport}", f"{target}:{tport}"
        one = found.get(stream)
        if one is None:
            is_answer = syn in ("1", "True") and ack in ("1", "True")
            # A connection that was there before is told by the lower port, which is the server's.
            begun_by_other = is_answer or (syn not in ("1", "True") and int(sport) < int(tport))
            one = found[stream] = Conversation(far, near) if begun_by_other else Conversation(near, far)
        one.bytes += int(length or 0)
        if protocol != "TCP":
            one.protocols.add(protocol)
        if "2" in hello.split(","):
            number = (supported or version).split(",")[0]
            one.tls = VERSIONS.get(number, number)
    return found


def lines(found: dict[str, Conversation], readable: set[str], look_for: str, paint: Paint) -> list[str]:
    """Conversations of one kind share a row; plain ones first."""
    grouped: dict[tuple[str, str, str, bool], list[Conversation]] = {}
    for stream, one in found.items():
        key = (one.client.rpartition(":")[0], one.server, one.protection, stream in readable)
        grouped.setdefault(key, []).append(one)
    rows = [[paint(name, "bold") for name in ("FROM", "TO", "ON THE WIRE", "CONNECTIONS", "BYTES", "")]]
    plain_first = sorted(grouped.items(), key=lambda item: item[0][2] != "plain")
    for (client, server, protection, is_readable), ones in plain_first:
        protocols = sorted({name for one in ones for name in one.protocols} - {protection})
        shown = f"plain ({', '.join(protocols)})" if protection == "plain" and protocols else protection
        rows.append([
            client, server, paint(shown, "red" if protection == "plain" else "green"), str(len(ones)),
            byte_count(sum(one.bytes for one in ones)), paint("✗ readable", "red") if is_readable else "",
        ])  # fmt: skip
    if len(rows) == 1:
        return ["nothing passed"]
    if not look_for:
        return table(rows)
    where = f"readable in {len(readable)} connections" if readable else "readable nowhere"
    return [*table(rows), "", f"{look_for!r}: {where}"]
