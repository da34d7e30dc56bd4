"""Nothing is left: descriptors, processes, directories; whoever dies first."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import uvloop
from runtimebench import POD, Bench, bench_at, read_all, until

from minikubelet.runtime.interface import ContainerSpec, SandboxSpec, StartFailure
from minikubelet.runtime.process import ProcessRuntime

CHATTER = "yes 'a line of output that is about sixty bytes long, more or less' | head -c 100000000"
ROOT = Path(__file__).resolve().parents[3]


def descriptors(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def test_containers_and_commands_give_back_everything(bench: Bench) -> None:
    async def round_trip() -> None:
        container = await bench.start("sleep", "60", stdin=True)
        async with await container.exec(("sh", "-c", "echo x"), stdin=True) as command:
            await read_all(command.stdout)
        async with await container.exec(("true",), tty=True) as command:
            await command.wait()
        async with await container.attach(stdin=True):
            pass
        await container.stop(1)
        await container.remove()
        with pytest.raises(StartFailure):
            await bench.start("no-such-program")

    await round_trip()
    launcher = bench.runtime.launcher_pid
    before = (descriptors(), descriptors(launcher), len(asyncio.all_tasks()))
    for _ in range(5):
        await round_trip()
    await asyncio.sleep(0.1)
    assert (descriptors(), descriptors(launcher), len(asyncio.all_tasks())) == before
    assert children(launcher) == []
    assert os.listdir(bench.directory / "runtime" / "containers") == []


async def test_many_starts_at_once_are_each_complete(bench: Bench) -> None:
    # The fork and the start are told by two processes; under load the second was heard first.
    containers = await asyncio.gather(*(bench.start("sleep", "60") for _ in range(12)))
    assert all(container.pid > 0 for container in containers)
    commands = await asyncio.gather(*(container.exec(("sh", "-c", "exit 3")) for container in containers * 3))
    assert {(await command.wait()).code for command in commands} == {3}
    for command in commands:
        await command.__aexit__(None, None, None)
    stopped = await asyncio.gather(*(container.stop(5) for container in containers))
    assert {status.code for status in stopped} == {143}


async def test_cancelled_start_leaves_nothing(bench: Bench) -> None:
    launcher = bench.runtime.launcher_pid
    before = descriptors()
    for delay in (0, *(step / 2000 for step in range(24))):
        start = asyncio.create_task(bench.start("sleep", "60"))
        await asyncio.sleep(delay)
        start.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await start
    for container in bench.runtime.list_running():
        await container.remove()
    await until(lambda: not children(launcher))
    assert descriptors() == before


async def test_leaving_the_runtime_ends_every_container(tmp_path: Path) -> None:
    before = descriptors()
    async for bench in bench_at(tmp_path):
        running = [await bench.start("sleep", "60") for _ in range(3)]
        await running[0].attach()
        command = await running[0].exec(("sleep", "60"))
        pids = [container.pid for container in running] + [command.pid]
    command.close()
    await until(lambda: not any(map(_lives, pids)))
    assert descriptors() <= before


@pytest.mark.parametrize("level", ["None", "plain(is_root=os.geteuid() == 0)"])
async def test_containers_end_with_a_killed_kubelet(tmp_path: Path, level: str) -> None:
    program = textwrap.dedent(f"""
        import asyncio, os, sys
        from pathlib import Path
        from minikubelet.runtime.interface import *
        from minikubelet.runtime.isolation import plain
        from minikubelet.runtime.process import ProcessRuntime
        async def main():
            pod = PodRef("d", "p", "u")
            async with ProcessRuntime(Path(sys.argv[1]), level={level}) as runtime:
                sandbox = await runtime.create_sandbox(SandboxSpec(pod, "h", ""))
                container = await runtime.start(ContainerSpec(pod, "c", 0, ("sleep", "600")), sandbox)
                print(container.pid, runtime.launcher_pid, flush=True)
                await container.wait()
        asyncio.run(main())
    """)
    pids = _start_and_kill([sys.executable, "-c", program, str(tmp_path / "r")])
    await until(lambda: not any(map(_lives, pids)))


async def test_killed_launcher_is_replaced_and_its_containers_are_reported_dead(bench: Bench) -> None:
    container = await bench.start("sleep", "60")
    os.kill(bench.runtime.launcher_pid, signal.SIGKILL)
    status = await asyncio.wait_for(container.wait(), 10)
    assert (status.code, status.signal) == (137, 9)
    status, text = await bench.sh("echo again")
    assert (status.code, text) == (0, "again\n")


async def test_left_over_directories_of_a_killed_kubelet_are_cleared(tmp_path: Path) -> None:
    left = tmp_path / "runtime" / "containers" / "dead" / "work" / "work"
    left.mkdir(parents=True)
    left.chmod(0)
    async for bench in bench_at(tmp_path):
        assert not left.exists() and bench.runtime.list_running() == []


def test_runtime_works_on_uvloop(tmp_path: Path) -> None:
    async def body() -> tuple[int, bytes]:
        async with ProcessRuntime(tmp_path / "r") as runtime:
            sandbox = await runtime.create_sandbox(SandboxSpec(POD, "h", ""))
            container = await runtime.start(ContainerSpec(POD, "c", 0, ("cat",), stdin=True), sandbox)
            async with await container.attach(stdin=True) as client:
                assert client.stdin is not None
                await client.stdin.write(b"ping")
                echoed = await client.stdout.read()
            async with await container.exec(("sh", "-c", "exit 4"), tty=True) as command:
                code = (await command.wait()).code
            await container.stop(1)
            return code, echoed

    assert uvloop.run(body()) == (4, b"ping")


async def test_chatty_container_is_logged_quickly_within_its_bounds(tmp_path: Path) -> None:
    async for bench in bench_at(tmp_path, log_max_bytes=1 << 20, log_max_files=3):
        started = time.monotonic()
        container = await bench.start(
            "sh", "-c", "yes 'a line of output that is about sixty bytes long, more or less' | head -c 100000000"
        )
        await container.wait()
        seconds = time.monotonic() - started
        await until(lambda: len(list((tmp_path / "logs").iterdir())) <= 3)
        assert seconds < 10, f"{100 / seconds:.0f} MB/s"  # a loaded machine; 100 MB/s and more alone


def _start_and_kill(arguments: list[str]) -> list[int]:
    """A kubelet that is killed as soon as its container runs: pids of init, launcher and main process."""
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as kubelet:
        assert kubelet.stdout is not None
        init, launcher = map(int, kubelet.stdout.readline().split())
        (main,) = map(int, children(init))
        kubelet.kill()
    return [init, launcher, main]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
