"""The two legs of a relayed connection, and the leg that is a socket.

Job: what comes in on one leg goes out on the other, with back-pressure and with the way it ended. Whoever joins two
legs gives both away: from then on they end each other. Neighbours: `link` has the leg inside a tunnel,
`server.frontends` those of the API server. Rule: a leg never blocks and never buffers more than its bound; it asks its
peer to pause instead.

    send      bytes from the peer                 pause/resume  stop reading: the other leg is full
    send_eof  the peer will send no more          close         the peer is gone: deliver what came, then end
                                                  abort         ended early: say so as plainly as this leg can
"""

import asyncio
import socket
from typing import Protocol, cast

from wire.protocol.konnectivity import Buffer

WRITE_HIGH = 256 << 10  # buffered towards one socket before its peer is paused
CLOSE_LINGER = 60.0  # seconds for the last bytes to a socket that does not read them


class Leg(Protocol):
    """One end of a connection that is relayed. Lives until both directions ended, or one end was lost."""

    peer: "Leg"

    @property
    def buffered(self) -> int:
        """Bytes taken by `send` that have not left yet."""
        ...

    def send(self, data: Buffer) -> None: ...
    def send_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self, reason: str) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Nobody:
    """The peer of a leg that has none (yet, or any more)."""

    peer: Leg
    buffered = 0

    def send(self, data: Buffer) -> None: ...
    def send_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self, reason: str) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


NOBODY = Nobody()


def join(one: Leg, other: Leg) -> None:
    one.peer, other.peer = other, one


class SocketLeg(asyncio.Protocol):
    """A leg that is a socket (or TLS over one). The event loop's transport owns the socket; this closes it."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.peer: Leg = NOBODY
        self.has_their_eof = False
        self.has_our_eof = False
        self.is_closing = False
        self._linger: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)  # TCP_NODELAY is set by asyncio and by uvloop

    def data_received(self, data: bytes) -> None:
        self.peer.send(data)

    def eof_received(self) -> bool:
        self.has_their_eof = True
        if self.has_our_eof or not self.can_half_close:
            peer, self.peer = self.peer, NOBODY
            self.is_closing = True
            if self.has_our_eof:
                peer.send_eof()
            else:
                peer.close()  # nobody is left here to read
            self._close_transport()
            return False
        self.peer.send_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        peer, self.peer = self.peer, NOBODY
        if self.is_closing:
            return
        self.is_closing = True
        if error is not None:
            peer.abort(f"connection lost: {error}")
        else:
            peer.close()

    def pause_writing(self) -> None:
        self.peer.pause()

    def resume_writing(self) -> None:
        self.peer.resume()

    # ------------------------------------------------------------ from the peer

    @property
    def can_half_close(self) -> bool:
        return self.transport.can_write_eof()

    @property
    def buffered(self) -> int:
        return self.transport.get_write_buffer_size()

    def send(self, data: Buffer) -> None:
        if not self.is_closing and not self.has_our_eof:
            self.transport.write(data)

    def send_eof(self) -> None:
        if self.has_our_eof or self.is_closing:
            return
        self.has_our_eof = True
        if self.has_their_eof or not self.can_half_close:
            self.close()
        else:
            self.transport.write_eof()

    def close(self) -> None:
        if not self.is_closing:
            self.is_closing = True
            self.peer = NOBODY
            self._close_transport()

    def abort(self, reason: str) -> None:
        """TCP says RST, TLS ends without close_notify. A UNIX socket has no such word: it just ends."""
        if not self.is_closing:
            self.is_closing = True
            self.peer = NOBODY
            _reset_on_close(self.transport)
            self.transport.abort()

    def pause(self) -> None:
        if not self.is_closing:
            self.transport.pause_reading()

    def resume(self) -> None:
        if not self.is_closing:
            self.transport.resume_reading()

    def _close_transport(self) -> None:
        is_writing = self.transport.get_write_buffer_size() > 0  # asyncio's TLS transport has no answer once closed
        self.transport.close()
        if is_writing:
            # The last bytes may take their time, but not for ever.
            self._linger = asyncio.get_running_loop().call_later(CLOSE_LINGER, self.transport.abort)


def _reset_on_close(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
