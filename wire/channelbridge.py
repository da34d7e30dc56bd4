"""A socket joined to a channel of a multiplexed connection.

Channels here speak asyncio's own words (`write`, `write_eof`, `pause_reading`, …), as asyncssh's do; no library is
named. Bytes go over without a task and with bounded buffers: what one side cannot take pauses the other's reading. A
half-close crosses; an end that was not announced is a reset on the other side, never a silent end. I own socket and
channel from `ChannelBridge.attach` on and end both.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol

from wire.net import keep_alive

HIGH_WATER = 256 * 1024
LINGER_RESET = struct.pack("ii", 1, 0)  # closing sends RST instead of FIN (socket(7), SO_LINGER)


class Channel(Protocol):
    """What I need of a channel."""

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class ChannelBridge:
    """One dialled connection. Lives from the dial until both directions have ended or either side broke."""

    def __init__(self, on_end: Callable[[], None] | None = None) -> None:
        self.socket_side = _SocketSide(self)
        self.channel_side = _ChannelSide(self)
        self._transport: asyncio.Transport | None = None
        self._channel: Channel | None = None
        self._early: list[bytes] = []
        self._on_end = on_end
        self._sent_eof = False
        self._received_eof = False
        self._ended = False

    async def attach(self, sock: socket.socket) -> None:
        """Take the socket over. What comes before there is a channel is kept for it."""
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.socket_side, sock=sock)
        except BaseException:
            sock.close()
            raise

    # -- the socket's side

    def socket_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        transport.pause_reading()

    def socket_data(self, data: bytes) -> None:
        if self._channel is not None:
            self._channel.write(data)
        elif self._transport is not None and not self._ended:
            # uvloop begins to read after connection_made, whatever that has said.
            self._early.append(data)
            self._transport.pause_reading()

    def socket_ended(self) -> None:
        """Its peer will send no more; it may still read."""
        self._sent_eof = True
        if self._channel is not None:
            self._channel.write_eof()
        self._end_if_done()

    def socket_lost(self) -> None:
        self._transport = None
        self.abort()

    # -- the channel's side

    def channel_made(self, channel: Channel) -> None:
        if self._ended:
            channel.abort()
            return
        self._channel = channel
        channel.set_write_buffer_limits(high=HIGH_WATER)
        if self._transport is not None:
            self._transport.resume_reading()
        early, self._early = self._early, []
        for data in early:
            channel.write(data)
        if self._sent_eof:
            channel.write_eof()

    def channel_ended(self) -> None:
        self._received_eof = True
        if self._transport is not None:
            self._transport.write_eof()
        self._end_if_done()

    def channel_lost(self, error: BaseException | None) -> None:
        self._channel = None
        if error is None and self._received_eof:
            self._end()
        else:
            self.abort()

    # -- both

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._transport

    @property
    def channel(self) -> Channel | None:
        return self._channel

    def _end_if_done(self) -> None:
        if self._sent_eof and self._received_eof:
            self._end()

    def _end(self) -> None:
        """Both sides are closed once their buffers are empty."""
        self._finish()
        if self._channel is not None:
            self._channel.close()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """An early end: both sides see a reset."""
        self._finish()
        channel, self._channel = self._channel, None
        transport, self._transport = self._transport, None
        if channel is not None:
            channel.abort()
        if transport is not None:
            reset(transport)

    def _finish(self) -> None:
        if not self._ended:
            self._ended = True
            if self._on_end is not None:
                self._on_end()


class _SocketSide(asyncio.Protocol):
    def __init__(self, bridge: ChannelBridge) -> None:
        self._bridge = bridge

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._bridge.socket_made(transport)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._bridge.socket_data(data)

    def eof_received(self) -> bool:
        self._bridge.socket_ended()
        return True

    def pause_writing(self) -> None:
        if (channel := self._bridge.channel) is not None:
            channel.pause_reading()

    def resume_writing(self) -> None:
        if (channel := self._bridge.channel) is not None:
            channel.resume_reading()

    def connection_lost(self, error: BaseException | None) -> None:
        self._bridge.socket_lost()


class _ChannelSide:
    """A session, in asyncssh's sense."""

    def __init__(self, bridge: ChannelBridge) -> None:
        self._bridge = bridge

    def connection_made(self, channel: Channel) -> None:
        self._bridge.channel_made(channel)

    def session_started(self) -> None:
        return None

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        if (transport := self._bridge.transport) is not None:
            transport.write(data)

    def eof_received(self) -> bool:
        self._bridge.channel_ended()
        return True

    def pause_writing(self) -> None:
        if (transport := self._bridge.transport) is not None:
            transport.pause_reading()

    def resume_writing(self) -> None:
        if (transport := self._bridge.transport) is not None:
            transport.resume_reading()

    def connection_lost(self, error: BaseException | None) -> None:
        self._bridge.channel_lost(error)


def reset(transport: asyncio.Transport) -> None:
    """End a TCP connection so that its peer sees a reset."""
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    transport.abort()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking sockets over loopback.

    TCP, not a socketpair: only TCP has a reset, by which the reader tells a broken tunnel from the end; and a
    keepalive probe is how one end learns that the other was closed after a half-close.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        ours = socket.socket()
        try:
            ours.connect(listener.getsockname())
            listener.setblocking(False)
            while True:
                theirs, peer = listener.accept()
                if peer == ours.getsockname():
                    break
                theirs.close()  # a stranger on this machine was quicker
        except BaseException:
            ours.close()
            raise
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(theirs)
    return ours, theirs
