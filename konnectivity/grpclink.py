"""One HTTP/2 connection that carries gRPC calls: the asyncio side of `protocol.grpc`.

Job: move bytes between a transport and a GRPCConnection, hand events to whoever owns the call, keep the connection
alive and notice when it is not. Neighbours: `link` (an agent's Connect call), `server.frontends.proxyservice` (Proxy
calls). Rule: nothing here waits; what one arrival causes is written at once behind it, and `is_congested` says when to
stop asking for more.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

from konnectivity.protocol.grpc import GRPCConnection
from konnectivity.protocol.grpcevents import (
    CallAccepted,
    CallEnded,
    CallOpened,
    CallWritable,
    Event,
    GoingAway,
    Message,
    Metadata,
    PingAcked,
)
from wire.errors import PeerProtocolError
from wire.protocol.konnectivity import Buffer

FLUSH_AT = 128 << 10  # write before the turn ends when this much has gathered
WRITE_HIGH = 256 << 10
BUSY = 0.0002  # seconds between two flushes below which writes are gathered
READ_SIZE = 256 << 10
POSTPONED = 0.001  # seconds that a message nobody waits for may wait for company

_log = logging.getLogger("konnectivity.grpc")


class Call(Protocol):
    """Who owns one call of a connection."""

    def on_accepted(self, metadata: Metadata) -> None: ...
    def on_message(self, message: Message) -> None: ...
    def on_ended(self, status: int, text: str) -> None: ...
    def on_writable(self) -> None: ...


OpenCall = Callable[["GRPCLink", CallOpened], Call | None]


class GRPCLink(asyncio.BufferedProtocol):
    """A connection and the owners of its calls. `closed` is done when it is over; every call has been told then.

    Buffered, because a TLS transport else makes an object of READ_SIZE for every record, three system calls each.
    """

    transport: asyncio.Transport

    def __init__(
        self, connection: GRPCConnection, open_call: OpenCall | None = None, links: "set[GRPCLink] | None" = None
    ) -> None:
        """`links` holds this link from the end of its handshake until it is closed."""
        self.connection = connection
        self._links = links if links is not None else set()
        self.calls: dict[int, Call] = {}
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.is_going_away = False
        self._open_call = open_call
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._is_paused = False
        self._is_dispatching = False
        self._is_flush_due = False
        self._flushed_at = 0.0
        self._postponed: list[tuple[int, Buffer]] = []  # messages that go behind whatever goes next
        self._is_postponed_due = False
        self._last_heard = self._loop.time()
        self._pinged_at = 0.0
        self._pings = 0
        self._reason = "closed by the peer"
        self.bytes_in = self.bytes_out = 0  # TLS not counted
        self.error: str | None = None  # why it ended, if not by anybody's will

    def __repr__(self) -> str:
        return f"<GRPCLink {self.peername} calls={len(self.calls)}{' closed' if self.closed.done() else ''}>"

    @property
    def peername(self) -> str:
        name = self.transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"

    def get_extra_info(self, name: str) -> Any:
        return self.transport.get_extra_info(name)

    def when_closed(self, callback: Callable[[], None]) -> None:
        self.closed.add_done_callback(lambda _: callback())

    # ------------------------------------------------------------ from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._links.add(self)
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._last_heard = self._loop.time()
        self.bytes_in += nbytes
        try:
            # A copy: what arrives is kept (by sockets that take it later) and the buffer is used again.
            events = self.connection.receive(bytes(self._buffer[:nbytes]))
            self._is_dispatching = True
            for event in events:
                self._dispatch(event)
        except PeerProtocolError as error:
            _log.warning("peer.broken peer=%s reason=%r", self.peername, str(error))
            self.close(str(error))
        finally:
            self._is_dispatching = False
            if self.connection.output_pieces:
                self.flush()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and self._reason == "closed by the peer":
            self._reason = self.error = f"connection lost: {error}"
        self._links.discard(self)
        calls, self.calls = list(self.calls.values()), {}
        for call in calls:
            call.on_ended(-1, self._reason)
        if not self.closed.done():
            self.closed.set_result(self._reason)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        for call in list(self.calls.values()):
            call.on_writable()
        self.flush()

    # ------------------------------------------------------------ events

    def _dispatch(self, event: Event) -> None:
        match event:
            case Message(call_id):
                if call := self.calls.get(call_id):
                    call.on_message(event)
            case CallWritable(call_id):
                if call := self.calls.get(call_id):
                    call.on_writable()
            case CallOpened(call_id):
                opened = self._open_call(self, event) if self._open_call is not None else None
                if opened is not None:
                    self.calls[call_id] = opened
            case CallAccepted(call_id, metadata):
                if call := self.calls.get(call_id):
                    call.on_accepted(metadata)
            case CallEnded(call_id, status, text):
                if call := self.calls.pop(call_id, None):
                    call.on_ended(status, text)
            case GoingAway(code=code, debug=debug):
                self.is_going_away = True
                _log.info("peer.goaway peer=%s code=%d debug=%r", self.peername, code, debug)
            case PingAcked():
                pass  # any byte heard is a sign of life, see `data_received`

    # ------------------------------------------------------------ from the owners of calls

    @property
    def is_congested(self) -> bool:
        return self._is_paused

    def open_call(self, call: Call, path: str, metadata: Metadata) -> int:
        call_id = self.connection.open_call(path, "localhost", metadata)
        self.calls[call_id] = call
        self.flush_soon()
        return call_id

    def send(self, call_id: int, *parts: Buffer) -> bool:
        """Send a message; False if some of it waits for the peer's window."""
        written = self.connection.send_message(call_id, *parts)
        if self.connection.output_size >= FLUSH_AT:
            self.flush()
        else:
            self.flush_soon()
        return written

    def postpone(self, call_id: int, message: Buffer) -> None:
        """Send a message that nobody waits for behind the next one, or after POSTPONED: two in one TLS record wake the
        peer once, and the one that somebody waits for is read first."""
        self._postponed.append((call_id, message))
        if not self._is_postponed_due:
            self._is_postponed_due = True
            self._loop.call_later(POSTPONED, self._flush_postponed)

    def _flush_postponed(self) -> None:
        self._is_postponed_due = False
        self.flush()

    def _send_postponed(self) -> None:
        postponed, self._postponed = self._postponed, []
        for call_id, message in postponed:
            self.connection.send_message(call_id, message)

    def end_call(self, call_id: int, status: int = 0, text: str = "") -> None:
        """Our last word on a call, behind what is queued. Its owner hears nothing more."""
        self.calls.pop(call_id, None)
        self._send_postponed()
        self.connection.end_call(call_id, status, text)
        self.flush_soon()

    def drop_call(self, call_id: int) -> None:
        self.calls.pop(call_id, None)
        self.connection.reset_call(call_id)
        self.flush_soon()

    def flush_soon(self) -> None:
        """Behind the events being dispatched; else now, for another turn of the loop is another epoll; but at the end
        of the turn if there was a flush just before: whoever writes that often is better served by batches."""
        if self._is_dispatching or self._is_flush_due:
            return
        if time.monotonic() - self._flushed_at > BUSY:
            self.flush()
        else:
            self._is_flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        self._is_flush_due = False
        if self._postponed:
            self._send_postponed()
        if self.connection.output_pieces and not self.transport.is_closing():
            self._flushed_at = time.monotonic()
            pieces = self.connection.take_output()
            self.bytes_out += sum(map(len, pieces))
            self.transport.writelines(pieces)

    def close(self, reason: str = "closed here") -> None:
        """Write what is due, then close. Idempotent."""
        if not self.transport.is_closing():
            self._reason = reason
            self.flush()
            self.transport.close()
            # A peer that reads nothing cannot keep the connection: its last bytes are worth a moment, not more.
            self._loop.call_later(2.0, self.transport.abort)

    # ------------------------------------------------------------ life

    def look(self, interval: float, timeout: float) -> float:
        """Ping a peer that was silent for `interval`, cut it off after `timeout` more; when to look again, in s."""
        silent = self._loop.time() - self._last_heard
        if silent < interval:
            return interval - silent + 0.001
        if silent >= interval + timeout:
            self._reason = self.error = f"keepalive: nothing heard for {silent:.0f} s"
            self.transport.abort()
            return timeout
        if self._pinged_at < self._last_heard:
            self._pinged_at = self._loop.time()
            self._pings += 1
            self.connection.ping(self._pings.to_bytes(8, "big"))
            self.flush()
        return interval + timeout - silent + 0.001

    async def keep_alive(self, interval: float, timeout: float) -> None:
        """`look` until closed."""
        while not self.closed.done():
            await asyncio.wait([self.closed], timeout=self.look(interval, timeout))
