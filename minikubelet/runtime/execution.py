"""A command run beside a container's main process: `kubectl exec`.

My job: pipes or a terminal around one launched command. An `Execution` owns its streams and its `Launched`; who asked
for it owns the Execution. The command lives in the container's namespaces, so it dies with them.
"""

import asyncio
import os
import signal
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from minikubelet.runtime.init import KILL_TREE
from minikubelet.runtime.interface import ByteSink, ByteSource, ExitStatus
from minikubelet.runtime.launching import Launched, Launcher
from minikubelet.runtime.streams import (
    PipeSink,
    PipeSource,
    TerminalSink,
    input_pipe,
    output_pipe,
    set_window_size,
)

KILL_SECONDS = 2.0


def exit_status(status: int, *, oom: bool = False) -> ExitStatus:
    """From what waitpid says to what Kubernetes says: 128 + n for a signal."""
    code = os.waitstatus_to_exitcode(status)
    now = datetime.now(UTC)
    return ExitStatus(code, 0, now, oom) if code >= 0 else ExitStatus(128 - code, -code, now, oom)


def null_input() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


class Execution:
    """Implements interface.ExecProcess. Lives until `async with` is left."""

    def __init__(self, launched: Launched, ended: "asyncio.Task[ExitStatus]") -> None:
        self._launched, self._ended = launched, ended
        self._terminal = -1
        self._stdin: PipeSink | None = None
        self._stdout: PipeSource
        self._stderr: PipeSource | None = None

    @property
    def stdin(self) -> ByteSink | None:
        return self._stdin

    @property
    def stdout(self) -> ByteSource:
        return self._stdout

    @property
    def stderr(self) -> ByteSource | None:
        return self._stderr

    @property
    def pid(self) -> int:
        return self._launched.pid

    @property
    def is_running(self) -> bool:
        return not self._ended.done()

    def resize(self, width: int, height: int) -> None:
        if self._terminal >= 0:
            set_window_size(self._terminal, width, height)

    async def wait(self) -> ExitStatus:
        return await asyncio.shield(self._ended)

    async def kill(self) -> None:
        if not self._ended.done():
            self._launched.signal(KILL_TREE)
            done, _ = await asyncio.wait([self._ended], timeout=KILL_SECONDS)
            if not done:  # its init does not answer
                self._launched.signal(signal.SIGKILL)
                await asyncio.wait([self._ended])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.kill()
        finally:
            self.close()

    def close(self) -> None:
        for stream in (self._stdin, self._stdout, self._stderr):
            if stream:
                stream.abort()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        self._launched.close()

    def use_terminal(self, descriptor: int, *, stdin: bool) -> None:
        """Three copies: each stream closes its own."""
        os.set_blocking(descriptor, False)
        self._terminal = descriptor
        self._stdout = PipeSource(os.dup(descriptor))
        self._stdin = TerminalSink(os.dup(descriptor)) if stdin else None

    def use_pipes(self, stdin: int | None, stdout: int, stderr: int) -> None:
        self._stdin = PipeSink(stdin) if stdin is not None else None
        self._stdout, self._stderr = PipeSource(stdout), PipeSource(stderr)


async def execute(
    launcher: Launcher, spec: dict[str, Any], target: int | None, tasks: asyncio.TaskGroup, *, stdin: bool
) -> Execution:
    """Launch `spec` in the namespaces of the process behind pidfd `target`. Raises LaunchFailed."""
    join = (target,) if spec["join_flags"] and target is not None else ()
    if spec["terminal"]:
        launched = await launcher.launch(spec, join)
        execution = Execution(launched, tasks.create_task(_ended(launched), name=f"exec {launched.pid}"))
        execution.use_terminal(launched.take_terminal(), stdin=stdin)
        return execution
    theirs, ours = _pipes(stdin=stdin)
    try:
        launched = await launcher.launch(spec, (*theirs, *join))
    except BaseException:
        for descriptor in ours:
            os.close(descriptor)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    execution = Execution(launched, tasks.create_task(_ended(launched), name=f"exec {launched.pid}"))
    execution.use_pipes(ours[2] if stdin else None, ours[0], ours[1])
    return execution


def _pipes(*, stdin: bool) -> tuple[list[int], list[int]]:
    """(the command's 0, 1, 2), (our stdout, stderr and, if asked for, stdin)."""
    out_ours, out_theirs = output_pipe()
    err_ours, err_theirs = output_pipe()
    if not stdin:
        return [null_input(), out_theirs, err_theirs], [out_ours, err_ours]
    in_theirs, in_ours = input_pipe()
    return [in_theirs, out_theirs, err_theirs], [out_ours, err_ours, in_ours]


async def _ended(launched: Launched) -> ExitStatus:
    return exit_status(await launched.wait())
