"""Start a cluster and end it: what `up`, `down` and the pytest plugin have in common.

My job: settle where the cluster goes, issue its certificates, start the supervisor with the process table, wait until
it is ready. I own nothing once I return: the supervisor does. It is started first and imports while certificates are
made.
"""

import contextlib
import fcntl
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from miniplane import topology
from miniplane.addresses import HTTPS_PORT, Ranges, check_bind_address, choose_port, choose_ssh_port, take_slot
from miniplane.apiclient import APIClient
from miniplane.cluster import certificate_names, cluster_url, programs, write_inputs
from miniplane.control import ask, is_running
from miniplane.errors import NotRunning, OptionsError, StartError
from miniplane.processes import Identity
from miniplane.program import nodes
from miniplane.readiness import ReadinessCheck
from miniplane.state import Options, Place, Record, StateDir, Storage, Topology, changed, context_name, with_given

Report = Callable[[str], None]

READY_WITHIN: Final = 60.0
DOWN_WITHIN: Final = 30.0
# So many starts within one `up` are no accident.
HOPELESS_RESTARTS: Final = 3
# Everything else in the environment stays out of the cluster: its pods run as the same person and could read it.
_PASSED_ON: Final = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "PYTHONASYNCIODEBUG", "PYTHONWARNINGS", "PYTHONPYCACHEPREFIX",
)  # fmt: skip
# Everything `up` and the programs write below a state directory; `purge` touches nothing else.
_OURS: Final = (
    "cluster.json", "pki", "nodes", "storage", "logs", "images", "connections", "bootstrap-token", ".certs.lock",
    "pids.json", "supervisor.lock", "up.lock", "control.sock", "konnectivity", "egress.yaml",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that `up` has made ready."""

    state: StateDir
    record: Record
    was_running: bool

    @property
    def kubeconfig(self) -> Path:
        return self.state.path / "admin.conf"

    @property
    def url(self) -> str:
        return cluster_url(self.record)


def up(state: StateDir, given: dict[str, Any], report: Report, ready_within: float = READY_WITHIN) -> Cluster:
    """A ready cluster with the `given` settings (fields of Options); those not given stay as they were.

    Harmless on a running one, if it has those settings. Raises MiniplaneError.
    """
    if sys.platform != "linux":
        raise OptionsError(
            "`up` needs Linux: all of 127.0.0.0/8, /proc, and prctl; elsewhere use a Linux machine or WSL"
        )
    recorded = state.read_record()
    options = with_given(recorded.options if recorded else Options(), given)
    with _one_start_at_a_time(state):
        recorded = state.read_record()
        was_running = recorded is not None and is_running(state)
        if recorded is not None and was_running:
            _refuse_changes(recorded.options, given)
            record = recorded
        else:
            record = _start(state, options, recorded.place if recorded else None, report)
    _wait(state, record, report, ready_within)
    return Cluster(state, record, was_running)


@contextlib.contextmanager
def _one_start_at_a_time(state: StateDir) -> Iterator[None]:
    """Two `up` at once: the second finds the first one's cluster running."""
    _make_state_dir(state)
    descriptor = os.open(state.path / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _refuse_changes(options: Options, given: dict[str, Any]) -> None:
    different = changed(options, given)
    if different:
        asked = ", ".join(f"{key.replace('_', '-')}={_plain(value)}" for key, value in different.items())
        raise OptionsError(f"the cluster runs with other settings than {asked}: `miniplane down` first")


def _plain(value: object) -> object:
    return getattr(value, "value", value)


def _start(state: StateDir, options: Options, last: Place | None, report: Report) -> Record:
    check_bind_address(options.bind_address)
    slot, holder = _slot(state, last)
    with holder:
        topology.sweep(slot)
        place = _place(options, slot, last, report)
        record = Record(options, place)
        if options.topology is Topology.NETNS:
            topology.build(record)
            report(f"network namespaces {', '.join(topology.namespaces(slot))}")
        table = programs(record, state)
        with _supervisor(state, holder) as supervisor:
            _issue_certificates(record, state, report)
            _await_greeting(supervisor)
            write_inputs(record, state)
            state.write_record(record)
            _hand_over(supervisor, {"programs": [row.as_json() for row in table], "environment": environment()})
    report(f"started {', '.join(row.name for row in table[:4])}{' …' if len(table) > 4 else ''}")
    return record


def _place(options: Options, slot: int, last: Place | None, report: Report) -> Place:
    if options.topology is Topology.NETNS:
        return Place(slot, options.secure_port or HTTPS_PORT)  # in a namespace of our own every port is free
    choice = choose_port(options.bind_address, options.secure_port, last.port if last else None)
    if choice.remark:
        report(choice.remark)
    return Place(slot, choice.port, choose_ssh_port(Ranges(slot)))


def _make_state_dir(state: StateDir) -> None:
    try:
        state.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.logs.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise OptionsError(f"write {state.path}: {error.strerror}") from error


def _slot(state: StateDir, last: Place | None) -> tuple[int, socket.socket]:
    """The slot of the last run, since addresses are stored; a new cluster avoids those of its siblings."""
    if last is None:
        ranges, holder = take_slot(avoid=_sibling_slots(state))
        return ranges.slot, holder
    ranges, holder = take_slot(only=last.slot)
    return ranges.slot, holder


def _sibling_slots(state: StateDir) -> set[int]:
    base = state.path.parent.parent if state.path.parent.name == "clusters" else state.path
    slots = set()
    for folder in [base, *base.glob("clusters/*")]:
        with contextlib.suppress(OptionsError):
            record = StateDir(folder).read_record()
            slots |= {record.place.slot} if record else set()
    return slots


@contextlib.contextmanager
def _supervisor(state: StateDir, holder: socket.socket) -> Iterator["subprocess.Popen[bytes]"]:
    """A supervisor that has the lock and waits for its table. Ends again if the body raises."""
    with open(os.open(state.log("supervisor"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        process = subprocess.Popen(
            (sys.executable, "-P", "-m", "miniplane.supervisor", f"--state-dir={state.path}",
             f"--slot-fd={holder.fileno()}"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, pass_fds=[holder.fileno()],
            env=environment(), start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process
    except BaseException:
        process.stdin.close()
        process.wait()
        raise
    finally:
        process.stdin.close()
        process.stdout.close()
    process.returncode = 0  # it is nobody's child any more; keeps Popen from complaining


def _await_greeting(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdout is not None
    greeting = process.stdout.readline()
    said = json.loads(greeting) if greeting else {"error": "it ended at once; see logs/supervisor.log"}
    if "error" in said:
        raise StartError(f"the supervisor did not start: {said['error']}")


def _hand_over(process: "subprocess.Popen[bytes]", table: dict[str, Any]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(table).encode() + b"\n")
    process.stdin.flush()
    process.stdout.read()  # to its end: the supervisor has let go of us


def environment() -> dict[str, str]:
    """What the cluster's programs inherit. Bytecode is always kept: compiling all of it costs a second per start."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    source = str(Path(__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return passed | {"PYTHONPATH": f"{source}{os.pathsep}{inherited}" if inherited else source}


def _issue_certificates(record: Record, state: StateDir, report: Report) -> None:
    # Imported here: no other command pays for a cryptography library.
    from certs.errors import CertsError
    from certs.issuance import Access, Action, Issuance
    from certs.layout import Layout
    from certs.profiles import Cluster as Names
    from certs.profiles import NodeAddress

    options, ranges = record.options, record.ranges
    names = Names(
        service_cidr=ipaddress.ip_network(ranges.services),
        sans=tuple(certificate_names(record)),
        nodes=tuple(NodeAddress(node.name, node.ip) for node in nodes(options, ranges)),
        etcd=ranges.control_plane if options.storage is Storage.ETCD else None,
        konnectivity=ranges.control_plane,
    )
    access = Access(context_name(options), cluster_url(record))
    try:
        outcomes = Issuance(Layout(state.path), names, access, datetime.now(UTC)).run()
    except CertsError as error:
        raise StartError(f"certificates: {error}") from error
    counts = {action: sum(outcome.action is action for outcome in outcomes) for action in Action}
    report("certificates: " + ", ".join(f"{count} {action.value}" for action, count in counts.items() if count))


def _wait(state: StateDir, record: Record, report: Report, ready_within: float) -> None:
    status = ask(state, {"do": "status"})
    names = [node.name for node in nodes(record.options, record.ranges)]
    with APIClient.from_kubeconfig(state.path / "admin.conf") as client:
        ReadinessCheck(
            client=client,
            node_names=names,
            started=float(status["startedAt"]),
            deadline=time.time() + ready_within,
            report=report,
            look_after=_Watch(state).look,
        ).wait()


@dataclass(slots=True)
class _Watch:
    """Looks, now and then, whether a program ends again and again while we wait for it."""

    state: StateDir
    next_look: float = 0.0

    def look(self) -> None:
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + 0.25
        for process in ask(self.state, {"do": "status"})["processes"]:
            if process["restarts"] >= HOPELESS_RESTARTS:
                last = "".join(f"\n    {line}" for line in _tail(Path(process["log"]), 8))
                raise StartError(f"{process['name']} ends again and again ({process['lastExit']}). Its log says:{last}")


def _tail(path: Path, count: int) -> Sequence[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def down(state: StateDir) -> bool:
    """End the cluster in `state`; False if nothing ran. Returns when every process has gone, and every network."""
    was_running = _end(state)
    record = state.read_record()
    if record is not None and record.options.topology is Topology.NETNS:
        topology.remove_unused(record.place.slot)
    return was_running


def _end(state: StateDir) -> bool:
    try:
        ask(state, {"do": "down"})
    except NotRunning:
        killed = _kill_recorded(state)
        _has_ended(state, time.monotonic() + DOWN_WITHIN)  # its guardian may be burying yet
        return killed
    if not _has_ended(state, time.monotonic() + DOWN_WITHIN):
        _kill_recorded(state)
    return True


def purge(state: StateDir) -> None:
    """Forget a cluster that is down: certificates, objects, logs, images. Only what a cluster put there."""
    ours = [*_OURS, *(path.name for path in state.path.glob("*.conf"))]
    for name in ours:
        path = state.path / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        state.path.rmdir()  # unless something else lies there


def _has_ended(state: StateDir, deadline: float) -> bool:
    """The supervisor holds its lock until it is gone."""
    try:
        descriptor = os.open(state.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(0.01)
        return False
    finally:
        os.close(descriptor)


def _kill_recorded(state: StateDir) -> bool:
    """Without a supervisor to ask: end who it had recorded, the supervisor first so that it starts nobody again."""
    alive = [one for one in _recorded(state) if one.is_alive]
    for one in alive:
        one.send(signal.SIGKILL)
    while any(one.is_alive for one in alive):
        time.sleep(0.01)
    for path in (state.pids, state.control_socket):
        path.unlink(missing_ok=True)
    return bool(alive)


def _recorded(state: StateDir) -> list[Identity]:
    try:
        return [Identity(entry["pid"], entry["startTime"]) for entry in json.loads(state.pids.read_text())]
    except (OSError, ValueError, KeyError, TypeError):
        return []
