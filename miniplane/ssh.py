"""SSH tunnels in the process table: an sshd on each node, and the API server's flags.

Deprecated, as upstream's tunnels are. My job: their rows and OpenSSH's configuration file. Keys and known_hosts are
made by `certs` when the cluster is: nothing is learned on first use. Each sshd lets the API server's key open
connections to its own node and that node's pods, and nothing else.
"""

import ipaddress
import os
import pwd
import shutil
from pathlib import Path
from typing import Final

from miniplane.errors import OptionsError
from miniplane.program import Node, Pki, Program, node_dir, nodes, python
from miniplane.state import Egress, Record, StateDir

# Where sshd puts itself while it has no privileges; it refuses to start without (sshd(8), FILES).
_PRIVILEGE_SEPARATION: Final = Path("/run/sshd")


def servers(record: Record, state: StateDir) -> list[Program]:
    if not record.options.egress.is_ssh:
        return []
    return [_server(record, state, node) for node in nodes(record.options, record.ranges)]


def _server(record: Record, state: StateDir, node: Node) -> Program:
    name, openssh = f"sshd-{node.name}", openssh_path(record.options.egress)
    if openssh is not None:
        argv: tuple[str, ...] = (openssh, "-D", "-e", "-f", str(_configuration(state, node)))
    else:
        argv = (
            *python("minikubelet.sshd"),
            f"--address={node.ip}",
            f"--port={record.place.ssh_port}",
            f"--user={user()}",
            f"--host-key-file={_folder(state, node) / 'ssh_host_ed25519_key'}",
            f"--authorized-keys-file={_folder(state, node) / 'authorized_keys'}",
            f"--allow-cidrs={node.ip},{node.pod_cidr}",
        )
    return Program(name, argv, str(state.log(name)), layer=1)


def openssh_path(egress: Egress) -> str | None:
    """OpenSSH's sshd, if that is what the egress means here."""
    if egress is not Egress.SSH:
        return None
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


def user() -> str:
    """Whoever runs the cluster: without privileges, an sshd lets nobody else in."""
    return pwd.getpwuid(os.geteuid()).pw_name


def apiserver_flags(record: Record, state: StateDir) -> list[str]:
    if not record.options.egress.is_ssh:
        return []
    pki = Pki(state.path)
    return [
        f"--ssh-user={user()}",
        f"--ssh-keyfile={pki('ssh/id_ed25519')}",
        f"--ssh-known-hosts={pki('ssh/known_hosts')}",
        f"--ssh-port={record.place.ssh_port}",
    ]


def write_inputs(record: Record, state: StateDir) -> None:
    """Raises OSError."""
    if openssh_path(record.options.egress) is None:
        return
    if os.geteuid() == 0:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    for node in nodes(record.options, record.ranges):
        _configuration(state, node).write_text(configuration(record, state, node))


def configuration(record: Record, state: StateDir, node: Node) -> str:
    if any(character in str(state.path) for character in ' "\\%'):
        raise OptionsError(f"{state.path}: sshd cannot read such a path; use --egress ssh-embedded")
    destinations = [node.ip, *map(str, ipaddress.ip_network(node.pod_cidr).hosts())]
    settings = {
        "ListenAddress": node.ip,
        "Port": str(record.place.ssh_port),
        "HostKey": str(_folder(state, node) / "ssh_host_ed25519_key"),
        "AuthorizedKeysFile": str(_folder(state, node) / "authorized_keys"),
        "PidFile": "none",
        # Its files lie in the state directory, whose parents may be anybody's.
        "StrictModes": "no",
        "AllowUsers": user(),
        "AuthenticationMethods": "publickey",
        "PermitRootLogin": "prohibit-password",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "DisableForwarding": "no",
        "AllowTcpForwarding": "local",
        "AllowStreamLocalForwarding": "no",
        "AllowAgentForwarding": "no",
        "X11Forwarding": "no",
        "PermitTTY": "no",
        "PermitTunnel": "no",
        "PermitUserRC": "no",
        "MaxSessions": "0",
        "PermitOpen": " ".join(f"{address}:*" for address in destinations),
        "ClientAliveInterval": "15",
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def _folder(state: StateDir, node: Node) -> Path:
    return node_dir(state, node) / "ssh"


def _configuration(state: StateDir, node: Node) -> Path:
    return _folder(state, node) / "sshd_config"
