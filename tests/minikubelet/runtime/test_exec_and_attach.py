"""exec and attach: streams, terminals, windows, slow readers, clients that leave."""

import asyncio
import hashlib
import os
import shutil

import pytest
from runtimebench import Bench, read_all, read_until

from minikubelet.runtime import container as container_module
from minikubelet.runtime import output
from minikubelet.runtime.interface import AttachLagged, ExecutableNotFound


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 137, 255])
async def test_exec_reports_the_commands_exit_code(bench: Bench, code: int) -> None:
    container = await bench.start("sleep", "60")
    async with await container.exec(("sh", "-c", f"echo out; echo err >&2; exit {code}")) as command:
        assert await read_all(command.stdout) == b"out\n"
        assert await read_all(command.stderr) == b"err\n"
        assert (await command.wait()).code == code
    await container.stop(1)


async def test_exec_is_in_the_container_of_its_user_and_environment(isolated: Bench) -> None:
    container = await isolated.start("sleep", "60", env=(("A", "1"),), run_as_user=1234, working_dir="/srv")
    async with await container.exec(("sh", "-c", "echo $A; id -u; pwd; hostname")) as command:
        assert (await read_all(command.stdout)).split() == [b"1", b"1234", b"/srv", b"host-of-p"]
    await container.stop(1)


async def test_stdin_of_exec_arrives_byte_exact_and_ends(bench: Bench) -> None:
    container = await bench.start("sleep", "60")
    data = os.urandom(3_000_000)
    async with await container.exec(("sha256sum",), stdin=True) as command:
        assert command.stdin is not None
        await command.stdin.write(data)
        await command.stdin.close()
        assert (await read_all(command.stdout)).split()[0].decode() == hashlib.sha256(data).hexdigest()
    await container.stop(1)


async def test_without_stdin_the_command_reads_end_of_file(bench: Bench) -> None:
    container = await bench.start("sleep", "60")
    async with await container.exec(("cat",)) as command:
        assert command.stdin is None
        assert (await asyncio.wait_for(command.wait(), 10)).code == 0
    await container.stop(1)


async def test_writing_to_a_command_that_ended_is_a_broken_pipe(bench: Bench) -> None:
    container = await bench.start("sleep", "60")
    async with await container.exec(("true",), stdin=True) as command:
        await command.wait()
        assert command.stdin is not None
        with pytest.raises(BrokenPipeError):
            await command.stdin.write(b"x" * 1_000_000)
    await container.stop(1)


async def test_much_output_waits_for_a_slow_reader(bench: Bench) -> None:
    container = await bench.start("sleep", "60")
    async with await container.exec(("head", "-c", "50000000", "/dev/zero")) as command:
        await asyncio.sleep(0.2)
        total = 0
        while chunk := await command.stdout.read():
            total += len(chunk)
        assert total == 50_000_000
    await container.stop(1)


async def test_missing_command_is_told_before_any_stream(bench: Bench) -> None:
    container = await bench.start("sleep", "60")
    with pytest.raises(ExecutableNotFound, match="not found in"):
        await container.exec(("no-such-program",))
    with pytest.raises(ExecutableNotFound, match="permission denied"):
        await container.exec(("/etc/passwd",))
    await container.stop(1)


async def test_leaving_exec_kills_the_command(bench: Bench) -> None:
    container = await bench.start("sleep", "60")
    async with await container.exec(("sh", "-c", "trap '' TERM HUP; sleep 60")) as command:
        pass
    assert (await command.wait()).code == 137
    assert container.exit_status is None
    await container.stop(1)


async def test_terminal_has_a_name_a_size_and_job_control(bench: Bench) -> None:
    container = await bench.start("sleep", "60")
    async with await container.exec(("sh",), tty=True, stdin=True) as shell:
        assert shell.stdin is not None and shell.stderr is None
        shell.resize(101, 41)
        await shell.stdin.write(b"tty; stty size; echo do''ne\n")
        seen = await read_until(shell.stdout, b"done")
        assert b"/dev/pts/" in seen and b"41 101" in seen
        assert b"job control" not in seen
        await shell.stdin.write(b"sleep 1000\n")
        await asyncio.sleep(0.2)
        await shell.stdin.write(b"\x03")
        await read_until(shell.stdout, b"^C")
        await asyncio.sleep(0.1)  # the interrupt throws away what was typed ahead
        await shell.stdin.write(b"echo still he''re\n")
        await read_until(shell.stdout, b"still here")
        await shell.stdin.write(b"exit 6\n")
        assert (await shell.wait()).code == 6
    await container.stop(1)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
async def test_jobs_can_be_stopped_and_continued_from_the_keyboard(bench: Bench) -> None:
    container = await bench.start("sleep", "60")
    async with await container.exec(("bash", "--norc", "-i"), tty=True, stdin=True) as shell:
        assert shell.stdin is not None
        await shell.stdin.write(b"PS1='rea''dy> '\n")
        await read_until(shell.stdout, b"ready> ")
        await shell.stdin.write(b"sed -u s/a/A/\n")
        await shell.stdin.write(b"alpha\n")
        await read_until(shell.stdout, b"Alpha")  # said by sed, not by the terminal's echo
        await shell.stdin.write(b"\x1a")
        await read_until(shell.stdout, b"Stopped")
        await shell.stdin.write(b"fg\n")
        await shell.stdin.write(b"again\n")
        await read_until(shell.stdout, b"Again")
        await shell.stdin.write(b"\x03")
        await read_until(shell.stdout, b"ready> ")  # the interrupt throws away what was typed ahead
        await shell.stdin.write(b"exit 5\n")
        assert (await asyncio.wait_for(shell.wait(), 10)).code == 5
    await container.stop(1)


async def test_end_of_input_on_a_terminal_ends_a_shell(bench: Bench) -> None:
    container = await bench.start("sleep", "60")
    async with await container.exec(("sh",), tty=True, stdin=True) as shell:
        assert shell.stdin is not None
        await read_until(shell.stdout, b"# " if os.geteuid() == 0 else b"$ ")
        await shell.stdin.close()
        assert (await asyncio.wait_for(shell.wait(), 10)).code == 0
    await container.stop(1)


async def test_interrupt_key_reaches_the_main_process_of_a_tty_container(bench: Bench) -> None:
    container = await bench.start(
        "sh", "-c", "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.05; done", tty=True, stdin=True
    )
    async with await container.attach(stdin=True) as client:
        assert client.stdin is not None
        await asyncio.sleep(0.3)
        await client.stdin.write(b"\x03")
        await read_until(client.stdout, b"caught")
    assert (await container.wait()).code == 3


async def test_output_goes_to_every_client_and_the_log(bench: Bench) -> None:
    container = await bench.start("sh", "-c", "read x; echo got $x; echo err >&2", stdin=True)
    async with await container.attach(stdin=True) as one, await container.attach() as two:
        assert one.stdin is not None and two.stdin is None
        await one.stdin.write(b"word\n")
        for client in (one, two):
            assert await read_all(client.stdout) == b"got word\n"
            assert await read_all(client.stderr) == b"err\n"
    await container.wait()
    assert "stdout F got word\n" in container.spec.log_path.read_text()


async def test_detaching_leaves_the_container_and_its_input(bench: Bench) -> None:
    container = await bench.start("cat", stdin=True)
    async with await container.attach(stdin=True):
        pass
    async with await container.attach(stdin=True) as again:
        assert again.stdin is not None
        await again.stdin.write(b"still\n")
        await read_until(again.stdout, b"still\n")
    assert container.exit_status is None
    await container.stop(1)


async def test_stdin_once_ends_the_input_with_the_first_client(bench: Bench) -> None:
    container = await bench.start("cat", stdin=True, stdin_once=True)
    async with await container.attach(stdin=True) as client:
        assert client.stdin is not None
        await client.stdin.write(b"all\n")
    assert (await asyncio.wait_for(container.wait(), 10)).code == 0


async def test_what_was_written_before_the_end_reaches_a_slow_client_and_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_module, "DRAIN_SECONDS", 0.05)
    script = "read x; head -c 1300000 /dev/zero | tr '\\0' 'x'; echo; echo end"
    container = await bench.start("sh", "-c", script, stdin=True)
    async with await container.attach(stdin=True) as slow:
        assert slow.stdin is not None
        await slow.stdin.write(b"\n")
        await asyncio.sleep(0.4)  # longer than the process takes, and than we would wait for nothing
        assert len(await read_all(slow.stdout)) == 1_300_000 + 5
    await container.wait()
    assert container.spec.log_path.read_text().endswith("stdout F end\n")


async def test_client_that_does_not_read_is_let_go_and_the_container_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LAG_SECONDS", 0.2)
    container = await bench.start(
        "sh", "-c", "read x; head -c 9000000 /dev/zero | tr '\\0' 'x'; echo; echo end", stdin=True
    )
    async with await container.attach(stdin=True) as slow, await container.attach() as good:
        assert slow.stdin is not None
        await slow.stdin.write(b"\n")
        assert (await read_all(good.stdout)).endswith(b"end\n")
        with pytest.raises(AttachLagged):
            await read_all(slow.stdout)
    assert (await container.wait()).code == 0
