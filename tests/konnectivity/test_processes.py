"""`python -m konnectivity.server` and `python -m konnectivity.agent` as a supervisor sees them."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.konnectivity.conftest import Certificates, connect, echo, target


async def start(module: str, *flags: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"konnectivity.{module}", *flags, stderr=asyncio.subprocess.PIPE
    )


async def logged(process: asyncio.subprocess.Process, event: str) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(10):
        while line := (await process.stderr.readline()).decode():
            if event in line:
                return line
    raise AssertionError(f"ended without {event}")


@pytest.mark.e2e
async def test_both_programs_start_carry_and_end_cleanly_on_sigterm(certificates: Certificates, tmp_path: Path) -> None:
    path = str(tmp_path / "front.sock")
    server = await start(
        "server", "--mode=http-connect", f"--uds-name={path}", "--server-port=0", "--agent-port=0",
        "--agent-bind-address=127.0.0.1", "--health-bind-address=127.0.0.1", "--health-port=0", "--admin-port=0",
        f"--cluster-cert={certificates.path('server.crt')}", f"--cluster-key={certificates.path('server.key')}",
        f"--cluster-ca-cert={certificates.path('ca.crt')}",
    )  # fmt: skip
    port = (await logged(server, "server.ready")).split("agents=")[1].strip()
    agent = await start(
        "agent", "--proxy-server-host=127.0.0.1", f"--proxy-server-port={port}", "--health-server-host=127.0.0.1",
        "--health-server-port=0", "--admin-server-port=0", f"--ca-cert={certificates.path('ca.crt')}",
        f"--agent-cert={certificates.path('client.crt')}", f"--agent-key={certificates.path('client.key')}",
    )  # fmt: skip
    await logged(agent, "link.up")
    async with target(echo) as target_port:
        client = await connect(path, f"127.0.0.1:{target_port}")
        client.writer.write(b"hello")
        assert await client.reader.readexactly(5) == b"hello"
        await client.aclose()
    agent.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(agent.wait(), 5) == 0
    server.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(server.wait(), 5) == 0
    assert not os.path.exists(path)  # noqa: ASYNC240


@pytest.mark.e2e
async def test_a_bad_configuration_is_one_line_and_exit_1() -> None:
    server = await start("server", "--mode=socks")
    _, errors = await server.communicate()
    assert server.returncode == 1
    assert errors.decode().strip() == "konnectivity: --mode must be grpc or http-connect, not 'socks'"
