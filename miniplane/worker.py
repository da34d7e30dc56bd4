"""One supervised program: started, watched, started again.

My job: the life of a row of the process table. I own its process and its log file. The states and what leads from one
to the next are the table below; nothing else changes a state.
"""

import asyncio
import contextlib
import enum
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from miniplane.processes import Exit, Identity, Launch, Reaper, spawn
from miniplane.program import Program

FIRST_DELAY: Final = 0.2
LAST_DELAY: Final = 30.0
# A program that ran this long was well; its next crash is a first one.
WELL_AFTER: Final = 10.0
# At a start, a log longer than this becomes `<log>.1`.
LOG_LIMIT: Final = 50 * 2**20


class Phase(enum.Enum):
    """Where a program is in its life."""

    STOPPED = "stopped"
    RUNNING = "running"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"


class Event(enum.Enum):
    """What moves it on."""

    START = "start"
    EXIT = "exit"
    STOP = "stop"


TRANSITIONS: Final[Mapping[Phase, Mapping[Event, Phase]]] = {
    Phase.STOPPED: {Event.START: Phase.RUNNING, Event.STOP: Phase.STOPPED},
    Phase.RUNNING: {Event.EXIT: Phase.BACKING_OFF, Event.STOP: Phase.STOPPING},
    Phase.BACKING_OFF: {Event.START: Phase.RUNNING, Event.EXIT: Phase.BACKING_OFF, Event.STOP: Phase.STOPPED},
    Phase.STOPPING: {Event.EXIT: Phase.STOPPED, Event.STOP: Phase.STOPPING},
}


def next_phase(phase: Phase, event: Event) -> Phase:
    try:
        return TRANSITIONS[phase][event]
    except KeyError:
        raise AssertionError(f"a {phase.value} program cannot {event.value}") from None


def delay_before(crashes: int) -> float:
    """Seconds to wait after the n-th crash in a row: 0.2, 0.4, 0.8 … 30."""
    return float(min(FIRST_DELAY * 2 ** (crashes - 1), LAST_DELAY))


@dataclass(slots=True)
class Worker:
    """A program and its present process, if any. Lives as long as the supervisor."""

    program: Program
    environment: Mapping[str, str]
    directory: Path
    reaper: Reaper
    changed: Callable[[], None]
    phase: Phase = Phase.STOPPED
    identity: Identity | None = None
    restarts: int = 0
    crashes: int = 0
    since: float = field(default_factory=time.time)
    retry_at: float | None = None
    last_exit: Exit | None = None
    last_exit_at: float | None = None
    _ended: asyncio.Future[Exit] | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: bool = False

    async def run(self) -> None:
        """Keep it running until `stop`."""
        while True:
            self._start()
            if self._ended is not None:
                self._exited(await self._ended)
            if self._is_stopped():
                return
            await self._back_off()
            if self._is_stopped():
                return
            self.restarts += 1

    def _is_stopped(self) -> bool:
        return self.phase is Phase.STOPPED

    async def stop(self) -> None:
        """SIGTERM, its grace, SIGKILL. Returns when the process has gone."""
        self._move(Event.STOP)
        self._wake.set()
        await self._terminate()

    async def restart(self) -> None:
        """End the process, or its waiting; `run` starts it again at once."""
        self._asked = True
        self._wake.set()
        await self._terminate()

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.program.name,
            "state": self.phase.value,
            "pid": self.identity.pid if self.identity else None,
            "since": self.since,
            "restarts": self.restarts,
            "retryAt": self.retry_at,
            "lastExit": self.last_exit.words if self.last_exit else None,
            "lastExitAt": self.last_exit_at,
            "readiness": self.program.readiness.value,
            "log": self.program.log,
        }

    def _start(self) -> None:
        self._asked, self.retry_at = False, None
        self._wake.clear()
        self._move(Event.START)
        try:
            with _open_log(Path(self.program.log)) as log:
                process = spawn(Launch(self.program.argv, self.environment, self.directory, log))
        except OSError as error:
            self._could_not_start(error)
            return
        self._ended = self.reaper.watch(process)
        self.identity = Identity.of(process.pid)
        self._log(f"process.start name={self.program.name} pid={process.pid} restarts={self.restarts}")
        self.changed()

    def _could_not_start(self, error: OSError) -> None:
        _say(Path(self.program.log), f"{self.program.argv[0]}: {error.strerror}")
        self._ended = None
        self._exited(Exit(127))

    def _exited(self, ended: Exit) -> None:
        self.crashes = 1 if time.time() - self.since > WELL_AFTER else self.crashes + 1
        self.last_exit, self.last_exit_at = ended, time.time()
        self.identity = None
        self._move(Event.EXIT)
        self._log(f'process.end name={self.program.name} how="{ended.words}" state="{self.phase.value}"')
        self.changed()

    def _log(self, event: str) -> None:
        """The supervisor's own log: its standard error."""
        print(f"info {_stamp()} supervisor {event}", file=sys.stderr, flush=True)

    async def _back_off(self) -> None:
        if self._asked:
            self.crashes = 0
            return
        delay = delay_before(self.crashes)
        self.retry_at = time.time() + delay
        _say(Path(self.program.log), f"{self.last_exit.words if self.last_exit else ''}; again in {delay:g} s")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), delay)

    async def _terminate(self) -> None:
        ended, identity = self._ended, self.identity
        if ended is None or identity is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, signal.SIGTERM)
        done, _ = await asyncio.wait([ended], timeout=self.program.grace)
        if not done:
            _say(Path(self.program.log), f"did not end within {self.program.grace:g} s: killed")
            identity.send(signal.SIGKILL)
            await asyncio.wait([ended])

    def _move(self, event: Event) -> None:
        before, self.phase = self.phase, next_phase(self.phase, event)
        if self.phase is not before:
            self.since = time.time()


def _open_log(path: Path) -> IO[bytes]:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_name(f"{path.name}.1"))
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab", buffering=0)


def _say(path: Path, text: str) -> None:
    """A line of ours among the program's own."""
    with _open_log(path) as log:
        log.write(f"warning {_stamp()} miniplane {text}\n".encode())


def _stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
