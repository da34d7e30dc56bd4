"""Where every file lies, by kubeadm's names, and how it gets there.

My job: names of files below one state directory, and `Staging`, which writes a set of files all or nothing. I own no
content. Rule: nothing in this package writes a file except through `Staging` or `write_private`.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from certs.errors import StateDirError

PRIVATE = 0o600
PUBLIC = 0o644

# A node name is a DNS-1123 subdomain; it becomes a folder name here, so nothing else may pass.
_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class FilePair:
    """A certificate (or public key) and its private key."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """The files of one node, as a kubelet's `--root-dir` and `--cert-dir` have them."""

    directory: Path

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubelet.conf"

    @property
    def client(self) -> Path:
        """Certificate and key in one file: the kubelet's rotation repoints exactly this name."""
        return self.pki / "kubelet-client-current.pem"

    @property
    def serving(self) -> FilePair:
        return FilePair(self.pki / "kubelet.crt", self.pki / "kubelet.key")

    @property
    def kube_proxy(self) -> Path:
        return self.directory / "kube-proxy.conf"

    @property
    def konnectivity_agent(self) -> FilePair:
        return FilePair(self.pki / "konnectivity-agent.crt", self.pki / "konnectivity-agent.key")

    @property
    def ssh_host_key(self) -> Path:
        return self.directory / "ssh" / "ssh_host_ed25519_key"

    @property
    def ssh_authorized_keys(self) -> Path:
        return self.directory / "ssh" / "authorized_keys"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one cluster below its state directory."""

    state_dir: Path

    @property
    def pki(self) -> Path:
        return self.state_dir / "pki"

    def pair(self, name: str) -> FilePair:
        return FilePair(self.pki / f"{name}.crt", self.pki / f"{name}.key")

    @property
    def ca(self) -> FilePair:
        return self.pair("ca")

    @property
    def front_proxy_ca(self) -> FilePair:
        return self.pair("front-proxy-ca")

    @property
    def front_proxy_client(self) -> FilePair:
        return self.pair("front-proxy-client")

    @property
    def apiserver(self) -> FilePair:
        return self.pair("apiserver")

    @property
    def apiserver_kubelet_client(self) -> FilePair:
        return self.pair("apiserver-kubelet-client")

    @property
    def service_account(self) -> FilePair:
        return FilePair(self.pki / "sa.pub", self.pki / "sa.key")

    @property
    def konnectivity_ca(self) -> FilePair:
        """Signs both ends of the link between Konnectivity server and agents."""
        return self.pair("konnectivity-ca")

    @property
    def konnectivity_server(self) -> FilePair:
        return self.pair("konnectivity-server")

    @property
    def konnectivity_front_ca(self) -> FilePair:
        """Signs both ends of the link between API server and Konnectivity server."""
        return self.pair("konnectivity-front-ca")

    @property
    def konnectivity_front(self) -> FilePair:
        return self.pair("konnectivity-front")

    @property
    def apiserver_konnectivity_client(self) -> FilePair:
        return self.pair("apiserver-konnectivity-client")

    @property
    def etcd_ca(self) -> FilePair:
        return self.pair("etcd/ca")

    @property
    def ssh_user_key(self) -> Path:
        return self.pki / "ssh" / "id_ed25519"

    @property
    def ssh_known_hosts(self) -> Path:
        return self.pki / "ssh" / "known_hosts"

    def kubeconfig(self, name: str) -> Path:
        return self.state_dir / f"{name}.conf"

    @property
    def admin(self) -> Path:
        return self.kubeconfig("admin")

    @property
    def controller_manager(self) -> Path:
        return self.kubeconfig("controller-manager")

    @property
    def scheduler(self) -> Path:
        return self.kubeconfig("scheduler")

    @property
    def konnectivity_server_kubeconfig(self) -> Path:
        return self.kubeconfig("konnectivity-server")

    @property
    def bootstrap_kubelet(self) -> Path:
        return self.kubeconfig("bootstrap-kubelet")

    @property
    def bootstrap_token(self) -> Path:
        return self.state_dir / "bootstrap-token"

    def node(self, name: str) -> NodeLayout:
        if not _NODE_NAME.fullmatch(name) or len(name) > 253:
            raise StateDirError(f"node name {name!r} is not a DNS-1123 subdomain")
        return NodeLayout(self.state_dir / "nodes" / name)


def read(path: Path) -> bytes | None:
    """The file's content, or None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateDirError(f"read {path}: {error.strerror}") from error


def write_private(path: Path, content: bytes) -> None:
    """Replace one file at once, readable by its owner only."""
    staging = Staging()
    staging.add(path, content, PRIVATE)
    staging.commit()


@dataclass(slots=True)
class Staging:
    """Files that become visible together or not at all. Lives for one command.

    Everything is written under temporary names first, where disks fill up and permissions fail; only then renamed. A
    rename that fails puts back what the earlier ones replaced. No fsync: a power cut may leave an empty file, which
    the next reader reports as such.
    """

    _files: dict[Path, tuple[bytes, int]] = field(default_factory=dict)

    def add(self, path: Path, content: bytes, mode: int) -> None:
        self._files[path] = (content, mode)

    def __contains__(self, path: Path) -> bool:
        return path in self._files

    def __len__(self) -> int:
        return len(self._files)

    def read(self, path: Path) -> bytes | None:
        """What `path` will hold after commit."""
        if path in self._files:
            return self._files[path][0]
        return read(path)

    def commit(self) -> None:
        with contextlib.ExitStack() as undo:
            staged = [(self._stage(path, undo), path) for path in self._files]
            for temporary, path in staged:
                _replace(temporary, path, undo)
            undo.pop_all()

    def _stage(self, path: Path, undo: contextlib.ExitStack) -> Path:
        content, mode = self._files[path]
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with _writing(path):
            for missing in _missing_parents(path):
                missing.mkdir(mode=0o700)
                undo.callback(_quietly, missing.rmdir)
            undo.callback(_quietly, temporary.unlink)
            _write(temporary, content, mode)
        return temporary


def _write(path: Path, content: bytes, mode: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask says
        file.write(content)


def _missing_parents(path: Path) -> list[Path]:
    return [parent for parent in reversed(path.parents) if not parent.exists()]


def _replace(temporary: Path, path: Path, undo: contextlib.ExitStack) -> None:
    before = read(path)
    mode = path.stat().st_mode & 0o777 if before is not None else 0
    with _writing(path):
        os.replace(temporary, path)
    if before is None:
        undo.callback(_quietly, path.unlink)
    else:
        undo.callback(_quietly, partial(_write, path, before, mode))


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateDirError(f"write {path}: {error.strerror}") from error


def _quietly(action: Callable[[], object]) -> None:
    with contextlib.suppress(OSError):
        action()


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """One writer of a state directory at a time; the second waits for the first."""
    with _writing(state_dir):
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state_dir / ".certs.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
