"""SSH tunnels put together: the flags, the Node objects of this server, its health and metrics pages.

My job: what `--ssh-user` means. Built by `endpoints.nodestreams` with the one NodePath. asyncssh is loaded only then.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from miniapiserver.config import Config, ConfigError
from miniapiserver.egress.tunnels import TunnelConnection, Tunnels
from miniapiserver.endpoints.health import Check, Health
from miniapiserver.metrics import Metrics
from miniapiserver.watchcache.cache import WatchCache
from miniapiserver.watchcache.events import Change
from wire.connections import Ledger
from wire.net import join_host_port

log = logging.getLogger("apiserver.tunnels")


@contextlib.asynccontextmanager
async def ssh_tunnels(
    config: Config, nodes: WatchCache, health: Health, metrics: Metrics, ledger: Ledger
) -> AsyncIterator[Tunnels]:
    """The dialer of `--ssh-user`. Raises ConfigError."""
    from miniapiserver.egress.ssh import Credentials, InvalidCredentials
    from miniapiserver.kubelet import ME, connection_info

    if config.ssh_keyfile is None or config.ssh_known_hosts is None:
        raise ConfigError("--ssh-user needs --ssh-keyfile and --ssh-known-hosts: no host key is learned on first use")
    try:
        credentials = Credentials.read(config.ssh_user, config.ssh_keyfile, config.ssh_known_hosts, config.ssh_port)
    except InvalidCredentials as error:
        raise ConfigError(f"--ssh-keyfile, --ssh-known-hosts: {error}") from error
    log.warning("tunnel.deprecated flag=--ssh-user instead=--egress-selector-config-file")

    def address_of(node: Mapping[str, Any]) -> str:
        return connection_info(node, config.kubelet_preferred_address_types).host

    async def connect(node: str, address: str) -> TunnelConnection:
        connection = await credentials.connect(node, address)
        entry = ledger.record(source=ME, target=join_host_port(address, credentials.port), purpose="SSH tunnel",
                              credentials=f"SSH key of {credentials.user}")  # fmt: skip
        entry.secured(connection, "SSH-2.0", connection.cipher, str(credentials.known_hosts))
        return connection

    await nodes.start()
    async with Tunnels.open(connect, address_of) as tunnels:
        follow(nodes, tunnels)
        health.add(Check("ssh-tunnels", tunnels.health), ready_only=True)
        tunnels.show(metrics)
        yield tunnels


def follow(nodes: WatchCache, tunnels: Tunnels) -> None:
    """Keep the tunnels in step with the Node objects, from now on."""

    def changed(change: Change | None) -> None:
        if change is None:
            tunnels.replace([item.decode() for item in nodes.list(None).items] if nodes.ready else [])
        elif change.current is not None:
            tunnels.put(change.current.decode())
        elif change.previous is not None:
            tunnels.remove(change.previous.name)

    nodes.observe(changed)
    changed(None)
