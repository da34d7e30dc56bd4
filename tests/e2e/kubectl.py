"""Real kubectls, driven as a person would.

Every version found on the machine takes part: `kubectl.1.NN` beside the one in PATH, the one in PATH itself, and
those unpacked below `build/kubectl/` (`.ci/run` puts Debian's 1.20 there).
"""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent.parent
UNPACKED = ROOT / "build" / "kubectl"
SECONDS = 90.0


def _version(path: Path) -> tuple[int, int] | None:
    answer = subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=30)
    found = re.search(r'"gitVersion": *"v(\d+)\.(\d+)', answer.stdout)
    return (int(found[1]), int(found[2])) if found else None


def installed() -> dict[tuple[int, int], Path]:
    """Version → program, one each."""
    in_path = shutil.which("kubectl")
    candidates = sorted(UNPACKED.glob("*/usr/bin/kubectl"))
    if in_path is not None:
        candidates += [*sorted(Path(in_path).resolve().parent.glob("kubectl.1.*")), Path(in_path)]
    found: dict[tuple[int, int], Path] = {}
    for path in candidates:
        version = _version(path)
        if version is not None:
            found.setdefault(version, path)
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class Kubectl:
    """One version, one cluster, one namespace."""

    program: Path
    version: tuple[int, int]
    kubeconfig: Path
    namespace: str
    home: Path

    def argv(self, *words: str) -> list[str]:
        return [
            str(self.program),
            "--kubeconfig",
            str(self.kubeconfig),
            "--cache-dir",
            str(self.home / "cache"),
            "--namespace",
            self.namespace,
            *words,
        ]

    @property
    def environment(self) -> dict[str, str]:
        return dict(os.environ) | {"HOME": str(self.home), "KUBECTL_EXTERNAL_DIFF": "diff -u"}

    def run(
        self, *words: str, stdin: str | None = None, seconds: float = SECONDS
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.argv(*words), input=stdin, capture_output=True, text=True, timeout=seconds, env=self.environment
        )

    def __call__(self, *words: str, stdin: str | None = None, seconds: float = SECONDS) -> str:
        """Its output; a failure fails the test with what it said."""
        answer = self.run(*words, stdin=stdin, seconds=seconds)
        assert answer.returncode == 0, (
            f"kubectl {' '.join(words)}: exit {answer.returncode}: {answer.stderr}{answer.stdout}"
        )
        return answer.stdout

    @contextlib.contextmanager
    def start(self, *words: str) -> "Iterator[Started]":
        """kubectl in the background; ended and reaped when the context ends."""
        process = subprocess.Popen(
            self.argv(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )
        assert process.stdout is not None
        with process:
            try:
                yield Started(process, process.stdout)
            finally:
                process.terminate()


@dataclass(frozen=True, slots=True)
class Started:
    """A kubectl in the background and what it says, errors included."""

    process: "subprocess.Popen[str]"
    output: IO[str]

    def port(self) -> int:
        """The local port that the first line names."""
        line = self.output.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found is not None, line
        return int(found[1])
