"""A cluster for one scene, with an attacker where the network is.

My job: choose free addresses, put the interceptor at the node's, move the kubelet away from it, start the cluster, run
a person's commands, and end everything with its files. What the API server is told about the node is what it always is:
the node's own address.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

from miniplane import launch
from miniplane.addresses import Ranges, take_slot
from miniplane.demo.attacker import Attacker
from miniplane.errors import MiniplaneError
from miniplane.program import Pki
from miniplane.state import Options, Place, Record, StateDir

KUBELET_PORT: Final = 10250
SECONDS: Final = 30.0
#: The moved kubelet's place in the node range: no node has it.
MOVED_TO: Final = 200
OWNED: Final = "owned-by-the-network"
TYPED: Final = f"echo 'mallory was here' > /tmp/{OWNED}\n"


#: What is to go on beside every cluster of the lab: the map, if somebody wants to look.
WATCHED_BY: Final[ContextVar[Callable[[StateDir], contextlib.AbstractContextManager[None]] | None]] = ContextVar(
    "watched_by", default=None
)
Extra = Callable[[Ranges], dict[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Said:
    """One command as the person at the keyboard saw it."""

    command: str
    output: str
    exit_code: int


@dataclass(slots=True)
class Lab:
    """A running cluster and its attacker. Lives inside `lab(...)`."""

    state: StateDir
    ranges: Ranges
    kubectl: str
    attacker: Attacker
    cache: Path

    @property
    def node(self) -> str:
        return f"{self.ranges.node_ip(1)}:{KUBELET_PORT}"

    @property
    def kubelet(self) -> str:
        return f"{self.ranges.node_ip(MOVED_TO)}:{KUBELET_PORT}"

    @property
    def kubeconfig(self) -> Path:
        return self.state.path / "admin.conf"

    def _argv(self, words: tuple[str, ...]) -> list[str]:
        return [self.kubectl, "--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.cache), *words]

    def run(self, *words: str, stdin: str | None = None) -> Said:
        """kubectl, to its end."""
        answer = subprocess.run(
            self._argv(words), input=stdin, capture_output=True, text=True, timeout=SECONDS, env=dict(os.environ)
        )
        shown = f"kubectl {' '.join(_quoted(word) for word in words)}"
        return Said(shown, (answer.stdout + answer.stderr).strip(), answer.returncode)

    @contextlib.contextmanager
    def background(self, *words: str) -> "Iterator[subprocess.Popen[str]]":
        """kubectl beside us; ended with the context."""
        process = subprocess.Popen(
            self._argv(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        with process:
            try:
                yield process
            finally:
                process.terminate()

    def start_pod(self, name: str, *words: str) -> None:
        """Raises MiniplaneError if it does not become ready."""
        self._must("run", name, *words)
        self._must("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=20s")

    def apply(self, manifest: Path, pod: str) -> None:
        """Raises MiniplaneError if it does not become ready."""
        self._must("create", "-f", str(manifest))
        self._must("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=20s")

    def _must(self, *words: str) -> None:
        said = self.run(*words)
        if said.exit_code:
            raise MiniplaneError(f"{said.command}: {said.output}")

    def first_line(self, stream: IO[str] | None) -> str:
        return stream.readline().strip() if stream is not None else ""


@contextlib.contextmanager
def tapped_cluster(options: Options, listen: Callable[[Ranges], Sequence[str]], extra: Extra) -> Iterator[Lab]:
    """A cluster with an interceptor wherever `listen` puts it. `extra` moves somebody away from there."""
    kubectl = find_kubectl()
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="miniplane-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        state = StateDir(folder / "cluster")
        ranges = _free_ranges()
        _settle_first(state, replace(options, secure_port=0, extra_args=extra(ranges)), ranges)
        ca = Pki(state.path)("ca.crt")
        attacker = stack.enter_context(Attacker((*listen(ranges), "--cluster-ca", ca, "--type", TYPED)))
        stack.callback(launch.down, state)
        launch.up(state, {}, report=lambda line: None)
        if (watch := WATCHED_BY.get()) is not None:
            stack.enter_context(watch(state))
        yield Lab(state, ranges, kubectl, attacker, folder / "cache")


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word or ";" in word else word


def find_kubectl() -> str:
    """Raises MiniplaneError."""
    found = shutil.which("kubectl")
    if found is None:
        raise MiniplaneError("the demo drives a real kubectl, and none is in PATH: https://kubernetes.io/docs/tasks/tools/")
    return found


def lab(kubelet_ca: bool, *, kubelet: tuple[str, ...] = ()) -> "contextlib.AbstractContextManager[Lab]":
    """A cluster whose node address is an interceptor's, quiet as yet; its kubelet answers elsewhere."""

    def listen(ranges: Ranges) -> Sequence[str]:
        place, moved = ranges.node_ip(1), ranges.node_ip(MOVED_TO)
        return ("--listen", f"{place}:{KUBELET_PORT}", "--upstream", f"{moved}:{KUBELET_PORT}")

    def extra(ranges: Ranges) -> dict[str, tuple[str, ...]]:
        return {"node-1": (f"--address={ranges.node_ip(MOVED_TO)}", *kubelet)}

    return tapped_cluster(Options(kubelet_ca=kubelet_ca), listen, extra)


def _free_ranges() -> Ranges:
    ranges, holder = take_slot()
    holder.close()
    return ranges


def _settle_first(state: StateDir, options: Options, ranges: Ranges) -> None:
    """Where the cluster will be, decided before it starts: the interceptor has to be there first."""
    state.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.write_record(Record(options, Place(ranges.slot, 0)))


def until(seconds: float, condition: Any) -> bool:
    """Whether `condition` came true within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
