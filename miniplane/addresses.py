"""Where a cluster sits on one machine: loopback ranges that no other cluster uses, and a port that is free.

My job: choose a slot and a port, and say so where the choice is not the obvious one. I own the slot's socket until it
is handed to the supervisor. Linux answers on all of 127.0.0.0/8, so nodes, pods and service VIPs each have their own.
"""

import contextlib
import errno
import ipaddress
import random
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from miniplane.errors import OptionsError

SLOTS: Final = 31
HTTPS_PORT: Final = 443
KUBERNETES_PORT: Final = 6443
PORTS_TRIED: Final = 200
#: Below net.ipv4.ip_local_port_range's default of 32768, above what services are registered for.
QUIET_PORTS: Final = range(20000, 30000)
SSH_PORT: Final = 22
HIGH_SSH_PORT: Final = 2222


@dataclass(frozen=True, slots=True)
class Ranges:
    """The loopback ranges of one slot. Slot 0 has the documented ones."""

    slot: int

    @property
    def services(self) -> str:
        return f"127.{96 + self.slot}.0.0/16"

    @property
    def pods(self) -> str:
        return f"127.{self._pod_octet}.0.0/16"

    @property
    def nodes(self) -> str:
        return f"127.0.{10 + self.slot}.0/24"

    @property
    def all(self) -> tuple[str, ...]:
        return (self.nodes, self.pods, self.services)

    @property
    def kubernetes_service_ip(self) -> str:
        return f"127.{96 + self.slot}.0.1"

    def node_ip(self, number: int) -> str:
        return f"127.0.{10 + self.slot}.{number}"

    def pod_cidr(self, number: int) -> str:
        return f"127.{self._pod_octet}.{number}.0/24"

    @property
    def control_plane(self) -> str:
        """Where etcd and the Konnectivity server listen: the last address of the nodes' range that is not a node's."""
        return self.node_ip(254)

    @property
    def _pod_octet(self) -> int:
        # 96 to 126 are services; 244 is the second octet of flannel's and so of everybody's pod range.
        return 244 if self.slot == 0 else 128 + self.slot


@dataclass(frozen=True, slots=True)
class NetnsRanges(Ranges):
    """Private ranges for networks of our own; nothing outside `topology`'s namespaces sees them but `management`."""

    @property
    def services(self) -> str:
        return f"10.{200 + self.slot}.96.0/20"

    @property
    def pods(self) -> str:
        return f"10.{200 + self.slot}.128.0/17"

    @property
    def nodes(self) -> str:
        return f"10.{200 + self.slot}.10.0/24"

    @property
    def kubernetes_service_ip(self) -> str:
        return f"10.{200 + self.slot}.96.1"

    @property
    def management(self) -> str:
        """Between this machine and the control plane: how people reach the API server."""
        return f"10.{200 + self.slot}.0.0/30"

    @property
    def host(self) -> str:
        return f"10.{200 + self.slot}.0.1"

    @property
    def control_plane(self) -> str:
        return f"10.{200 + self.slot}.0.2"

    def link(self, network: int, end: int) -> str:
        """The two ends of a cable into the untrusted network: 1 is the router's, 2 the other."""
        return f"10.{200 + self.slot}.{network}.{end}"

    def node_ip(self, number: int) -> str:
        return f"10.{200 + self.slot}.10.{number}"

    def pod_cidr(self, number: int) -> str:
        return f"10.{200 + self.slot}.{127 + number}.0/24"


def take_slot(only: int | None = None, avoid: Collection[int] = ()) -> tuple[Ranges, socket.socket]:
    """Ranges no running cluster uses, and the socket that keeps them ours while it is open.

    An abstract UNIX socket lives exactly as long as its holders and exactly as far as the loopback device does: one
    network namespace. The supervisor inherits it. Those to `avoid` are taken when no other is left. Raises
    OptionsError.
    """
    order = [only] if only is not None else sorted(range(SLOTS), key=lambda slot: slot in avoid)
    for slot in order:
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            holder.bind(f"\0miniplane/slot/{slot}")
        except OSError:
            holder.close()
            continue
        return Ranges(slot), holder
    if only is not None:
        taken = ", ".join(Ranges(only).all)
        raise OptionsError(
            f"this cluster's addresses ({taken}) are used by another that runs now: `miniplane down` that one, or "
            "let this one begin anew elsewhere with `miniplane down --purge`"
        )
    raise OptionsError(f"{SLOTS} clusters run on this machine already; `miniplane down` one of them first")


@dataclass(frozen=True, slots=True)
class PortChoice:
    """The API server's port, and the one line that says why it is not the one expected."""

    port: int
    remark: str = ""


def choose_port(bind_address: str, asked: int | None, last: int | None = None) -> PortChoice:
    """The port asked for; else the one used last time; else 443, 6443, and on from there. Raises OptionsError."""
    if asked is not None:
        return PortChoice(_exactly(bind_address, asked))
    if last is not None and _problem(bind_address, last) is None:
        return PortChoice(last)
    problem = _problem(bind_address, HTTPS_PORT)
    if problem is None:
        return PortChoice(HTTPS_PORT)
    why = "may not be used by you" if problem in (errno.EACCES, errno.EPERM) else "is taken"
    for port in range(KUBERNETES_PORT, KUBERNETES_PORT + PORTS_TRIED):
        if _problem(bind_address, port) is None:
            also = "" if port == KUBERNETES_PORT else f", {KUBERNETES_PORT} is taken"
            return PortChoice(port, f"port {HTTPS_PORT} {why}{also}: the API server listens on {port}")
    raise OptionsError(f"no free port from {KUBERNETES_PORT} to {KUBERNETES_PORT + PORTS_TRIED} on {bind_address}")


def choose_ssh_port(ranges: Ranges) -> int:
    """22 on the nodes' own addresses; where that is refused or taken (an sshd on 0.0.0.0 takes it), 2222."""
    return SSH_PORT if _problem(ranges.node_ip(1), SSH_PORT) is None else HIGH_SSH_PORT


def free_port(bind_address: str) -> int:
    """A port nobody listens on, and none that outgoing connections get: a server that restarts wants it again."""
    for _ in range(PORTS_TRIED):
        port = random.choice(QUIET_PORTS)
        if _problem(bind_address, port) is None:
            return port
    with _bound(bind_address, 0) as listener:
        return int(listener.getsockname()[1])


def _exactly(bind_address: str, port: int) -> int:
    if port == 0:
        return free_port(bind_address)
    problem = _problem(bind_address, port)
    if problem is not None:
        raise OptionsError(f"--secure-port {port}: cannot be used on {bind_address} ({errno.errorcode[problem]})")
    return port


def _problem(bind_address: str, port: int) -> int | None:
    """Why the port cannot be listened on, as errno; None if it can."""
    try:
        with _bound(bind_address, port):
            return None
    except OSError as error:
        return error.errno or errno.EINVAL


@contextlib.contextmanager
def _bound(bind_address: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in bind_address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bind_address, port))
        # A bind alone succeeds beside another socket that is bound and not listening; a listen does not.
        listener.listen(1)
        yield listener


def check_bind_address(address: str) -> None:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise OptionsError(f"--bind-address {address!r}: not an IP address") from None


def reachable_address(bind_address: str) -> str:
    """The address clients on this machine use for a server bound to `bind_address`."""
    if ipaddress.ip_address(bind_address).is_unspecified:
        return "::1" if ":" in bind_address else "127.0.0.1"
    return bind_address


def own_addresses(bind_address: str) -> list[str]:
    """Addresses other machines may use for a server bound to `bind_address`."""
    if not ipaddress.ip_address(bind_address).is_unspecified:
        return [bind_address]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: routed like any stranger; a UDP connect sends nothing
        except OSError:
            return []
        return [str(probe.getsockname()[0])]


def url(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"https://{host}:{port}"
