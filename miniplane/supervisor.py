"""The supervisor: one small process that keeps a cluster's programs running and ends them all.

My job: start the rows of the process table, start again what ends, answer on the control socket, leave nothing behind.
I own every process of the cluster; `launch` starts me and hands me the table on stdin. Standard library only, to stay
small. Rule: whatever way I end, my children end with me (`processes.spawn`), and theirs (`guardian`).
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miniplane.control import ControlServer
from miniplane.errors import ControlError
from miniplane.guardian import guard
from miniplane.processes import Identity, Reaper
from miniplane.program import Program
from miniplane.state import StateDir, write_json
from miniplane.worker import Phase, Worker


@dataclass(slots=True)
class Supervisor:
    """A cluster's processes. Lives from `up` to `down`."""

    state: StateDir
    programs: Sequence[Program]
    environment: Mapping[str, str]
    reaper: Reaper
    workers: dict[str, Worker] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until `down` is asked for or SIGTERM comes."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.finished.set)
        async with asyncio.TaskGroup() as group:
            for program in self.programs:
                worker = Worker(program, self.environment, self.state.path, self.reaper, self.record)
                self.workers[program.name] = worker
                group.create_task(worker.run(), name=f"process {program.name}")
            await self.finished.wait()
            await self.stop()

    async def stop(self) -> None:
        """Layer by layer, so that who writes stops before what keeps."""
        for layer in sorted({program.layer for program in self.programs}, reverse=True):
            async with asyncio.TaskGroup() as group:
                for worker in self.workers.values():
                    if worker.program.layer == layer:
                        group.create_task(worker.stop(), name=f"stop {worker.program.name}")

    def record(self) -> None:
        """Who runs now, for a `down` that finds no supervisor."""
        running = [worker.identity for worker in self.workers.values() if worker.identity is not None]
        everyone = [Identity.of(os.getpid()), *running]
        document = [{"pid": one.pid, "startTime": one.start_time} for one in everyone if one is not None]
        write_json(self.state.pids, document)

    # -- what the control socket offers

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "status":
                return self.status()
            case "restart":
                await self._worker(str(request.get("process"))).restart()
                return {}
            case "down":
                self.finished.set()
                return {}
            case other:
                raise ControlError(f"unknown request {other!r}")

    def status(self) -> dict[str, Any]:
        processes = [worker.as_json() for worker in self.workers.values()]
        return {"pid": os.getpid(), "startedAt": self.started, "processes": processes}

    def _worker(self, name: str) -> Worker:
        worker = self.workers.get(name)
        if worker is None:
            raise ControlError(f"no process {name!r}; there are {', '.join(self.workers)}")
        if worker.phase is Phase.STOPPED:
            raise ControlError(f"{name} is stopped: the cluster is going down")
        return worker


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m miniplane.supervisor")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--slot-fd", type=int, required=True, help="the socket that keeps our loopback ranges ours")
    options = parser.parse_args(arguments)
    state = StateDir(options.state_dir)
    os.chdir(state.path)
    os.set_inheritable(options.slot_fd, False)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if not _take_lock(state):
        print(json.dumps({"error": "another supervisor has this state directory"}), flush=True)
        return 1
    guard()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(state, _listen(state)))
    return 0


def _take_lock(state: StateDir) -> bool:
    descriptor = os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True  # held, on purpose, until this process ends


def _listen(state: StateDir) -> socket.socket:
    """By its name in the working directory: sun_path has room for 107 bytes, a state directory may need more."""
    name = state.control_socket.name
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        listener.bind(name)
    finally:
        os.umask(umask)
    listener.listen(64)
    return listener


async def _serve(state: StateDir, listener: socket.socket) -> None:
    # The launcher issues certificates meanwhile, and closes the pipe without a word if that went wrong.
    print(json.dumps({"listening": True}), flush=True)
    line = sys.stdin.readline()
    if not line:
        return
    table = json.loads(line)
    _let_go_of_launcher()
    with Reaper() as reaper:
        programs = [Program.from_json(row) for row in table["programs"]]
        supervisor = Supervisor(state, programs, table["environment"], reaper)
        async with ControlServer(listener, supervisor.answer):
            await supervisor.run()
    for path in (state.pids, state.control_socket):
        path.unlink(missing_ok=True)


def _let_go_of_launcher() -> None:
    """Its pipes end here; from now on both streams are the log."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)


if __name__ == "__main__":
    sys.exit(main())
