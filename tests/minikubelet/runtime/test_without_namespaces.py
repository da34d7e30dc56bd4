"""Where the machine allows no namespace at all: found by trying, said in words, and containers still run. The machine
is played by bubblewrap: user 0 without any capability, and no user namespaces beneath."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import asyncio, sys
from pathlib import Path
from minikubelet.runtime.interface import ContainerSpec, PodRef, SandboxSpec
from minikubelet.runtime.process import ProcessRuntime

async def main(base):
    pod = PodRef("d", "p", "u")
    async with ProcessRuntime(base / "runtime") as runtime:
        claims = runtime.capabilities()
        print(claims.mounts, claims.pids, claims.users, claims.writable_rootfs)
        print(claims.words)
        sandbox = await runtime.create_sandbox(SandboxSpec(pod, "pod", ""))
        log = base / "log"
        argv = ("sh", "-c", "echo runs; exit 3")
        spec = ContainerSpec(pod, "c", 0, argv, log_path=log, run_as_user=1000, working_dir="/not/there")
        container = await runtime.start(spec, sandbox)
        print((await container.wait()).code, log.read_text().split(" ", 3)[3], end="")

asyncio.run(main(Path(sys.argv[1])))
"""


def test_without_namespaces_containers_run_and_the_lack_is_told(tmp_path: Path) -> None:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.skip("no bubblewrap")
    confine = [
        bwrap,
        "--dev-bind",
        "/",
        "/",
        "--unshare-user",
        "--disable-userns",
        "--cap-drop",
        "ALL",
        "--die-with-parent",
    ]
    if subprocess.run([*confine, "true"], capture_output=True).returncode:
        pytest.skip("bubblewrap cannot confine here")
    ran = subprocess.run(
        [*confine, sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path)],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert not ran.stderr, ran.stderr
    claims, words, ended = ran.stdout.splitlines()
    assert claims == "False False False False"
    assert words.startswith("no isolation: this machine allows no namespaces (unshare")
    assert ended == "3 runs"
