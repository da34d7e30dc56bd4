"""A clock that is wound by hand, and a runtime whose processes do as the test says."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from minikubelet.clock import Clock
from minikubelet.runtime.interface import (
    Capabilities,
    ContainerGone,
    ContainerSpec,
    ExitStatus,
    Mount,
    Sandbox,
    SandboxSpec,
    StartFailure,
    Stats,
)

JSON = dict[str, Any]
START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock(Clock):
    def __init__(self) -> None:
        self.passed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return 1000.0 + self.passed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.passed + seconds, waiting))
        await waiting

    async def advance(self, seconds: float) -> None:
        """Let time pass, waking sleepers in their order."""
        end = self.passed + seconds
        await settle()
        while True:
            due = [item for item in self._sleepers if item[0] <= end]
            if not due:
                break
            first = min(due, key=lambda item: item[0])
            self._sleepers.remove(first)
            self.passed = max(self.passed, first[0])
            if not first[1].done():
                first[1].set_result(None)
            await settle()
        self.passed = end
        await settle()


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait for real I/O; the value once it is true."""
    for _ in range(600):
        try:
            if value := condition():
                return value
        except (KeyError, IndexError, TypeError):
            pass
        await asyncio.sleep(0.005)
    raise AssertionError(f"never happened: {what or condition}")


class FakeOutput:
    def __init__(self, data: bytes) -> None:
        self._pieces = [data] if data else []

    async def read(self, n: int = 65536) -> bytes:
        return self._pieces.pop() if self._pieces else b""


class FakeExec:
    def __init__(self, code: int, output: bytes) -> None:
        self.stdin = None
        self.stdout = FakeOutput(output)
        self.stderr = None
        self._code = code

    def resize(self, width: int, height: int) -> None:
        return None

    async def wait(self) -> ExitStatus:
        return ExitStatus(self._code, 0, START)

    async def kill(self) -> None:
        return None

    async def __aenter__(self) -> "FakeExec":
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


class FakeFeed:
    version = 0
    closed = True

    async def changed(self, version: int) -> None:
        return None


class FakeContainer:
    def __init__(self, runtime: "FakeRuntime", spec: ContainerSpec) -> None:
        self.id = f"miniplane://{secrets.token_hex(32)}"
        self.spec = spec
        self.pid = 1
        self.started_at = runtime.clock.now()
        self.exit_status: ExitStatus | None = None
        self.log_feed = FakeFeed()
        self.stops: list[float] = []
        self.execs: list[tuple[str, ...]] = []
        self.ignores_term = False
        self._runtime = runtime
        self._over = asyncio.Event()

    async def wait(self) -> ExitStatus:
        await self._over.wait()
        assert self.exit_status is not None
        return self.exit_status

    def end(self, code: int, signal: int = 0, *, oom: bool = False) -> None:
        if self.exit_status is None:
            self.exit_status = ExitStatus(code, signal, self._runtime.clock.now(), oom)
            self._over.set()

    async def signal(self, number: int) -> None:
        self.end(128 + number, number)

    async def stop(self, grace_seconds: float) -> ExitStatus:
        self.stops.append(grace_seconds)
        if self.ignores_term:
            await self._runtime.clock.sleep(grace_seconds)
            self.end(137, 9)
        self.end(143, 15)
        return await self.wait()

    async def exec(self, argv: tuple[str, ...], *, tty: bool = False, stdin: bool = False) -> FakeExec:
        if self.exit_status is not None:
            raise ContainerGone("not running")
        self.execs.append(argv)
        return self._runtime.on_exec(argv)

    async def attach(self, *, stdin: bool = False) -> Any:
        raise ContainerGone("no attach here")

    def stats(self) -> Stats:
        return Stats(1_500_000_000, 2048, 3, self._runtime.clock.now())

    async def remove(self) -> None:
        self.end(137, 9)
        self._runtime.removed.append(self.spec.name)


class FakeRuntime:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.started: list[FakeContainer] = []
        self.sandboxes: list[Sandbox] = []
        self.removed: list[str] = []
        self.failures: list[str] = []
        self.on_exec: Callable[[tuple[str, ...]], FakeExec] = lambda argv: FakeExec(0, b"")

    def capabilities(self) -> Capabilities:
        return Capabilities(True, True, True, False, True, "all of it")

    async def create_sandbox(self, spec: SandboxSpec) -> Sandbox:
        sandbox = Sandbox(f"s{len(self.sandboxes)}", spec, self.clock.now())
        self.sandboxes.append(sandbox)
        return sandbox

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        self.sandboxes.remove(sandbox)

    async def start(self, spec: ContainerSpec, sandbox: Sandbox) -> FakeContainer:
        if self.failures:
            raise StartFailure(self.failures.pop(0))
        container = FakeContainer(self, spec)
        self.started.append(container)
        return container

    def named(self, name: str) -> list[FakeContainer]:
        return [container for container in self.started if container.spec.name == name]

    def list_running(self) -> list[Any]:
        return [container for container in self.started if container.exit_status is None]

    def find(self, container_id: str) -> Any:
        return next((container for container in self.started if container.id == container_id), None)

    async def events(self) -> AsyncIterator[tuple[str, ExitStatus]]:
        return
        yield  # an iterator without items

    async def __aenter__(self) -> "FakeRuntime":
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


class FakeVolumes:
    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.refreshed = 0
        self.torn_down = 0

    async def set_up(self, pod: JSON) -> None:
        if self.failures:
            raise self.failures.pop(0)

    async def refresh(self, pod: JSON) -> None:
        self.refreshed += 1

    def mounts(self, container: JSON, environment: Any) -> tuple[Mount, ...]:
        wanted = container.get("volumeMounts") or ()
        return tuple(Mount(Path("/v") / item["name"], item["mountPath"]) for item in wanted)

    async def tear_down(self) -> None:
        self.torn_down += 1
