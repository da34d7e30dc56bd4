"""Containers begin and end as the interface promises, with and without namespaces."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from runtimebench import Bench, until

from minikubelet.runtime.interface import ContainerGone, ExecutableNotFound, StartFailure

NOT_FOUND = r'exec: "no-such-program": executable file not found in \$PATH'


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 137, 255])
async def test_exit_code_is_the_programs(bench: Bench, code: int) -> None:
    status, _ = await bench.sh(f"exit {code}")
    assert (status.code, status.signal) == (code, 0)


async def test_death_by_signal_is_128_plus_its_number(bench: Bench) -> None:
    status, _ = await bench.sh("kill -SEGV $$; sleep 5")
    assert (status.code, status.signal) == (139, 11)


async def test_missing_program_is_an_error_of_its_own_and_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(
        ExecutableNotFound, match='exec: "no-such-program": executable file not found in \\$PATH'
    ) as info:
        await bench.start("no-such-program")
    assert info.value.exit_code == 127
    assert bench.runtime.list_running() == []
    assert os.listdir(bench.directory / "runtime" / "containers") == []


async def test_program_that_may_not_be_executed_is_126(bench: Bench) -> None:
    with pytest.raises(ExecutableNotFound, match="permission denied") as info:
        await bench.start("/etc/passwd")
    assert info.value.exit_code == 126


async def test_working_directory_that_is_a_file_is_a_start_failure(isolated: Bench) -> None:
    with pytest.raises(StartFailure, match="chdir"):
        await isolated.start("true", working_dir="/etc/passwd")


async def test_missing_working_directory_is_made(isolated: Bench) -> None:
    _, text = await isolated.sh("pwd", working_dir="/srv/app/deep")
    assert text == "/srv/app/deep\n"


async def test_environment_is_the_specs_and_what_engines_add(bench: Bench) -> None:
    _, text = await bench.run("env", env=(("A", "1"), ("HOME", "/tmp")))
    lines = set(text.splitlines())
    assert {"A=1", "HOME=/tmp", "HOSTNAME=host-of-p"} <= lines
    assert any(line.startswith("PATH=/usr/local/sbin") for line in lines)
    assert len([line for line in lines if not line.startswith(("PWD=", "SHLVL=", "_="))]) == 4, lines


async def test_stop_lets_the_program_end_itself(bench: Bench) -> None:
    container = await bench.start("sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done")
    await _logged(container.spec.log_path, "up")
    status = await container.stop(5)
    assert status.code == 3
    assert "bye" in container.spec.log_path.read_text()


async def test_stop_ends_a_program_that_knows_nothing_of_signals_at_once(bench: Bench) -> None:
    container = await bench.start("sleep", "100")
    started = time.monotonic()
    status = await container.stop(30)
    assert (status.code, status.signal) == (143, 15)
    assert time.monotonic() - started < 5


async def test_after_the_grace_the_whole_tree_is_killed(bench: Bench) -> None:
    stubborn = "trap '' TERM; exec sleep 1234567"
    script = f"trap '' TERM; ({stubborn}) & setsid sh -c \"{stubborn}\" & echo up; wait; wait; sleep 100"
    container = await bench.start("sh", "-c", script)
    await _logged(container.spec.log_path, "up")
    status = await container.stop(0.1)
    assert (status.code, status.signal) == (137, 9)
    assert _processes("1234567") == []


async def test_what_the_main_process_leaves_behind_ends_with_it(bench: Bench) -> None:
    status, _ = await bench.sh("setsid sleep 7654321 & sleep 7654321 & exit 4")
    assert status.code == 4
    assert _processes("7654321") == []


async def test_signal_reaches_the_main_process_only_while_it_runs(bench: Bench) -> None:
    container = await bench.start("sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done")
    await _logged(container.spec.log_path, "up")
    await container.signal(signal.SIGUSR1)
    assert (await container.wait()).code == 9
    with pytest.raises(ContainerGone):
        await container.signal(signal.SIGUSR1)
    with pytest.raises(ContainerGone):
        await container.exec(("true",))


async def test_output_is_in_the_log_when_wait_returns(bench: Bench) -> None:
    status, text = await bench.sh("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done")
    assert status.code == 0
    assert text.splitlines() == [f"line {number}" for number in range(2000)]


async def test_events_tell_every_end(bench: Bench) -> None:
    events = bench.runtime.events()
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    container = await bench.start("sh", "-c", "exit 5")
    identity, status = await asyncio.wait_for(first, 10)
    assert (identity, status.code) == (container.id, 5)
    assert container.id.startswith("miniplane://") and len(container.id) == 12 + 64
    await events.aclose()


async def test_memory_above_the_limit_is_an_oom_kill(bench: Bench) -> None:
    script = "x=$(head -c 60000000 /dev/zero | tr '\\0' 'x'); sleep 30"
    container = await bench.start("sh", "-c", script, memory_limit=30 << 20)
    status = await asyncio.wait_for(container.wait(), 20)
    assert (status.code, status.oom) == (137, True)


async def test_memory_below_the_limit_is_no_reason(bench: Bench) -> None:
    container = await bench.start("sleep", "1.3", memory_limit=30 << 20)
    status = await container.wait()
    assert (status.code, status.oom) == (0, False)


async def test_stats_count_the_tree(bench: Bench) -> None:
    container = await bench.start(
        "sh", "-c", "sleep 50 & i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo up; wait"
    )
    await _logged(container.spec.log_path, "up")
    stats = container.stats()
    assert stats.processes == 2
    assert stats.rss_bytes > 500_000
    assert stats.cpu_nanoseconds > 0
    await container.stop(1)


async def test_termination_message_file_is_at_its_path(isolated: Bench) -> None:
    message = isolated.directory / "message"
    await isolated.sh("echo because > /dev/termination-log", termination_message_file=message)
    assert message.read_text() == "because\n"


async def _logged(path: Path | None, wanted: str) -> None:
    assert path is not None
    await until(lambda: path.exists() and wanted in path.read_text())


def _processes(argument: str) -> list[str]:
    """Who still runs with `argument`. A killed process is a zombie for a moment, without a command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument.encode() in entry.read_bytes().split(b"\0"):
                found.append(str(entry))
        except OSError:
            continue
    return found
