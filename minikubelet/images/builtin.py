"""Images that need no file: an HTTP echo server, a sleeper, a log ticker, and pause.

My job: which program each name stands for. I own nothing. They run from the host's files: the small ones by its shell,
the echo server by the interpreter this kubelet runs with, which is made visible to the container for that.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from minikubelet.images.reference import Reference

ECHO_PROGRAM = Path(__file__).resolve().parent / "echo_program.py"
# dash waits for `wait` with traps live, so the end comes at once.
SLEEP = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"
TICK = (
    "trap 'exit 0' TERM INT; n=0; while :; do "
    'echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) tick $n"; n=$((n+1)); sleep "${INTERVAL:-1}" & wait $!; done'
)


@dataclass(frozen=True, slots=True)
class BuiltinImage:
    """A program by name. `visible_host_paths` are what it needs of the host beyond system directories."""

    repository: str
    entrypoint: tuple[str, ...]
    visible_host_paths: tuple[Path, ...] = ()
    what: str = ""


def interpreter_paths() -> tuple[Path, ...]:
    """This interpreter wherever it lives: environment, base installation, and every link between."""
    found = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent]
    system = (Path("/usr"), Path("/"))
    return tuple(dict.fromkeys(path for path in found if path not in system))


def _table() -> dict[str, BuiltinImage]:
    echo = (sys.executable, "-I", "-S", str(ECHO_PROGRAM))
    paths = (*interpreter_paths(), ECHO_PROGRAM.parent)
    images = (
        BuiltinImage("miniplane.local/echo", echo, paths, "HTTP echo server on $PORT (8080)"),
        BuiltinImage("miniplane.local/sleeper", ("/bin/sh", "-c", SLEEP), (), "does nothing until it is told to end"),
        BuiltinImage("miniplane.local/ticker", ("/bin/sh", "-c", TICK), (), "one log line every $INTERVAL (1) seconds"),
        BuiltinImage("registry.k8s.io/pause", ("/bin/sh", "-c", SLEEP), (), "the pause container"),
    )
    return {image.repository: image for image in images}


BUILTIN = _table()


def find(reference: Reference) -> BuiltinImage | None:
    """Any tag will do."""
    return BUILTIN.get(reference.repository)
