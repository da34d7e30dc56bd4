"""What the kubelet asks of a container runtime: sandboxes, containers, exec, attach, figures.

My job: the nouns and the promises. I own nothing; `process` implements me with plain processes, pod workers and the
HTTPS server use me. Times are aware datetimes in UTC; durations are seconds; sizes are bytes.

Rule: a container is over when its main process is over. Nothing it started outlives it.
"""

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self


class RuntimeFailure(Exception):
    """Root of everything a runtime raises. The text is fit for an event or a kubectl user."""


class StartFailure(RuntimeFailure):
    """The container could not be started: a mount, the working directory, the user. `errno` of the failing step."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class ExecutableNotFound(StartFailure):
    """The program is not in the container (`exit_code` 127) or may not be executed (126)."""

    def __init__(self, message: str, errno: int, exit_code: int) -> None:
        super().__init__(message, errno)
        self.exit_code = exit_code


class ContainerGone(RuntimeFailure):
    """exec, attach or signal on a container that is not running."""


class AttachLagged(RuntimeFailure):
    """The attached client read so slowly that it was detached; output after this point is missing."""


class Stream(enum.Enum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class PodRef:
    """Which pod, also across deletion and re-creation under the same name."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Mount:
    """One volume in one container; a file may be mounted onto a file. `host_path` is final: sub path resolved, no link
    in it (one that appears later is refused, see volumes.subpath)."""

    host_path: Path
    container_path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What the containers of a pod have in common."""

    pod: PodRef
    hostname: str
    pod_ip: str
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process_namespace: bool = False


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod's place in the runtime. Lives from `create_sandbox` to `remove_sandbox`, over container restarts."""

    id: str
    spec: SandboxSpec
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything one start of one container needs; nothing is looked up later."""

    pod: PodRef
    name: str
    attempt: int
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    """Empty: the root of the container."""
    mounts: tuple[Mount, ...] = ()
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    rootfs: Path | None = None
    """The image's root filesystem, never written to; None: the host's files, read-only."""
    hostname: str = "localhost"
    pod_ip: str = ""
    extra_hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """hostAliases: (ip, host names)."""
    resolv_conf: str | None = None
    """Content of /etc/resolv.conf; None: the host's."""
    run_as_user: int | None = None
    run_as_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    """With fsGroup. Honoured where the runtime has the privilege, see Capabilities."""
    log_path: Path | None = None
    """CRI log file; None: output goes to attached clients only."""
    termination_message_path: str = "/dev/termination-log"
    termination_message_file: Path | None = None
    """Host file behind `termination_message_path`; created empty by the runtime, read by the kubelet."""
    cpu_limit_millis: int | None = None
    memory_limit: int | None = None
    read_only_rootfs: bool = False
    privileged: bool = False
    allow_privilege_escalation: bool = True
    host_network: bool = False
    host_pid: bool = False
    share_process_namespace: bool = False
    target_container_id: str | None = None
    """Ephemeral containers: the container whose processes are seen."""
    visible_host_paths: tuple[Path, ...] = ()
    """Read-only exceptions from what is hidden of the host (a built-in image's interpreter and program)."""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a container or an exec'd command ended. `code` is 128 + `signal` when a signal ended it."""

    code: int
    signal: int
    finished_at: datetime
    oom: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """Use of one container: whole process tree, living processes and reaped children."""

    cpu_nanoseconds: int
    rss_bytes: int
    processes: int
    taken_at: datetime


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What isolation this machine allows, found by trying. `words` is one sentence for node condition and log."""

    mounts: bool
    """Volumes appear at their real paths, host files are read-only."""
    pids: bool
    users: bool
    """Containers run in their own user namespace (not when the kubelet is root: there real users are used)."""
    root: bool
    writable_rootfs: bool
    """An imported image's root filesystem is writable (overlay); else only its volumes and /tmp are."""
    words: str


class ByteSource(Protocol):
    """Output of a process. Cancelling `read` loses nothing."""

    async def read(self, n: int = 65536) -> bytes:
        """At most `n` bytes as soon as there are some; b"" at the end."""
        ...


class ByteSink(Protocol):
    """Input of a process, with back-pressure."""

    async def write(self, data: bytes) -> None:
        """Returns when the process's pipe took everything. Raises BrokenPipeError when it reads no more."""
        ...

    async def close(self) -> None:
        """End of input. On a terminal: the end-of-file character at the start of a line."""
        ...


class Process(Protocol):
    """Streams of one exec'd command. `stderr` is None with a tty, `stdin` is None if it was not asked for."""

    @property
    def stdin(self) -> ByteSink | None: ...

    @property
    def stdout(self) -> ByteSource: ...

    @property
    def stderr(self) -> ByteSource | None: ...

    def resize(self, width: int, height: int) -> None:
        """Of the terminal; without a tty nothing happens."""
        ...


class ExecProcess(Process, Protocol):
    """One command beside a container's main process. Own it with `async with`: leaving kills what still runs."""

    async def wait(self) -> ExitStatus:
        """When the command itself ends; its output may still have to be read."""
        ...

    async def kill(self) -> None:
        """SIGKILL to the command's session. Harmless when it is over."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class AttachSession(Process, Protocol):
    """A client at a container's standard streams. Lives until the process exits or the client leaves; the container
    outlives it. Reads raise AttachLagged when the client was detached for reading too slowly."""

    async def aclose(self) -> None:
        """Detach. Closes the container's stdin only under stdinOnce."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class LogFeed(Protocol):
    """Wakes those who follow a log. `version` grows with every write; `closed` once nothing will be written."""

    @property
    def version(self) -> int: ...

    @property
    def closed(self) -> bool: ...

    async def changed(self, version: int) -> None:
        """Returns as soon as the version is another than `version`, or the feed is closed."""
        ...


class Container(Protocol):
    """One start of one container. Lives until `remove`; its log file outlives it."""

    @property
    def id(self) -> str:
        """`miniplane://` and 64 hexadecimal digits."""
        ...

    @property
    def spec(self) -> ContainerSpec: ...

    @property
    def pid(self) -> int: ...

    @property
    def started_at(self) -> datetime: ...

    @property
    def exit_status(self) -> ExitStatus | None:
        """None while it runs."""
        ...

    @property
    def log_feed(self) -> LogFeed | None: ...

    async def wait(self) -> ExitStatus:
        """The process is over and all it wrote is in the log file. May be awaited by several, and again."""
        ...

    async def signal(self, number: int) -> None:
        """To the main process. Raises ContainerGone."""
        ...

    async def stop(self, grace_seconds: float) -> ExitStatus:
        """TERM to the main process, after the grace KILL to the whole tree. Harmless when it is over."""
        ...

    async def exec(self, argv: tuple[str, ...], *, tty: bool = False, stdin: bool = False) -> ExecProcess:
        """Run a command inside, with the container's environment and directory. Raises ContainerGone,
        ExecutableNotFound, StartFailure."""
        ...

    async def attach(self, *, stdin: bool = False) -> AttachSession:
        """Output from now on. The tty is the container's own. Raises ContainerGone."""
        ...

    def stats(self) -> Stats:
        """Raises ContainerGone."""
        ...

    async def remove(self) -> None:
        """Kill what runs and delete what the runtime keeps of it (not the log, not the volumes)."""
        ...


class Runtime(Protocol):
    """All containers of one node. Own it with `async with`: leaving kills every container."""

    def capabilities(self) -> Capabilities: ...

    async def create_sandbox(self, spec: SandboxSpec) -> Sandbox: ...

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        """Remove every container in it, then the sandbox. Harmless when it is gone."""
        ...

    async def start(self, spec: ContainerSpec, sandbox: Sandbox) -> Container:
        """Returns when the program runs. Raises ExecutableNotFound or StartFailure; nothing is left behind then."""
        ...

    def list_running(self) -> Sequence[Container]: ...

    def find(self, container_id: str) -> Container | None: ...

    def events(self) -> AsyncIterator[tuple[str, ExitStatus]]:
        """(container id, how it ended), for each container that ends from now on."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
