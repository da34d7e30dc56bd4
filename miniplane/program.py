"""A row of the process table, and what rows are made from.

My job: the types. Pure data; `cluster` writes the rows, `supervisor` starts them.
"""

import enum
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from miniplane.addresses import Ranges
from miniplane.state import Options, StateDir


class Readiness(enum.Enum):
    """What makes a process ready, as seen through the API server."""

    READYZ = "readyz"
    NODE = "node"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Program:
    """One row: a process to keep running."""

    name: str
    argv: tuple[str, ...]
    log: str
    # Stopping goes from the highest layer down: who needs nobody (etcd) is 0.
    layer: int
    readiness: Readiness = Readiness.NONE
    # Seconds between SIGTERM and SIGKILL.
    grace: float = 5.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"readiness": self.readiness.value}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        known = {"argv": tuple(document["argv"]), "readiness": Readiness(document["readiness"])}
        return cls(**(document | known))


@dataclass(frozen=True, slots=True)
class Node:
    """A node's name and its place on this machine."""

    name: str
    ip: str
    pod_cidr: str


@dataclass(frozen=True, slots=True)
class Pki:
    """kubeadm's names below `pki/`, as far as flags mention them (`certs.layout` has them all).

    Repeated here because the supervisor must not load a cryptography library to know a file's name; a test compares.
    """

    state_dir: Path

    def __call__(self, name: str) -> str:
        return str(self.state_dir / "pki" / name)


def nodes(options: Options, ranges: Ranges) -> list[Node]:
    return [
        Node(f"node-{number}", ranges.node_ip(number), ranges.pod_cidr(number))
        for number in range(1, options.nodes + 1)
    ]


def node_dir(state: StateDir, node: Node) -> Path:
    return state.path / "nodes" / node.name


def python(module: str) -> tuple[str, ...]:
    # -P: the state directory is the working directory, and must not be searched for modules.
    return (sys.executable, "-P", "-m", module)
