"""The ledgers of a cluster's processes, as one list.

My job: ask every process that serves a ledger, and say whose each entry is. A process that is just starting or ending
has none to show, which is no error. Blocking: `paths` lives a moment; the map has a reader of its own.
"""

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from miniplane.state import StateDir

JSON = dict[str, Any]

TIMEOUT: Final = 5.0
#: In the order of how much it should worry whoever reads it.
PROTECTIONS: Final = ("plain", "unverified", "verified", "none")
#: What carries a connection over the untrusted network when it is not the connection itself.
TUNNELS: Final = ("ssh", "konnectivity")


@dataclass(frozen=True, slots=True)
class Entry:
    """One connection of one process, as its ledger has it."""

    process: str
    facts: JSON

    def __getitem__(self, key: str) -> Any:
        return self.facts[key]

    @classmethod
    def of(cls, process: str, facts: JSON) -> Self:
        return cls(process, facts)

    @property
    def is_tunnelled(self) -> bool:
        return str(self["path"]).partition("-")[0].partition(":")[0] in TUNNELS

    @property
    def is_exposed(self) -> bool:
        """Somebody on the network between the two ends could have joined in."""
        return self["protection"] in ("plain", "unverified") and not self.is_tunnelled


def read(state: StateDir) -> list[Entry]:
    """Every entry of every process, API server first."""
    sockets = sorted((state.path / "connections").glob("*.sock"), key=lambda path: (path.stem != "miniapiserver", path))
    return [Entry.of(path.stem, facts) for path in sockets for facts in _read_one(path)]


def _read_one(path: Path) -> list[JSON]:
    chunks = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(TIMEOUT)
        try:
            # By its folder's descriptor: a socket's name may have 107 bytes, a state directory's path has more.
            folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                stream.connect(f"/proc/self/fd/{folder}/{path.name}")
            finally:
                os.close(folder)
            stream.sendall(b"snapshot\n")
            while chunk := stream.recv(1 << 16):
                chunks.append(chunk)
            found: list[JSON] = json.loads(b"".join(chunks))
        except (OSError, ValueError):
            return []
    return found
