"""Listeners: a UNIX socket in clear, or TCP with TLS, with one protocol object per connection.

Job: accept, shake hands, bound both. I own the listening sockets and the handshakes; a connection owns itself.
Neighbours: `server.server` says what is served. Rule: a peer that cannot finish its handshake is logged once and cut
off after HANDSHAKE_TIMEOUT; it never delays another.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable

from konnectivity.tls import ServerTLS

HANDSHAKE_TIMEOUT = 10.0
MAX_HANDSHAKES = 256  # at once; more wait in the kernel's queue
BACKLOG = 4096

Factory = Callable[[], asyncio.BaseProtocol]
_log = logging.getLogger("konnectivity.listener")


@contextlib.asynccontextmanager
async def listen_unix(path: str, factory: Factory, delete_existing: bool) -> AsyncIterator[None]:
    """Serve a UNIX path, readable and writable for owner and group only, as upstream makes it."""
    if delete_existing:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o007)
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    server = await asyncio.get_running_loop().create_unix_server(factory, sock=sock, backlog=BACKLOG)
    try:
        yield
    finally:
        server.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def bind_tcp(host: str, port: int) -> socket.socket:
    """A listening socket; `host` empty means all addresses, as in Go."""
    sock = socket.create_server((host, port), backlog=BACKLOG)
    sock.setblocking(False)
    return sock


async def serve_tls(sock: socket.socket, tls: ServerTLS, factory: Factory) -> None:
    """Accept and shake hands until cancelled; then close the listening socket."""
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(MAX_HANDSHAKES)
    try:
        async with asyncio.TaskGroup() as handshakes:
            while True:
                await room.acquire()
                try:
                    connection, address = await loop.sock_accept(sock)
                except OSError as error:
                    room.release()
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED):
                        raise
                    # Out of descriptors: nothing to wait for but time.
                    await asyncio.sleep(0.05)
                    continue
                handshakes.create_task(_shake_hands(connection, address, tls, factory, room), name="tls handshake")
    finally:
        sock.close()


async def _shake_hands(
    connection: socket.socket, address: object, tls: ServerTLS, factory: Factory, room: asyncio.Semaphore
) -> None:
    peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "?"
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            factory, connection, ssl=tls.context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT, ssl_shutdown_timeout=2.0
        )
    except (ssl.SSLError, OSError) as error:
        _log.warning("tls.refused peer=%s reason=%r", peer, str(error) or type(error).__name__)
        connection.close()
    finally:
        room.release()
