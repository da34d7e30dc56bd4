"""The commands around joining: `token`, `join-command`, `node join`.

My job: their arguments, and which of `tokens` and `join` does the work. `cli` adds me to its table.
"""

import argparse
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from miniplane.state import StateDir

Run = Callable[[argparse.Namespace], int]
Command = Callable[..., argparse.ArgumentParser]


class JoiningCommands:
    """`command` and `state` are the command line's own ways to add a command and to find a cluster."""

    def __init__(self, command: Command, state: Callable[[argparse.Namespace], StateDir]) -> None:
        self._command, self._state = command, state

    def add(self, commands: Any) -> None:
        parser_class = type(self._add_join_command(commands))
        token = commands.add_parser("token", help="bootstrap tokens: create, list, delete",
                                    description="What a new node shows instead of a certificate.")
        actions = token.add_subparsers(metavar="ACTION", required=True, parser_class=parser_class)
        create = self._command(actions, "create", "make a token and print it", self._create)
        create.add_argument("token", nargs="?", metavar="TOKEN", help="abcdef.0123456789abcdef (default: a new one)")
        create.add_argument("--print-join-command", action="store_true", help="print the whole line to join with")
        _add_token_flags(create)
        self._command(actions, "list", "tokens, until when, what for", self._list)
        delete = self._command(actions, "delete", "end a token now", self._delete)
        delete.add_argument("token", metavar="ID|TOKEN")
        node = commands.add_parser("node", help="make this machine a node of a cluster", description="Nodes.")
        kinds = node.add_subparsers(metavar="ACTION", required=True, parser_class=parser_class)
        self._add_join(kinds)

    def _add_join_command(self, commands: Any) -> argparse.ArgumentParser:
        text = "print the line that joins another machine, with a new token in it"
        added = self._command(commands, "join-command", text, self._join_command)
        added.add_argument("token", nargs="?", metavar="TOKEN", help=argparse.SUPPRESS)
        _add_token_flags(added)
        return added

    def _add_join(self, kinds: Any) -> None:
        join = self._command(kinds, "join", "join a cluster and become its kubelet", self._join, cluster=False)
        join.add_argument("server", metavar="API-SERVER", help="HOST:PORT")
        join.add_argument("--token", required=True, help="a bootstrap token of the cluster")
        join.add_argument("--discovery-token-ca-cert-hash", action="append", default=[], metavar="sha256:HEX",
                          help="the cluster's CA, as join-command prints it")
        join.add_argument("--discovery-token-unsafe-skip-ca-verification", action="store_true",
                          help="believe whoever knows the token")
        join.add_argument("--name", default="", help="the node's name (default: the host's)")
        join.add_argument("--node-ip", default="", metavar="IP",
                          help="its address (default: the one towards the server)")
        join.add_argument("--port", type=int, default=10250, help="the kubelet's port (10250)")
        join.add_argument("--pod-cidr", default="", metavar="CIDR", help="addresses of its pods")
        join.add_argument("--node-labels", default="", metavar="A=B,…", help="labels to register with")
        join.add_argument("--directory", type=Path, metavar="DIR", help="the node's files (default: ./run/nodes/NAME)")

    def _create(self, options: argparse.Namespace) -> int:
        from miniplane import tokens

        state, token = self._state(options), tokens.wanted(options)
        tokens.create(state, token)
        print(tokens.join_command(state, token.token) if options.print_join_command else token.token)
        return 0

    def _join_command(self, options: argparse.Namespace) -> int:
        options.print_join_command = True
        return self._create(options)

    def _list(self, options: argparse.Namespace) -> int:
        from miniplane import tokens

        table = tokens.rows(tokens.listed(self._state(options)), datetime.now(UTC))
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        for row in table:
            print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return 0

    def _delete(self, options: argparse.Namespace) -> int:
        from miniplane import tokens

        tokens.delete(self._state(options), options.token)
        print(f"token {options.token.partition('.')[0]} deleted")
        return 0

    def _join(self, options: argparse.Namespace) -> int:
        from certs.discovery import split_token
        from certs.errors import CertsError
        from miniplane import join
        from miniplane.errors import OptionsError

        host, port = join.endpoint(options.server)
        name = (options.name or socket.gethostname()).lower()
        try:
            split_token(options.token)
        except CertsError as error:
            raise OptionsError(f"--token: {error}") from error
        asked = join.Join(
            host, port, options.token,
            join.checked_pins(options.discovery_token_ca_cert_hash,
                              options.discovery_token_unsafe_skip_ca_verification),
            name, options.node_ip or _address_towards(host, port),
            (options.directory or Path("run") / "nodes" / name).absolute(), options.pod_cidr, options.node_labels,
            options.port)
        found = join.discover(asked)
        print(f"joining {found.server} as {name}", file=sys.stderr)
        return join.become_kubelet(join.prepare(asked, found))


def _add_token_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ttl", default="24h", help="how long it is good (24h); 0 for ever")
    parser.add_argument("--usages", default="signing,authentication", help="what it is good for")
    parser.add_argument("--groups", default="system:bootstrappers:kubeadm:default-node-token",
                        help="the groups of who shows it")
    parser.add_argument("--description", default="", help="a note for people")


def _address_towards(host: str, port: int) -> str:
    """Our address on the way to the server."""
    from miniplane.errors import OptionsError

    try:
        with socket.create_connection((host, port), timeout=10) as connection:
            return str(connection.getsockname()[0])
    except OSError as error:
        raise OptionsError(f"{host}:{port}: {error}") from error
