"""The embedded runtime: containers are processes of whoever runs the kubelet, in as many namespaces as allowed.

My job: sandboxes and containers by the interface. I own the launcher, every container until it is removed, one
watching task per process, the worker that tends rotated logs and the one that enforces memory limits. Pod workers use
me through `interface`.

What it is and is not: no container engine, no root needed, no cgroups, no own network: every container uses the host's
and should bind its pod's address (127.244.N.M) or 0.0.0.0. Containers end when the kubelet ends, also when it is
killed; the restart policy starts them anew.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from minikubelet.logs.writer import MAX_BYTES, MAX_FILES, LogFile, tend
from minikubelet.runtime import etcfiles, isolation, launchspec
from minikubelet.runtime.container import ProcessContainer
from minikubelet.runtime.execution import null_input
from minikubelet.runtime.interface import (
    Capabilities,
    ContainerSpec,
    ExitStatus,
    Mount,
    Sandbox,
    SandboxSpec,
    StartFailure,
    Stream,
)
from minikubelet.runtime.launching import Launched, Launcher, LaunchFailed
from minikubelet.runtime.launchspec import Isolation
from minikubelet.runtime.output import Output
from minikubelet.runtime.scratch import clear, make
from minikubelet.runtime.streams import PipeSink, TerminalSink, input_pipe, output_pipe
from minikubelet.runtime.words import start_failure

ID_PREFIX = "miniplane://"
MEMORY_CHECK_SECONDS = 1.0
EVENT_QUEUE = 10_000


# Readable for user 0 of the host, which a container of a root kubelet is.
HOST_SECRETS = ("shadow", "shadow-", "gshadow", "gshadow-", "ssl/private", "ssh/ssh_host_*_key")


def host_secrets() -> tuple[Path, ...]:
    return tuple(path.resolve() for pattern in HOST_SECRETS for path in Path("/etc").glob(pattern))


def homes() -> tuple[Path, ...]:
    """Directories of people: what is hidden from containers unless told otherwise."""
    found = [Path("/root"), Path("/home"), Path(os.path.expanduser("~"))]
    return tuple(dict.fromkeys(path.resolve() for path in found if path.is_dir() and path != Path("/")))


@dataclass(slots=True)
class _Streams:
    """Both ends of a container's standard streams while it is started."""

    theirs: tuple[int, ...]
    stdout: int = -1
    stderr: int = -1
    stdin: int = -1

    def close_theirs(self) -> None:
        for descriptor in set(self.theirs):
            os.close(descriptor)

    def close_ours(self) -> None:
        for descriptor in (self.stdout, self.stderr, self.stdin):
            if descriptor >= 0:
                os.close(descriptor)


class ProcessRuntime:
    """Implements interface.Runtime. `hidden` are directories no container may see (the state directory, homes); the
    host's own secrets in /etc come on top.
    `level` skips the probe (tests). Lives as `async with`."""

    def __init__(
        self,
        root_dir: Path,
        *,
        hidden: Sequence[Path] | None = None,
        level: Isolation | None = None,
        log_max_bytes: int = MAX_BYTES,
        log_max_files: int = MAX_FILES,
    ) -> None:
        self._root = root_dir.resolve()
        self._hidden = tuple(path.resolve() for path in (homes() if hidden is None else hidden)) + host_secrets()
        self._level, self._log_max_bytes, self._log_max_files = level, log_max_bytes, log_max_files
        self._launcher = Launcher()
        self._containers: dict[str, ProcessContainer] = {}
        self._sandboxes: dict[str, set[str]] = {}
        self._pauses: dict[str, Launched] = {}
        self._listeners: set[asyncio.Queue[tuple[str, ExitStatus]]] = set()
        self._rotated: set[Path] = set()
        self._has_rotated = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._workers: list[asyncio.Task[None]] = []
        self._capabilities: Capabilities

    async def __aenter__(self) -> Self:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(clear, self._root / "containers")
        self._launcher.start()
        refused: list[str] = []
        try:
            if self._level is None:
                self._level, refused = await isolation.probe(self._launcher, self._root)
        except BaseException:
            self._launcher.close()
            raise
        self._capabilities = isolation.capabilities(self._level, refused)
        await self._tasks.__aenter__()
        self._workers = [
            self._tasks.create_task(self._tend_logs(), name="runtime logs"),
            self._tasks.create_task(self._enforce_memory(), name="runtime memory"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*(container.kill() for container in self.list_running()))
            self._launcher.close()  # takes along what is left, commands beside containers too
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            for container in self._containers.values():
                container.close()
            for pause in self._pauses.values():
                pause.close()

    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def launcher_pid(self) -> int:
        return self._launcher.pid

    async def create_sandbox(self, spec: SandboxSpec) -> Sandbox:
        sandbox = Sandbox(ID_PREFIX + secrets.token_hex(32), spec, datetime.now(UTC))
        if spec.share_process_namespace and self._isolation.own_pids:
            try:
                self._pauses[sandbox.id] = await self._launcher.launch(launchspec.pause(self._isolation), ())
            except LaunchFailed as failed:
                raise StartFailure(f"shared process namespace: {failed}", failed.number) from failed
        self._sandboxes[sandbox.id] = set()
        return sandbox

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        for identity in self._sandboxes.pop(sandbox.id, set()):
            if container := self._containers.get(identity):
                await container.remove()
        pause = self._pauses.pop(sandbox.id, None)
        if pause:
            pause.close()  # it hears us hang up, ends, and with it whoever is left in its namespace

    async def start(self, spec: ContainerSpec, sandbox: Sandbox) -> ProcessContainer:
        if sandbox.id not in self._sandboxes:
            raise StartFailure(f"sandbox of pod {spec.pod} is gone")
        identity = secrets.token_hex(32)
        scratch = self._root / "containers" / identity
        try:
            container = await self._start(ID_PREFIX + identity, spec, sandbox, scratch)
        except BaseException:
            await asyncio.to_thread(clear, scratch)
            raise
        self._containers[container.id] = container
        self._sandboxes[sandbox.id].add(container.id)
        self._tasks.create_task(container.watch(self._announce), name=f"container {spec.pod}/{spec.name}")
        return container

    def list_running(self) -> list[ProcessContainer]:
        return [container for container in self._containers.values() if container.is_running]

    def find(self, container_id: str) -> ProcessContainer | None:
        return self._containers.get(container_id)

    async def events(self) -> AsyncIterator[tuple[str, ExitStatus]]:
        queue: asyncio.Queue[tuple[str, ExitStatus]] = asyncio.Queue(EVENT_QUEUE)
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    @property
    def _isolation(self) -> Isolation:
        assert self._level is not None, "the runtime has not been entered"
        return self._level

    async def _start(self, identity: str, spec: ContainerSpec, sandbox: Sandbox, scratch: Path) -> ProcessContainer:
        make(scratch)
        join = self._process_to_join(spec, sandbox)
        full = replace(spec, mounts=self._mounts(spec, scratch))
        launch = launchspec.container(full, self._isolation, scratch, self._hidden, joins_pids=join is not None)
        log = LogFile(spec.log_path, self._log_rotated, self._log_max_bytes) if spec.log_path else None
        try:
            return await self._launch(identity, spec, launch, scratch, join, log)
        except BaseException as error:
            if log:
                log.close()
            if isinstance(error, LaunchFailed):
                raise start_failure(error, spec.argv[0] if spec.argv else "", spec.working_dir) from error
            raise

    async def _launch(
        self,
        identity: str,
        spec: ContainerSpec,
        launch: dict[str, Any],
        scratch: Path,
        join: int | None,
        log: LogFile | None,
    ) -> ProcessContainer:
        streams = _open_streams(spec)
        try:
            launched = await self._launcher.launch(launch, streams.theirs + ((join,) if join is not None else ()))
        except BaseException:
            streams.close_ours()
            raise
        finally:
            streams.close_theirs()
        output = Output(log)
        stdin: PipeSink | None = None
        if spec.tty:
            os.set_blocking(launched.terminal, False)
            output.add(Stream.STDOUT, os.dup(launched.terminal))
            stdin = TerminalSink(os.dup(launched.terminal)) if spec.stdin else None
        else:
            output.add(Stream.STDOUT, streams.stdout)
            output.add(Stream.STDERR, streams.stderr)
            stdin = PipeSink(streams.stdin) if spec.stdin else None
        container = ProcessContainer(identity, spec, launch, launched, output, stdin, scratch)
        container.entrust(self._launcher, self._isolation, self._tasks, self._forget)
        return container

    def _process_to_join(self, spec: ContainerSpec, sandbox: Sandbox) -> int | None:
        if not self._isolation.own_pids or spec.host_pid:
            return None
        if spec.target_container_id and sandbox.id not in self._pauses:
            target = self._containers.get(spec.target_container_id)
            if target is None or not target.is_running:
                raise StartFailure(f"target container {spec.target_container_id} is not running")
            return target.launched.pidfd
        pause = self._pauses.get(sandbox.id)
        return pause.pidfd if pause else None

    def _mounts(self, spec: ContainerSpec, scratch: Path) -> tuple[Mount, ...]:
        if not self._isolation.mounts:
            return ()
        mounts = spec.mounts + etcfiles.mounts(spec, scratch / "etc")
        if spec.termination_message_file:
            spec.termination_message_file.touch()
            spec.termination_message_file.chmod(0o666)
            mounts += (Mount(spec.termination_message_file.resolve(), spec.termination_message_path),)
        return mounts

    def _forget(self, container: ProcessContainer) -> None:
        self._containers.pop(container.id, None)
        for members in self._sandboxes.values():
            members.discard(container.id)

    def _announce(self, container: ProcessContainer) -> None:
        assert container.exit_status is not None
        for queue in self._listeners:
            with contextlib.suppress(asyncio.QueueFull):  # who reads none of ten thousand ends reads none
                queue.put_nowait((container.id, container.exit_status))

    def _log_rotated(self, path: Path) -> None:
        self._rotated.add(path)
        self._has_rotated.set()

    async def _tend_logs(self) -> None:
        while True:
            await self._has_rotated.wait()
            self._has_rotated.clear()
            while self._rotated:
                await asyncio.to_thread(tend, self._rotated.pop(), self._log_max_files)

    async def _enforce_memory(self) -> None:
        while True:
            await asyncio.sleep(MEMORY_CHECK_SECONDS)
            for container in self.list_running():
                container.enforce_memory()


def _open_streams(spec: ContainerSpec) -> _Streams:
    if spec.tty:
        return _Streams(())
    out_ours, out_theirs = output_pipe()
    err_ours, err_theirs = output_pipe()
    if not spec.stdin:
        return _Streams((null_input(), out_theirs, err_theirs), out_ours, err_ours)
    in_theirs, in_ours = input_pipe()
    return _Streams((in_theirs, out_theirs, err_theirs), out_ours, err_ours, in_ours)

