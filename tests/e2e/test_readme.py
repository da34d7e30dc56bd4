"""The README's session works word for word."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from miniplane.testing import TestCluster

pytestmark = pytest.mark.e2e

README = Path(__file__).parent.parent.parent / "README.md"
#: Starting and ending the cluster is what the fixture does; the rest is typed as it stands.
OURS = ("make ", "export KUBECONFIG")


def session() -> list[str]:
    """The commands of the block that uses the cluster."""
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
    block = next(text for text in blocks if "kubectl run ticker" in text)
    lines = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    return [line for line in lines if not line.startswith(OURS)]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="the session is kubectl's")
def test_every_command_of_the_session_succeeds_and_says_what_it_should(
    miniplane_cluster_per_test: TestCluster, tmp_path: Path
) -> None:
    script = "set -m\n" + "\n".join(session())
    environment = miniplane_cluster_per_test.environment | {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        ["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    ) as shell:  # fmt: skip
        try:
            out, err = shell.communicate(timeout=120)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
    assert "rror" not in err, err
    assert re.search(r"node-1\s+Ready", out)
    assert re.search(r"tick \d+", out)
    assert '"path": "/hello"' in out
    assert "in a pod: shell" in out and "exit code 3" in out
