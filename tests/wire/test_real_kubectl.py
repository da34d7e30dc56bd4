"""Every real kubectl on this machine against our server halves: exec, attach, port-forward, SPDY and WebSocket."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pexpect
import pytest
import yaml
from stub_kubelet import echo_server, handle
from wire_certificates import Certificates

from wire.http import HTTPServer
from wire.tls import server_context

pytestmark = pytest.mark.e2e


def kubectls() -> list[str]:
    """Every `kubectl` and `kubectl.<version>` beside the one in PATH."""
    found = shutil.which("kubectl")
    if found is None:
        return []
    folder = Path(found).resolve().parent
    versions = sorted(str(path) for path in folder.glob("kubectl.1.*"))
    return versions or [found]


SPDY_ONLY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
WEBSOCKET = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "true", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "true"}
CASES = [
    pytest.param(path, env, id=f"{Path(path).name}-{name}")
    for path in kubectls()
    for name, env in (("spdy", SPDY_ONLY), ("websocket", WEBSOCKET))
]
EACH_KUBECTL = pytest.mark.parametrize(("kubectl", "transport"), CASES)


@contextlib.asynccontextmanager
async def cluster(tmp_path: Path, certificates: Certificates) -> AsyncIterator[list[str]]:
    """kubectl's arguments for a running stub over TLS."""
    async with HTTPServer(handle) as server:
        context = server_context(certificates.cert, certificates.key, [certificates.ca])
        port = await server.listen(ssl_context=context)
        config = tmp_path / "config"
        entry = {"server": f"https://127.0.0.1:{port}", "certificate-authority": certificates.ca}
        user = {"client-certificate": certificates.client_cert, "client-key": certificates.client_key}
        config.write_text(
            yaml.safe_dump(
                {
                    "kind": "Config",
                    "apiVersion": "v1",
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                    "clusters": [{"name": "k", "cluster": entry}],
                    "users": [{"name": "u", "user": user}],
                }
            )
        )
        yield ["--kubeconfig", str(config), "--cache-dir", str(tmp_path / "cache")]


async def run(argv: list[str], env: dict[str, str], stdin: bytes | None = None) -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | env,
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate(stdin)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode is not None
    return process.returncode, out, err


@EACH_KUBECTL
async def test_exec_delivers_both_outputs_and_the_exit_code(
    kubectl: str, transport: dict[str, str], tmp_path: Path, certificates: Certificates
) -> None:
    async with cluster(tmp_path, certificates) as flags:
        script = "echo out; echo err >&2; exit 7"
        code, out, err = await run([kubectl, *flags, "exec", "p", "-c", "c", "--", "sh", "-c", script], transport)
        assert (code, out) == (7, b"out\n")
        assert b"err\n" in err
        assert b"command terminated with exit code 7" in err
        code, out, err = await run([kubectl, *flags, "exec", "p", "--", "true"], transport)
        assert (code, out) == (0, b"")


@EACH_KUBECTL
async def test_exec_pipes_stdin_through_and_closes_it(
    kubectl: str, transport: dict[str, str], tmp_path: Path, certificates: Certificates
) -> None:
    payload = os.urandom(2_000_000)
    async with cluster(tmp_path, certificates) as flags:
        code, out, err = await run([kubectl, *flags, "exec", "-i", "p", "--", "cat"], transport, payload)
        assert (code, err) == (0, b"")
        assert out == payload


@EACH_KUBECTL
async def test_attach_ends_well(
    kubectl: str, transport: dict[str, str], tmp_path: Path, certificates: Certificates
) -> None:
    async with cluster(tmp_path, certificates) as flags:
        code, out, _ = await run([kubectl, *flags, "attach", "-i", "p"], transport, b"hello\n")
        assert (code, out) == (0, b"hello\n")


@EACH_KUBECTL
async def test_session_that_breaks_is_reported_as_a_failure(
    kubectl: str, transport: dict[str, str], tmp_path: Path, certificates: Certificates
) -> None:
    async with cluster(tmp_path, certificates) as flags:
        code, _, err = await run([kubectl, *flags, "exec", "p", "--", "--crash"], transport)
        assert code == 1
        assert b"container is gone" in err


@EACH_KUBECTL
async def test_terminal_has_the_clients_size_and_follows_it(
    kubectl: str, transport: dict[str, str], tmp_path: Path, certificates: Certificates
) -> None:
    async with cluster(tmp_path, certificates) as flags:
        argv = [*flags, "exec", "-it", "p", "--", "bash", "--norc"]

        def drive() -> tuple[str, int | None]:
            env = os.environ | transport | {"PS1": "> "}
            child = pexpect.spawn(kubectl, argv, env=env, dimensions=(40, 120), timeout=15, encoding="utf-8")
            child.sendline("echo ready")
            child.expect("ready\r\n.*ready")
            child.sendline("for i in 1 2 3 4 5 6 7 8 9; do stty size; sleep 0.2; done; echo done")
            child.expect("40 120\r\n")
            child.setwinsize(50, 100)
            child.expect("50 100\r\n")
            child.expect("done\r\n")
            child.sendline("exit 5")
            child.expect(pexpect.EOF)
            child.close()
            return str(child.before), child.exitstatus

        _, code = await asyncio.to_thread(drive)
        assert code == 5


@contextlib.asynccontextmanager
async def forwarding(argv: list[str], env: dict[str, str]) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """A running `kubectl port-forward` and its local port."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe, env=os.environ | env)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(15):
            line = (await process.stdout.readline()).decode()
        assert "Forwarding from 127.0.0.1:" in line, line
        yield int(line.split("127.0.0.1:")[1].split()[0]), process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        await process.communicate()


@EACH_KUBECTL
async def test_port_forward_carries_many_connections_at_once(
    kubectl: str, transport: dict[str, str], tmp_path: Path, certificates: Certificates
) -> None:
    async def talk(port: int, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        payload = bytes([number]) * 300_000
        writer.write(payload)
        writer.write_eof()
        assert await reader.read(-1) == payload
        writer.close()

    async with cluster(tmp_path, certificates) as flags, echo_server() as pod_port:
        argv = [kubectl, *flags, "port-forward", "--address", "127.0.0.1", "pod/p", f":{pod_port}"]
        async with forwarding(argv, transport) as (port, process), asyncio.timeout(20):
            for _ in range(2):
                async with asyncio.TaskGroup() as group:
                    for number in range(20):
                        group.create_task(talk(port, number))
            assert process.returncode is None


@EACH_KUBECTL
async def test_port_forward_to_a_refused_port_says_why(
    kubectl: str, transport: dict[str, str], tmp_path: Path, certificates: Certificates
) -> None:
    async with cluster(tmp_path, certificates) as flags:
        argv = [kubectl, *flags, "port-forward", "--address", "127.0.0.1", "pod/p", ":1"]
        async with forwarding(argv, transport) as (port, process), asyncio.timeout(15):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
            assert process.stderr is not None
            text = await process.stderr.read()
            assert b"error forwarding port 1 to pod p, uid u: dial tcp 127.0.0.1:1: connect: connection refused" in text
            assert await process.wait() == 1


def test_there_is_a_kubectl_to_test_with() -> None:
    assert kubectls(), "no kubectl in PATH: these tests need at least one"
