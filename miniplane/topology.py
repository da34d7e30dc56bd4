"""`--topology netns`: control plane and nodes in networks of their own, with an untrusted network between.

    this machine ──(management)── control plane ──── untrusted network ──── nodes
                                                          router            firewall

My job: three network namespaces, their cables, routes and the nodes' firewall: built by `up`, gone after `down`, and
swept by the next `up` if nobody came to `down`. The firewall lets nothing begin towards the nodes, except port 22 with
an SSH egress; what nodes begin themselves goes out. Needs root. Names carry the network we stand in and the slot there:
what carries our network and a slot that nobody has is rubbish.
"""

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from miniplane.addresses import SSH_PORT, NetnsRanges, take_slot
from miniplane.errors import OptionsError
from miniplane.program import Program, Readiness
from miniplane.state import Record

_MOUNTED: Final = Path("/run/netns")
_NAME: Final = re.compile(r"miniplane-(\d+)-(\d+)-(control|untrusted|nodes)")
_SECONDS: Final = 20.0
# Third octets of the cables into the untrusted network.
_CONTROL_CABLE: Final = 1
_NODES_CABLE: Final = 2


def namespaces(slot: int) -> tuple[str, str, str]:
    """Control plane's, the untrusted network's, the nodes'."""
    prefix = f"miniplane-{_our_network()}-{slot}"
    return f"{prefix}-control", f"{prefix}-untrusted", f"{prefix}-nodes"


def _our_network() -> int:
    """A slot is held as far as a network namespace reaches, but names of namespaces are known to all of them."""
    return Path("/proc/self/ns/net").stat().st_ino


def host_link(slot: int) -> str:
    """This machine's end of the management cable."""
    return f"mp{slot}-mgmt"


def placed(rows: Sequence[Program], record: Record) -> list[Program]:
    """The process table with each program in its network."""
    control, _, nodes = namespaces(record.place.slot)
    return [
        replace(row, argv=("nsenter", f"--net={_MOUNTED / (nodes if _is_of_nodes(row) else control)}", *row.argv))
        for row in rows
    ]


def _is_of_nodes(row: Program) -> bool:
    return row.readiness is Readiness.NODE or row.name.startswith(("konnectivity-agent-", "sshd-"))


def build(record: Record) -> None:
    """Raises OptionsError; then nothing is left of it."""
    _require()
    slot = record.place.slot
    ranges = NetnsRanges(slot)
    try:
        _connect(slot, ranges)
        _run(["ip", "netns", "exec", namespaces(slot)[2], "nft", "-f", "-"], firewall(record))
    except BaseException:
        remove(slot)
        raise


def _require() -> None:
    if os.geteuid() != 0:
        raise OptionsError("--topology netns: making networks needs root; --topology local does not")
    for program in ("ip", "nft", "nsenter"):
        if shutil.which(program) is None:
            raise OptionsError(f"--topology netns: {program} is not installed")


def _connect(slot: int, ranges: NetnsRanges) -> None:
    control, untrusted, nodes = namespaces(slot)
    for name in (control, untrusted, nodes):
        _run(["ip", "netns", "add", name])
    _batch(None, [
        f"link add {host_link(slot)} type veth peer name mgmt netns {control}",
        f"address add {ranges.host}/30 dev {host_link(slot)}",
        f"link set {host_link(slot)} up",
    ])  # fmt: skip
    _batch(control, [
        f"link add uplink type veth peer name control netns {untrusted}",
        *_up("lo", "mgmt", "uplink"),
        f"address add {ranges.control_plane}/30 dev mgmt",
        f"address add {ranges.link(_CONTROL_CABLE, 2)}/30 dev uplink",
        f"route add default via {ranges.link(_CONTROL_CABLE, 1)}",
    ])  # fmt: skip
    _batch(nodes, [
        f"link add uplink type veth peer name nodes netns {untrusted}",
        *_up("lo", "uplink"),
        f"address add {ranges.link(_NODES_CABLE, 2)}/30 dev uplink",
        f"route add default via {ranges.link(_NODES_CABLE, 1)}",
        # Every address of these ranges is here, as all of 127.0.0.0/8 is on loopback.
        *(f"route add local {network} dev lo" for network in ranges.all),
    ])  # fmt: skip
    _batch(untrusted, [
        *_up("lo", "control", "nodes"),
        f"address add {ranges.link(_CONTROL_CABLE, 1)}/30 dev control",
        f"address add {ranges.link(_NODES_CABLE, 1)}/30 dev nodes",
        f"route add {ranges.management} via {ranges.link(_CONTROL_CABLE, 2)}",
        *(f"route add {network} via {ranges.link(_NODES_CABLE, 2)}" for network in ranges.all),
    ])  # fmt: skip
    _run(["ip", "netns", "exec", untrusted, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])


def _up(*links: str) -> list[str]:
    return [f"link set {link} up" for link in links]


def firewall(record: Record) -> str:
    """The nodes' rules. A refusal is an answer (no route to host), not silence: a dial fails at once and says why."""
    ssh = f'iifname "uplink" tcp dport {SSH_PORT} accept' if record.options.egress.is_ssh else ""
    return f"""
table inet miniplane {{
  chain input {{
    type filter hook input priority 0; policy drop;
    iifname "lo" accept
    ct state established,related accept
    {ssh}
    iifname "uplink" reject with icmpx type admin-prohibited
  }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
  }}
}}
"""


def remove(slot: int) -> None:
    """Every trace of a slot's networks, whatever still runs inside. Harmless if there is none."""
    if (Path("/sys/class/net") / host_link(slot)).exists():
        _try(["ip", "link", "delete", host_link(slot)])
    for name in namespaces(slot):
        if (_MOUNTED / name).exists():
            _try(["ip", "netns", "delete", name])


def remove_unused(slot: int) -> None:
    """After a cluster's end. The kernel may still be closing the last process's files, the slot's among them."""
    deadline = time.monotonic() + 1.0
    while not _remove_if_free(slot) and time.monotonic() < deadline:
        time.sleep(0.01)


def _remove_if_free(slot: int) -> bool:
    """A slot that is taken belongs to a cluster that runs, perhaps another's by now."""
    try:
        _, holder = take_slot(only=slot)
    except OptionsError:
        return False
    with holder:
        remove(slot)
    return True


def sweep(ours: int) -> None:
    """Networks that a crash left behind: those of the slot we have just taken, and of those that nobody has."""
    if os.geteuid() != 0:
        return
    for slot in _named_slots():
        if slot == ours:
            remove(slot)
        else:
            _remove_if_free(slot)


def _named_slots() -> set[int]:
    try:
        names = os.listdir(_MOUNTED)
    except FileNotFoundError:
        return set()
    found = [match for name in names if (match := _NAME.fullmatch(name))]
    return {int(match[2]) for match in found if int(match[1]) == _our_network()}


def _batch(namespace: str | None, lines: Sequence[str]) -> None:
    where = ["-netns", namespace] if namespace else []
    _run(["ip", *where, "-batch", "-"], "\n".join(lines) + "\n")


def _run(argv: Sequence[str], text: str = "") -> None:
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OptionsError(f"--topology netns: {' '.join(argv)}: {error}") from error
    if done.returncode != 0:
        raise OptionsError(f"--topology netns: {' '.join(argv)}: {' '.join(done.stderr.split())}")


def _try(argv: Sequence[str]) -> None:
    with contextlib.suppress(OptionsError):
        _run(argv)
