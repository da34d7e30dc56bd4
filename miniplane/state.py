"""One cluster's state directory: where its files lie, and the record of what was asked for.

My job: paths that are not certificates (those are `certs.layout`), and `Options`, saved as `cluster.json` so that every
later command knows the cluster it talks about. Rule: the default cluster lies in the state directory itself, others in
`clusters/<name>` below it.
"""

import enum
import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from miniplane.addresses import SSH_PORT, NetnsRanges, Ranges
from miniplane.errors import NotRunning, OptionsError

DEFAULT_NAME: Final = "default"
MAX_NODES: Final = 250
MAX_NETNS_NODES: Final = 120
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


class Storage(enum.Enum):
    """What keeps the API server's objects."""

    SQLITE = "sqlite"
    ETCD = "etcd"


class Egress(enum.Enum):
    """How the API server reaches nodes, pods and services."""

    DIRECT = "direct"
    # How the API server talks to the Konnectivity server: HTTP CONNECT over a UNIX socket, the same over TCP with both
    # ends' certificates, or gRPC over a UNIX socket.
    KONNECTIVITY = "konnectivity"
    KONNECTIVITY_TCP = "konnectivity-tcp"
    KONNECTIVITY_GRPC = "konnectivity-grpc"
    # Deprecated, as upstream's SSH tunnels are: each node's end is OpenSSH's sshd if there is one, or the embedded one.
    SSH = "ssh"
    SSH_EMBEDDED = "ssh-embedded"

    @property
    def is_konnectivity(self) -> bool:
        return self in (Egress.KONNECTIVITY, Egress.KONNECTIVITY_TCP, Egress.KONNECTIVITY_GRPC)

    @property
    def is_ssh(self) -> bool:
        return self in (Egress.SSH, Egress.SSH_EMBEDDED)


class Topology(enum.Enum):
    """Where nodes and control plane are."""

    # All on this machine's loopback device; needs no privileges.
    LOCAL = "local"
    # In network namespaces with an untrusted network between, firewalled; needs root.
    NETNS = "netns"


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asked `up` for, and what it settled on. Frozen once the cluster runs."""

    name: str = DEFAULT_NAME
    nodes: int = 1
    kubelet_ca: bool = True
    bind_address: str = "127.0.0.1"
    secure_port: int | None = None
    storage: Storage = Storage.SQLITE
    egress: Egress = Egress.DIRECT
    topology: Topology = Topology.LOCAL
    sans: tuple[str, ...] = ()
    extra_args: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise OptionsError(f"--name {self.name!r}: use at most 40 of a-z, 0-9 and -, not - at either end")
        if not 0 <= self.nodes <= MAX_NODES:
            raise OptionsError(f"--nodes {self.nodes}: from 0 to {MAX_NODES}")
        if self.secure_port is not None and not 0 <= self.secure_port <= 65535:
            raise OptionsError(f"--secure-port {self.secure_port}: not a port")
        if self.topology is Topology.NETNS and self.nodes > MAX_NETNS_NODES:
            raise OptionsError(f"--nodes {self.nodes}: from 0 to {MAX_NETNS_NODES} with --topology netns")

    def as_json(self) -> dict[str, Any]:
        words = {"storage": self.storage.value, "egress": self.egress.value, "topology": self.topology.value}
        return asdict(self) | words

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        known = {
            "storage": Storage(document["storage"]),
            "egress": Egress(document["egress"]),
            "topology": Topology(document.get("topology", "local")),
            "sans": tuple(document["sans"]),
            "extra_args": {name: tuple(arguments) for name, arguments in document["extra_args"].items()},
        }
        return cls(**(document | known))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a running cluster sits on this machine: its loopback ranges (by slot) and its port."""

    slot: int
    port: int
    ssh_port: int = SSH_PORT


@dataclass(frozen=True, slots=True)
class Record:
    """`cluster.json`: what was asked for, and where it was put."""

    options: Options
    place: Place

    @property
    def ranges(self) -> Ranges:
        return ranges_of(self.options.topology, self.place.slot)

    @property
    def bind_address(self) -> str:
        """Where the API server listens."""
        return self.ranges.control_plane if self.options.topology is Topology.NETNS else self.options.bind_address

    def as_json(self) -> dict[str, Any]:
        return {"options": self.options.as_json(), "place": asdict(self.place)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        return cls(Options.from_json(document["options"]), Place(**document["place"]))


def ranges_of(topology: Topology, slot: int) -> Ranges:
    return NetnsRanges(slot) if topology is Topology.NETNS else Ranges(slot)


@dataclass(frozen=True, slots=True)
class StateDir:
    """Paths below one cluster's state directory."""

    path: Path

    @classmethod
    def of(cls, base: Path, name: str = DEFAULT_NAME) -> Self:
        base = base.absolute()
        return cls(base if name == DEFAULT_NAME else base / "clusters" / name)

    @property
    def record(self) -> Path:
        return self.path / "cluster.json"

    @property
    def control_socket(self) -> Path:
        return self.path / "control.sock"

    @property
    def lock(self) -> Path:
        return self.path / "supervisor.lock"

    @property
    def pids(self) -> Path:
        """Who runs, written by the supervisor at each change: what `down` has when the supervisor was killed."""
        return self.path / "pids.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.log"

    @property
    def database(self) -> Path:
        return self.path / "storage" / "cluster.db"

    @property
    def etcd_data(self) -> Path:
        return self.path / "storage" / "etcd"

    @property
    def egress_configuration(self) -> Path:
        return self.path / "egress.yaml"

    def connections_socket(self, process: str) -> Path:
        return self.path / "connections" / f"{process}.sock"

    def log(self, process: str) -> Path:
        return self.logs / f"{process}.log"

    def read_record(self) -> Record | None:
        """Raises OptionsError if the record is of another version or damaged."""
        try:
            return Record.from_json(json.loads(self.record.read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise OptionsError(f"{self.record}: not readable ({error}); `miniplane down`, then move it away") from error

    def write_record(self, record: Record) -> None:
        write_json(self.record, record.as_json())

    def require_record(self) -> Record:
        record = self.read_record()
        if record is None:
            raise NotRunning(f"no cluster in {self.path}: run `miniplane up` first")
        return record


def context_name(options: Options) -> str:
    """The kubeconfig's cluster and context name, `miniplane` or `miniplane-<name>`, as kind says `kind-<name>`."""
    return "miniplane" if options.name == DEFAULT_NAME else f"miniplane-{options.name}"


def changed(options: Options, given: dict[str, Any]) -> dict[str, Any]:
    """Those of the `given` settings that differ from `options`."""
    return {key: value for key, value in given.items() if getattr(options, key) != value}


def with_given(options: Options, given: dict[str, Any]) -> Options:
    return replace(options, **given)


def write_json(path: Path, document: Any) -> None:
    """Readers see the old content or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            json.dump(document, file, indent=1)
        os.replace(temporary, path)
    except OSError as error:
        raise OptionsError(f"write {path}: {error.strerror}") from error
