"""A cluster of small fake programs under the real supervisor: what `up` does, without the programs."""

import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from miniplane import launch
from miniplane.control import ask
from miniplane.processes import Identity
from miniplane.program import Program
from miniplane.state import Record, StateDir

SLEEPER = "import time; time.sleep(1000)"
# A child in a session of its own: no signal to its parent's process group reaches it.
WITH_ORPHAN = """
    import subprocess, time
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    open("orphan.pid", "w").write(str(child.pid))
    time.sleep(1000)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)"
)


def program(name: str, code: str, state: StateDir, layer: int = 1, grace: float = 5.0) -> Program:
    argv = (sys.executable, "-c", textwrap.dedent(code))
    return Program(name, argv, str(state.log(name)), layer, grace=grace)


class FakeCluster:
    """A started cluster of fakes."""

    def __init__(self, path: Path, programs: Callable[[StateDir], Sequence[Program]]) -> None:
        self.state = StateDir.of(path)
        self.lines: list[str] = []
        self._programs = programs

    def up(self) -> launch.Cluster:
        original, launch.programs = launch.programs, self._table
        waiting, launch._wait = launch._wait, lambda *_: None
        try:
            return launch.up(self.state, {"secure_port": 0}, self.lines.append)
        finally:
            launch.programs, launch._wait = original, waiting

    def _table(self, record: Record, state: StateDir) -> list[Program]:
        return list(self._programs(state))

    def process(self, name: str) -> dict[str, object]:
        processes = ask(self.state, {"do": "status"})["processes"]
        return next(process for process in processes if process["name"] == name)

    def log(self, name: str) -> str:
        path = self.state.log(name)
        return path.read_text() if path.exists() else ""

    def identity(self, name: str) -> Identity:
        pid = self.process(name)["pid"]
        assert isinstance(pid, int)
        found = Identity.of(pid)
        assert found is not None
        return found

    def supervisor(self) -> Identity:
        found = Identity.of(ask(self.state, {"do": "status"})["pid"])
        assert found is not None
        return found

    def orphan(self) -> Identity:
        path = self.state.path / "orphan.pid"
        until(lambda: path.exists() and path.read_text() != "")
        found = Identity.of(int(path.read_text()))
        assert found is not None
        return found


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Processes of others give no event to wait for; a test may look often."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
