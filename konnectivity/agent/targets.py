"""The sockets an agent opens for its servers.

Job: dial what was asked for, and be the socket leg of it. Neighbours: `serverlink` asks. Rule: the connection is joined
to its tunnel in the moment it is made, so that not a byte of a target that speaks first is lost.
"""

import asyncio
from collections.abc import Callable

from konnectivity.dialerrors import from_os_error
from konnectivity.greeting import Greeting
from konnectivity.legs import SocketLeg
from wire.errors import DialError
from wire.protocol.konnectivity import Buffer

DIAL_TIMEOUT = 5.0  # upstream's agent's


class Target(SocketLeg):
    """A connection to a target. `on_made` joins it; `holds_greeting` for servers that lose a race (see `greeting`)."""

    def __init__(self, on_made: Callable[["Target"], None], holds_greeting: bool) -> None:
        super().__init__()
        self._on_made = on_made
        self._greeting: Greeting | None = Greeting(self._pass_on, None) if holds_greeting else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._on_made(self)

    def _pass_on(self, data: Buffer) -> None:
        self.peer.send(data)

    def data_received(self, data: bytes) -> None:
        if self._greeting is None or self._greeting.is_over:
            self.peer.send(data)
        else:
            self._greeting.hold(data)

    def send(self, data: Buffer) -> None:
        if self._greeting is not None:
            greeting, self._greeting = self._greeting, None
            greeting.release()
        super().send(data)

    def eof_received(self) -> bool:
        if self._greeting is not None:
            self._greeting.release()
        return super().eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        if self._greeting is not None:
            self._greeting.release()
        super().connection_lost(error)


def split_address(address: str) -> tuple[str, int]:
    """Raises DialError for what is no `host:port`."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536 or "\0" in host:
        raise DialError(address[:300], "agent", "address is not host:port")
    return host, int(port)


async def dial_target(address: str, on_made: Callable[[Target], None], holds_greeting: bool) -> None:
    """Connect to `address` and hand it to `on_made`. Raises DialError. Who calls keeps the time (DIAL_TIMEOUT)."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(lambda: Target(on_made, holds_greeting), host, port)
    except (OSError, UnicodeError) as error:
        if isinstance(error, UnicodeError):
            raise DialError(address[:300], "agent", "host name is not valid") from error
        raise from_os_error(address, error) from error
