"""One runtime with one sandbox, and short words for what tests do with it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minikubelet.runtime.container import ProcessContainer
from minikubelet.runtime.interface import ContainerSpec, ExitStatus, PodRef, Sandbox, SandboxSpec
from minikubelet.runtime.process import ProcessRuntime

POD = PodRef("default", "p", "0f3c")


@dataclass
class Bench:
    """One runtime with one sandbox, and short words for what tests do with it."""

    runtime: ProcessRuntime
    sandbox: Sandbox
    directory: Path
    count: int = field(default=0)

    def spec(self, *argv: str, **more: Any) -> ContainerSpec:
        self.count += 1
        more.setdefault("log_path", self.directory / "logs" / f"{self.count}.log")
        return ContainerSpec(POD, "c", 0, argv, hostname="host-of-p", pod_ip="127.244.9.2", **more)

    async def start(self, *argv: str, **more: Any) -> ProcessContainer:
        return await self.runtime.start(self.spec(*argv, **more), self.sandbox)

    async def run(self, *argv: str, **more: Any) -> tuple[ExitStatus, str]:
        """Exit status, and the log without its prefixes."""
        container = await self.start(*argv, **more)
        status = await container.wait()
        path = container.spec.log_path
        assert path is not None
        text = "".join(line.split(" ", 3)[3] for line in path.read_text().splitlines(keepends=True))
        await container.remove()
        return status, text

    async def sh(self, script: str, **more: Any) -> tuple[ExitStatus, str]:
        return await self.run("sh", "-c", script, **more)


async def bench_at(directory: Path, **more: Any) -> AsyncIterator[Bench]:
    async with ProcessRuntime(directory / "runtime", **more) as runtime:
        sandbox = await runtime.create_sandbox(SandboxSpec(POD, "host-of-p", "127.244.9.2"))
        yield Bench(runtime, sandbox, directory)
        await runtime.remove_sandbox(sandbox)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """What other processes do can only be looked at again and again."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def read_all(source: Any) -> bytes:
    data = b""
    while chunk := await source.read():
        data += chunk
    return data


async def read_until(source: Any, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        try:
            chunk = await asyncio.wait_for(source.read(), 10)
        except TimeoutError:
            raise AssertionError(f"no {wanted!r} but {data!r}") from None
        assert chunk, f"ended before {wanted!r}: {data!r}"
        data += chunk
    return data
