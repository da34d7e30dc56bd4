"""The SSH path: one connection to each node, one direct-tcpip channel for each dial.

DEPRECATED, as upstream's SSH tunnels were: Konnectivity is the way to reach a nodes' network; this is for nodes that
have nothing but an sshd. My job: asyncssh (its only room here, with `minikubelet.sshd`): connect with the API server's
key, accept only the host key that was pinned at bootstrap, open channels. `tunnels` keeps me connected.
Rule: a host key that is unknown or has changed refuses the tunnel; nothing is ever learned on first use.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncssh

from wire.channelbridge import ChannelBridge, tcp_pair
from wire.errors import ConnectionLost, DialError, DialTimeout, NoTunnel
from wire.net import dial_tcp, join_host_port, tcp_bytes

LOGIN_TIMEOUT: Final = 10.0
# Short, so that a network that heals meets a fresh SYN and not the long pauses between retransmissions.
CONNECT_TIMEOUT: Final = 2.0
KEEPALIVE_SECONDS: Final = 5.0
KEEPALIVES: Final = 3
# What a channel may hold that its reader has not taken; OpenSSH's own windows are 2 MiB.
WINDOW: Final = 1024 * 1024
# AES-GCM first: with the processor's instructions it is the cheapest of what both implementations have.
CIPHERS: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr")

logging.getLogger("asyncssh").setLevel(logging.WARNING)


class InvalidCredentials(ValueError):
    """A key or known_hosts file that cannot be used."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are and whom we believe. `known_hosts` is read anew with each connection."""

    user: str
    key: Any  # asyncssh.SSHKey
    known_hosts: Path
    port: int = 22

    @classmethod
    def read(cls, user: str, keyfile: Path, known_hosts: Path, port: int) -> "Credentials":
        """Raises InvalidCredentials."""
        try:
            credentials = cls(user, asyncssh.read_private_key(keyfile), known_hosts, port)
        except (OSError, asyncssh.KeyImportError) as error:
            raise InvalidCredentials(f"{keyfile}: {error}") from error
        credentials.pinned("", "")
        return credentials

    def pinned(self, node: str, address: str) -> list[Any]:
        """Host keys of the node: by its name, else by its address. Raises InvalidCredentials."""
        try:
            known = asyncssh.read_known_hosts(str(self.known_hosts))
        except (OSError, ValueError) as error:
            raise InvalidCredentials(f"{self.known_hosts}: {error}") from error
        for host, port in ((node, self.port), (node, None), (address, self.port), (address, None)):
            found: Sequence[Any] = known.match(host, "", port)
            if found[0]:
                return list(found[0])
        return []

    async def connect(self, node: str, address: str) -> "SSHConnection":
        """Raises DialError whose reason says what was wrong."""
        where, via = join_host_port(address, self.port), f"ssh {node}"
        try:
            keys = self.pinned(node, address)
        except InvalidCredentials as error:
            raise NoTunnel(where, via, str(error)) from error
        if not keys:
            raise NoTunnel(where, via, f"unknown host key: {self.known_hosts} has no line for {node} or {address}")
        sock = await dial_tcp(address, self.port, timeout=CONNECT_TIMEOUT, via=via)
        try:
            return await self._log_in(sock, keys, where, via)
        except BaseException:
            sock.close()
            raise

    async def _log_in(self, sock: socket.socket, keys: list[Any], where: str, via: str) -> "SSHConnection":
        watcher = _Watcher()
        try:
            async with asyncio.timeout(LOGIN_TIMEOUT):
                connection = await asyncssh.connect(
                    sock=sock, config=None, client_factory=lambda: watcher, username=self.user, client_keys=[self.key],
                    known_hosts=(keys, [], []), agent_path=None, preferred_auth="publickey", encryption_algs=CIPHERS,
                    compression_algs=None, keepalive_interval=KEEPALIVE_SECONDS, keepalive_count_max=KEEPALIVES,
                    login_timeout=LOGIN_TIMEOUT,
                )  # fmt: skip
        except TimeoutError as error:
            raise DialTimeout(where, via, "ssh login: timeout") from error
        except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as error:
            # The server was only asked for keys of the kinds that are pinned: having none of them is a mismatch, too.
            reason = f"host key mismatch: not what {self.known_hosts} has ({error.reason})"
            raise NoTunnel(where, via, reason) from error
        except asyncssh.PermissionDenied as error:
            raise NoTunnel(where, via, f"ssh login as {self.user}: permission denied") from error
        except (asyncssh.Error, OSError) as error:
            raise NoTunnel(where, via, f"ssh login: {error}") from error
        return SSHConnection(connection, watcher, via)


class _Watcher(asyncssh.SSHClient):
    """Remembers how a connection ended, and tells it while the socket is still there."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.when_lost: list[Callable[[], None]] = []

    def connection_lost(self, exc: BaseException | None) -> None:
        self.error = exc
        for callback in self.when_lost:
            callback()


class SSHConnection:
    """A connection to one node's sshd. Lives until either side ends it; its channels end with it, with an error."""

    def __init__(self, connection: asyncssh.SSHClientConnection, watcher: _Watcher, via: str) -> None:
        self._connection, self._watcher, self._via = connection, watcher, via
        self._opening: set[asyncio.Task[Any]] = set()
        self.channels = 0
        self._socket = connection.get_extra_info("socket")  # asyncssh forgets it when the end begins
        self._counted = (0, 0)

    # ------------------------------------------------------------ for the ledger (`wire.connections.Carrier`)

    @property
    def cipher(self) -> str:
        return str(self._connection.get_extra_info("send_cipher"))

    @property
    def bytes_in(self) -> int:
        return self._count()[0]

    @property
    def bytes_out(self) -> int:
        return self._count()[1]

    def _count(self) -> tuple[int, int]:
        """SSH's own bytes, too: it does not count others. Of a closed socket, what was last known."""
        with contextlib.suppress(OSError):
            self._counted = tcp_bytes(self._socket)
        return self._counted

    @property
    def error(self) -> BaseException | None:
        return self._watcher.error

    def get_extra_info(self, name: str) -> Any:
        return self._connection.get_extra_info(name)

    def when_closed(self, callback: Callable[[], None]) -> None:
        self._watcher.when_lost.append(callback)

    # ------------------------------------------------------------ channels

    async def open(self, host: str, port: int) -> socket.socket:
        """One end of a connected pair, the other of which feeds a channel. Raises DialError."""
        address = join_host_port(host, port)
        ours, theirs = tcp_pair()
        self.channels += 1
        bridge = ChannelBridge(self._one_less)
        try:
            await bridge.attach(theirs)
            await self._channel(bridge, host, port)
        except asyncssh.ChannelOpenError as error:
            _give_up(ours, bridge)
            if self._connection.is_closed():
                raise NoTunnel(address, self._via, "ssh connection closed") from error
            raise DialError(address, self._via, f"connect: {error.reason}") from error
        except (asyncssh.Error, OSError, ConnectionLost) as error:
            _give_up(ours, bridge)
            raise NoTunnel(address, self._via, f"ssh connection: {error}") from error
        except BaseException:
            _give_up(ours, bridge)
            raise
        return ours

    async def _channel(self, bridge: ChannelBridge, host: str, port: int) -> None:
        """A dial that is cancelled leaves its request behind, which asyncssh cannot take back: its answer is awaited
        by a task of its own, and the bridge, aborted by then, ends the channel."""
        opening = asyncio.create_task(
            self._connection.create_connection(lambda: bridge.channel_side, host, port, window=WINDOW),  # type: ignore[arg-type,return-value]
            name=f"ssh channel to {join_host_port(host, port)}",
        )
        self._opening.add(opening)
        opening.add_done_callback(self._opened)
        await asyncio.shield(opening)

    def _opened(self, opening: "asyncio.Task[Any]") -> None:
        self._opening.discard(opening)
        if not opening.cancelled():
            opening.exception()  # whoever dialled has seen it, or has gone

    def _one_less(self) -> None:
        self.channels -= 1

    async def wait_closed(self) -> str:
        await self._connection.wait_closed()
        return f"ssh connection lost: {self._watcher.error or 'closed by the node'}"

    async def aclose(self) -> None:
        self._count()
        self._connection.abort()
        with contextlib.suppress(asyncssh.Error, OSError):
            await self._connection.wait_closed()


def _give_up(ours: socket.socket, bridge: ChannelBridge) -> None:
    bridge.abort()
    ours.close()
