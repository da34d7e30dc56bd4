"""A node's end of an SSH tunnel, embedded: `python -m minikubelet.sshd`.

DEPRECATED like the tunnels themselves. My job: an SSH server that can do one thing: let the API server's key open
direct-tcpip channels to addresses of this node's network. No shell, no exec, no pty, no subsystem, no agent, no X11, no
listening, no UNIX paths. Any OpenSSH sshd with `PermitOpen` can take my place.
Rule: a destination is an IP address within `--allow-cidrs`; names are refused, since a resolver could be told to lie.
"""

import argparse
import asyncio
import ipaddress
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncssh

from minikubelet import logline
from minikubelet.logline import kv
from wire.channelbridge import ChannelBridge
from wire.errors import DialError
from wire.net import dial_tcp, join_host_port

log = logging.getLogger("minikubelet.sshd")

LOGIN_TIMEOUT: Final = 10.0
DIAL_TIMEOUT: Final = 20.0
KEEPALIVE_SECONDS: Final = 15.0
WINDOW: Final = 1024 * 1024
CIPHERS: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class InvalidSettings(Exception):
    """A flag, or what it names, cannot be used."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the process was told."""

    address: str
    port: int
    user: str
    host_key: Any  # asyncssh.SSHKey
    authorized_keys: Any  # asyncssh.SSHAuthorizedKeys
    allowed: tuple[Network, ...]

    def permits(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address.version == network.version and address in network for network in self.allowed)


class TunnelServer(asyncssh.SSHServer):
    """One connection of the API server. Everything but direct-tcpip is refused by asyncssh's own defaults."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        log.info("connection.made %s", kv(peer=conn.get_extra_info("peername")))

    def connection_lost(self, exc: Exception | None) -> None:
        log.info("connection.lost %s", kv(reason=exc))

    def begin_auth(self, username: str) -> bool:
        if username == self._settings.user and self._connection is not None:
            self._connection.set_authorized_keys(self._settings.authorized_keys)
        return True

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        if not self._settings.permits(dest_host):
            log.warning("dial.refused %s", kv(to=join_host_port(dest_host, dest_port)))
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, f"{dest_host} is not in this node's network"
            )
        return self._dial(dest_host, dest_port)

    async def _dial(self, host: str, port: int) -> Any:
        bridge = ChannelBridge()
        try:
            await bridge.attach(await dial_tcp(host, port, timeout=DIAL_TIMEOUT))
        except DialError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, error.reason) from error
        return bridge.channel_side


async def serve(settings: Settings) -> None:
    """Until cancelled. Raises OSError if the address cannot be listened on."""
    listener = await asyncssh.listen(
        settings.address, settings.port, server_factory=lambda: TunnelServer(settings), config=None,
        server_host_keys=[settings.host_key], encryption_algs=CIPHERS, compression_algs=None, allow_pty=False,
        agent_forwarding=False, x11_forwarding=False, password_auth=False, kbdint_auth=False, host_based_auth=False,
        gss_host=None, login_timeout=LOGIN_TIMEOUT, keepalive_interval=KEEPALIVE_SECONDS, window=WINDOW,
        reuse_address=True,
    )  # fmt: skip
    log.info("listen %s", kv(address=settings.address, port=listener.get_port(), user=settings.user))
    try:
        await asyncio.Event().wait()
    finally:
        listener.close()
        await listener.wait_closed()


def parse(argv: Sequence[str]) -> Settings:
    """Raises InvalidSettings; argparse itself ends the process on unknown flags."""
    parser = argparse.ArgumentParser(
        prog="minikubelet.sshd", allow_abbrev=False,
        description="A node's end of the API server's SSH tunnel (deprecated: use Konnectivity).",
    )  # fmt: skip
    add = parser.add_argument
    add("--address", required=True, help="where to listen: the node's address")
    add("--port", type=int, default=22, help="the port (22)")
    add("--user", required=True, help="the one user name that may log in")
    add("--host-key-file", type=Path, required=True, help="this node's host key, as OpenSSH keeps it")
    add("--authorized-keys-file", type=Path, required=True, help="the API server's public key")
    add("--allow-cidrs", required=True, help="where channels may lead: this node's address and pods, comma separated")
    options = parser.parse_args(argv)
    try:
        return Settings(
            options.address, options.port, options.user, asyncssh.read_private_key(options.host_key_file),
            asyncssh.read_authorized_keys(str(options.authorized_keys_file)),
            tuple(ipaddress.ip_network(cidr) for cidr in options.allow_cidrs.split(",") if cidr),
        )  # fmt: skip
    except (OSError, ValueError, asyncssh.KeyImportError) as error:
        raise InvalidSettings(str(error)) from error


async def _run(settings: Settings) -> None:
    work = asyncio.create_task(serve(settings), name="sshd")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        log.info("stopped")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        settings = parse(sys.argv[1:] if argv is None else argv)
        logline.configure(logging.INFO)
        logging.getLogger("asyncssh").setLevel(logging.WARNING)
        import uvloop

        uvloop.run(_run(settings))
    except (InvalidSettings, OSError) as error:
        print(f"minikubelet.sshd: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
