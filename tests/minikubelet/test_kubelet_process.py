"""`python -m minikubelet` as a process: how it ends."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import pytest
from kubeletfakes import eventually
from kubeletstub import StubAPI


def command_lines() -> list[bytes]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes())
    return lines


async def start(*flags: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "minikubelet", *flags, stderr=asyncio.subprocess.PIPE)


def flags(folder: Path, *more: str) -> list[str]:
    return [f"--kubeconfig={folder / 'kubeconfig'}", f"--root-dir={folder / 'root'}", "--hostname-override=node-1",
            "--node-ip=127.0.95.1", "--address=127.0.95.1", "--port=0", "--healthz-port=0", *more]


@pytest.mark.parametrize(("more", "words"), [
    ([], "no such kubeconfig"),
    (["--config=/nonexistent.yaml"], "kubelet config file /nonexistent.yaml: No such file or directory"),
    (["--pod-cidr=300.0.0.0/8"], "--pod-cidr: "),
])
async def test_what_cannot_be_used_is_one_line_and_exit_code_one(tmp_path: Path, more: list[str], words: str) -> None:
    process = await start(*flags(tmp_path, *more))
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().startswith("minikubelet: ") and words in said.decode()
    assert said.count(b"\n") == 1


async def test_a_certificate_that_is_not_there_is_one_line_too(tmp_path: Path) -> None:
    async with StubAPI() as api:
        (tmp_path / "kubeconfig").write_text(api.kubeconfig())
        process = await start(*flags(tmp_path, "--tls-cert-file=/none.crt", "--tls-private-key-file=/none.key"))
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().splitlines()[-1] == "minikubelet: --tls-cert-file: /none.crt: no such file"
    assert "Traceback" not in said.decode()


async def test_sigterm_ends_containers_and_the_process_with_exit_code_zero(tmp_path: Path) -> None:
    async with StubAPI() as api:
        (tmp_path / "kubeconfig").write_text(api.kubeconfig())
        process = await start(*flags(tmp_path))
        await eventually(lambda: api.get("/api/v1/nodes", "node-1"))
        api.put_pod({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default", "uid": "u"},
                     "status": {}, "spec": {"nodeName": "node-1", "containers": [
                         {"name": "c", "image": "x", "command": ["sh", "-c", "sleep 987654"]}]}})
        await eventually(lambda: api.pod("p")["status"].get("phase") == "Running")
        process.send_signal(signal.SIGTERM)
        _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert "Traceback" not in said.decode()
    assert not any(b"987654" in line for line in await asyncio.to_thread(command_lines))
