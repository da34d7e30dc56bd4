"""Holding back a target's first words until the API server has taken the answer to its dial.

kube-apiserver refuses an HTTP CONNECT answer with anything buffered behind it, and its gRPC client enters a connection
into its table only after DIAL_RSP was handed over; a target that speaks first (SSH, SMTP, a database) can lose that
race. Where the kernel can tell whether the answer was read, ask it; else wait HOLD. Who speaks first himself releases
at once, so TLS clients, which are nearly all, never wait.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable

from wire.protocol.konnectivity import Buffer

HOLD = 0.01
LOOK_AGAIN = 0.001
PATIENCE = 1.0  # a client that does not read its answer for so long has other troubles


class Greeting:
    """Bytes and an end that wait. `deliver` gets them, `end` the EOF or close behind them."""

    __slots__ = ("_deliver", "_end", "_looks", "_sock", "_timer", "_waiting", "is_over")

    def __init__(self, deliver: Callable[[Buffer], None], sock: socket.socket | None) -> None:
        self.is_over = False
        self._deliver = deliver
        self._sock = sock if sock is not None and sock.family == socket.AF_UNIX else None
        self._waiting: list[Buffer] = []
        self._end: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looks = 0

    def hold(self, data: Buffer) -> None:
        self._waiting.append(data)
        self._start()

    def hold_end(self, end: Callable[[], None]) -> None:
        """Run `end` behind what waits; if nothing waits, now."""
        if self._waiting:
            self._end = end
        else:
            self.is_over = True
            end()

    def release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.is_over:
            return
        self.is_over = True
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._deliver(data)
        if self._end is not None:
            self._end()

    def discard(self) -> None:
        self.is_over = True
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _start(self) -> None:
        if self._timer is None:
            delay = LOOK_AGAIN if self._sock is not None else HOLD
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        self._timer = None
        self._looks += 1
        if self._sock is None or self._looks * LOOK_AGAIN > PATIENCE or _unread(self._sock) == 0:
            self.release()
        else:
            self._start()


def _unread(sock: socket.socket) -> int:
    """Bytes written to a UNIX socket that its peer has not read (SIOCOUTQ)."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0
