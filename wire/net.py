"""Sockets before they become streams: dial TCP, dial a UNIX path.

I return connected, non-blocking sockets and typed errors (`wire.errors`); whoever asked owns the socket.
"""

import asyncio
import contextlib
import socket
import struct

from wire.errors import DialError, dial_error

DIAL_TIMEOUT = 30.0  # net.Dialer in upstream's transports


async def dial_tcp(host: str, port: int, *, timeout: float = DIAL_TIMEOUT, via: str = "direct") -> socket.socket:
    """A connected socket to `host:port`, trying each address in turn. Raises DialError."""
    address = join_host_port(host, port)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            last: DialError | None = None
            for family, kind, proto, _, sockaddr in found:
                try:
                    return await _connect(family, kind, proto, sockaddr)
                except OSError as error:
                    last = dial_error(address, via, error)
    except (OSError, TimeoutError) as error:
        raise dial_error(address, via, error) from error
    raise last or DialError(address, via, "no addresses")


async def _connect(family: int, kind: int, proto: int, sockaddr: object) -> socket.socket:
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(sock)
        await asyncio.get_running_loop().sock_connect(sock, sockaddr)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock


async def dial_unix(path: str, *, timeout: float = DIAL_TIMEOUT) -> socket.socket:
    """A connected socket to a UNIX path. Raises DialError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(sock, path)
    except (OSError, TimeoutError) as error:
        sock.close()
        raise dial_error(f"unix:{path}", "direct", error) from error
    except BaseException:
        sock.close()
        raise
    return sock


def tcp_bytes(sock: socket.socket) -> tuple[int, int]:
    """Received, and sent and acknowledged, as the kernel counts them (`struct tcp_info`, tcp(7)). Raises OSError."""
    if not hasattr(socket, "TCP_INFO"):
        return 0, 0  # not Linux
    received_after, acknowledged_after = 128, 120  # __u64 tcpi_bytes_received, tcpi_bytes_acked
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, received_after + 8)
    (acknowledged,) = struct.unpack_from("=Q", info, acknowledged_after)
    (received,) = struct.unpack_from("=Q", info, received_after)
    return received, max(0, acknowledged - 1)  # the SYN counts, too


def keep_alive(sock: socket.socket) -> None:
    """Notice a dead peer within a minute (upstream: TCP keepalive 30 s)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def join_host_port(host: str, port: int | str) -> str:
    """`host:port`, with brackets around IPv6, as Go's net.JoinHostPort."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
