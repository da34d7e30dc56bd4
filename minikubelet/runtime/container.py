"""One start of one container: its process, its output, its stdin, the clients at them.

My job: what the kubelet holds while a container lives and after it ended, until `remove`. A `ProcessContainer` owns the
launched process, the output and the stdin; attach sessions and exec'd commands are owned by who opened them.
`process` makes me.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minikubelet.logline import kv
from minikubelet.runtime import launchspec, usage
from minikubelet.runtime.attachment import Attachment
from minikubelet.runtime.execution import Execution, execute, exit_status
from minikubelet.runtime.init import KILL_TREE
from minikubelet.runtime.interface import ContainerGone, ContainerSpec, ExitStatus, LogFeed, Stats
from minikubelet.runtime.launching import Launched, Launcher, LaunchFailed
from minikubelet.runtime.launchspec import Isolation
from minikubelet.runtime.output import Output
from minikubelet.runtime.scratch import clear
from minikubelet.runtime.streams import PipeSink, set_window_size
from minikubelet.runtime.words import start_failure

log = logging.getLogger(__name__)
KILL_SECONDS = 2.0
# What the main process wrote is in its pipe when it ends, and nobody of its tree is left to hold that open. If all the
# same no end comes for so long while we do read, somebody has been given the descriptor; he is not waited for.
DRAIN_SECONDS = 2.0


class ProcessContainer:
    """Implements interface.Container."""

    def __init__(
        self,
        identity: str,
        spec: ContainerSpec,
        launch: dict[str, Any],
        launched: Launched,
        output: Output,
        stdin: PipeSink | None,
        scratch: Path,
    ) -> None:
        self.id, self.spec, self.started_at = identity, spec, datetime.now(UTC)
        self.launch, self.launched, self.output, self.stdin, self.scratch = launch, launched, output, stdin, scratch
        self.exit_status: ExitStatus | None = None
        self.log_feed: LogFeed | None = output.feed
        self.terminal = launched.take_terminal()
        self.executions: set[Execution] = set()
        self._out_of_memory = False
        self._ended = asyncio.Event()
        self._attend: tuple[Launcher, Isolation, asyncio.TaskGroup]

    @property
    def pid(self) -> int:
        return self.launched.pid

    @property
    def is_running(self) -> bool:
        return self.exit_status is None

    def entrust(
        self,
        launcher: Launcher,
        isolation: Isolation,
        tasks: asyncio.TaskGroup,
        forget: Callable[["ProcessContainer"], None],
    ) -> None:
        """What exec and remove need of the runtime."""
        self._forget = forget
        self._attend = (launcher, isolation, tasks)

    async def watch(self, ended: Callable[["ProcessContainer"], None]) -> None:
        """Until the main process is over and its output is in the log. Run once, by the runtime."""
        status = await self.launched.wait()
        await self._drain()
        self.output.close()
        if self.output.lost_bytes:
            facts = kv(pod=self.spec.pod, container=self.spec.name, bytes=self.output.lost_bytes)
            log.warning("container.log.lost %s", facts)
        self._close_stdin()
        self.exit_status = exit_status(status, oom=self._out_of_memory)
        self._ended.set()
        ended(self)

    async def _drain(self) -> None:
        while not self.output.finished.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.output.finished.wait(), DRAIN_SECONDS)
                return
            if not self.output.is_held_back:
                return

    async def wait(self) -> ExitStatus:
        await self._ended.wait()
        assert self.exit_status is not None
        return self.exit_status

    async def signal(self, number: int) -> None:
        self._require_running()
        self.launched.signal(number)

    async def stop(self, grace_seconds: float) -> ExitStatus:
        if self.is_running:
            self.launched.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self.wait(), max(grace_seconds, 0))
            await self.kill()
        return await self.wait()

    async def kill(self) -> None:
        """The whole tree, now. In a PID namespace the end of init is the end of all; elsewhere init does it."""
        if not self.is_running:
            return
        if self.launch["reap_orphans"]:
            self.launched.signal(KILL_TREE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), KILL_SECONDS)
                return
        self.launched.signal(signal.SIGKILL)
        await self.wait()

    def enforce_memory(self) -> None:
        """Kill the container if it uses more than its limit, as the kernel would in a cgroup."""
        limit = self.spec.memory_limit
        if limit and self.is_running and usage.measure(self.pid).rss_bytes > limit:
            self._out_of_memory = True
            self.launched.signal(KILL_TREE if self.launch["reap_orphans"] else signal.SIGKILL)

    async def exec(self, argv: tuple[str, ...], *, tty: bool = False, stdin: bool = False) -> Execution:
        self._require_running()
        launcher, isolation, tasks = self._attend
        spec = launchspec.command(self.spec, self.launch, isolation, argv, tty=tty)
        try:
            execution = await execute(launcher, spec, self.launched.pidfd, tasks, stdin=stdin)
        except LaunchFailed as failed:
            if not self.is_running:
                raise ContainerGone(f"container {self.spec.name} is not running") from failed
            raise start_failure(failed, argv[0] if argv else "", self.spec.working_dir) from failed
        self.executions = {other for other in self.executions if other.is_running} | {execution}
        return execution

    async def attach(self, *, stdin: bool = False) -> Attachment:
        self._require_running()
        return Attachment(self, stdin=stdin)

    def resize(self, width: int, height: int) -> None:
        if self.terminal >= 0:
            set_window_size(self.terminal, width, height)

    def stats(self) -> Stats:
        self._require_running()
        running = [execution.pid for execution in self.executions if execution.is_running]
        figures = [usage.measure(pid) for pid in (self.pid, *running)]
        return Stats(
            sum(figure.cpu_nanoseconds for figure in figures),
            sum(figure.rss_bytes for figure in figures),
            sum(figure.processes for figure in figures),
            datetime.now(UTC),
        )

    async def remove(self) -> None:
        await self.kill()
        self.close()
        await asyncio.to_thread(clear, self.scratch)
        self._forget(self)

    def close(self) -> None:
        """Give back every descriptor; the process is over."""
        self.output.close()
        self._close_stdin()
        self.launched.close()
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1

    def _close_stdin(self) -> None:
        if self.stdin:
            self.stdin.abort()

    def _require_running(self) -> None:
        if not self.is_running:
            raise ContainerGone(f"container {self.spec.name} is not running")

