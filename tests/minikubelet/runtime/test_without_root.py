"""The same claims for an ordinary user. As root we become one, with the system's interpreter (ours may be in /root);
otherwise the other tests have shown it already."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534
PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from minikubelet.runtime.interface import ContainerSpec, Mount, PodRef, SandboxSpec
from minikubelet.runtime.process import ProcessRuntime

async def main(base):
    pod = PodRef("d", "p", "u")
    volume = base / "volume"
    volume.mkdir()
    (volume / "file").write_text("content")
    async with ProcessRuntime(base / "runtime") as runtime:
        claims = runtime.capabilities()
        print("claims", claims.mounts, claims.pids, claims.users, claims.root)
        sandbox = await runtime.create_sandbox(SandboxSpec(pod, "pod", ""))
        mounts = (Mount(volume, "/data"), Mount(volume, "/var/run/secrets/kubernetes.io/serviceaccount", True))
        async def sh(script, **more):
            log = base / "log"
            spec = ContainerSpec(pod, "c", 0, ("sh", "-c", script), mounts=mounts, log_path=log, **more)
            container = await runtime.start(spec, sandbox)
            code = (await container.wait()).code
            print(code, *[line.split(" ", 3)[3] for line in log.read_text().splitlines()], sep="|")
            log.unlink()
            await container.remove()
        await sh("id -u; cat /data/file; echo; cat /run/secrets/kubernetes.io/serviceaccount/file; echo; hostname")
        await sh("id -u; id -g; grep CapEff /proc/self/status | cut -f2", run_as_user=4321, run_as_group=77)
        await sh("touch /usr/x 2>/dev/null || echo refused; mount -t tmpfs none /mnt 2>/dev/null || echo refused")
        await sh("ls -d /proc/%d 2>/dev/null || echo hidden" % os.getpid())
        container = await runtime.start(ContainerSpec(pod, "c", 0, ("sleep", "60"), mounts=mounts), sandbox)
        async with await container.exec(("sh", "-c", "cat /data/file; tty; exit 7"), tty=True) as command:
            output = b""
            while chunk := await command.stdout.read():
                output += chunk
            print((await command.wait()).code, output.decode().split(), sep="|")
        print((await container.stop(5)).code)
        shared = await runtime.create_sandbox(SandboxSpec(pod, "pod", "", share_process_namespace=True))
        first = await runtime.start(ContainerSpec(pod, "a", 0, ("sleep", "61"), run_as_user=5), shared)
        spec = ContainerSpec(pod, "b", 0, ("sleep", "62"), mounts=mounts)
        second = await runtime.start(spec, shared)
        async with await second.exec(("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\\\0' ' '; id -u")) as command:
            output = await command.stdout.read()
            print(b"sleep 61" in output, b"sleep 62" in output)
        async with await first.exec(("id", "-u")) as command:
            print(int(await command.stdout.read()))
        print((await first.stop(5)).code, (await second.stop(5)).code)
        await runtime.remove_sandbox(shared)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_an_ordinary_user_gets_the_same_isolation() -> None:
    setpriv, python = shutil.which("setpriv"), "/usr/bin/python3"
    if os.geteuid() != 0 or setpriv is None or not os.access(python, os.X_OK):
        pytest.skip("not root, or no way to become someone else")
    if subprocess.run([python, "-c", f"import sys; sys.exit(sys.version_info < {sys.version_info[:2]})"]).returncode:
        pytest.skip("the system's interpreter is too old")
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, NOBODY, NOBODY)
        become = [setpriv, "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/none", "PATH": os.defpath}
        ran = subprocess.run(
            [*become, python, "-W", "error", "-c", PROGRAM, name],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
        )
    assert not ran.stderr, ran.stderr
    assert ran.stdout.splitlines() == [
        "claims True True True False",
        "0|0|content|content|localhost",
        "0|4321|77|0000000000000000",
        "0|refused|refused",
        "0|hidden",
        "7|['content/dev/pts/0']",
        "143",
        "True True",
        "5",
        "143 143",
    ]
