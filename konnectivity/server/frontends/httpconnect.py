"""The HTTP CONNECT front: one socket per connection, over a UNIX socket or TCP with mTLS.

Job: read the head, ask for the dial, answer, then be the socket leg of the connection. Neighbours: `protocol.connect`
(the dialect), `dials`. Rule: 200 only after the agent's answer; nothing of the target before the client can have read
it; nothing the client sent early is lost.

A UNIX client that closes and one that only says EOF look alike to `read`; POLLHUP tells them apart (`_is_gone`), and a
half-closed one is looked at again until the connection ends, so that a client that left is not kept for ever.
"""

import asyncio
import logging
import select
import socket
from collections.abc import Callable
from enum import Enum, auto

from konnectivity.deadlines import Deadlines
from konnectivity.dialerrors import reason_text, status_of, type_name
from konnectivity.greeting import Greeting
from konnectivity.legs import NOBODY, SocketLeg, join
from konnectivity.link import LinkLeg
from konnectivity.protocol.connect import ESTABLISHED, BadRequest, parse_connect, refusal
from konnectivity.server.dials import Dial, DialDesk
from wire.errors import DialError, NoTunnel
from wire.protocol.konnectivity import Buffer

HEAD_TIMEOUT = 60.0  # upstream's header timeout on this port
MAX_EARLY = 64 << 10  # bytes kept while the dial runs; then reading pauses
MAX_STALL = 60.0  # a client that left while its target takes nothing is kept so long for its last bytes
LOOK_FOR_HANGUP = (0.05, 2.0)  # seconds between looks at a half-closed client: first, longest

_log = logging.getLogger("konnectivity.front")


class State(Enum):
    READING_HEAD = auto()
    DIALLING = auto()
    RELAYING = auto()
    ENDED = auto()


class ConnectService:
    """Everything behind the CONNECT front."""

    def __init__(
        self, desk: DialDesk, on_ended: Callable[[float], None], observe_write: Callable[[float], None]
    ) -> None:
        self.desk = desk
        self.on_ended = on_ended
        self.observe_write = observe_write
        self.loop = asyncio.get_running_loop()
        self.fronts: set[ConnectFront] = set()
        self.heads: Deadlines[ConnectFront] = Deadlines(HEAD_TIMEOUT, ConnectFront.on_head_timeout)
        self.stalls: Deadlines[ConnectFront] = Deadlines(MAX_STALL, ConnectFront.on_stall)

    def __call__(self) -> "ConnectFront":
        return ConnectFront(self)

    def close(self, reason: str) -> None:
        """The server ends: every client sees its connection end now."""
        self.heads.stop()
        self.stalls.stop()
        for front in list(self.fronts):
            front.abort(reason)


class ConnectFront(SocketLeg):
    """One client of the CONNECT port."""

    def __init__(self, service: ConnectService) -> None:
        super().__init__()
        self.state = State.READING_HEAD
        self.address = ""
        self._service = service
        self._received = bytearray()
        self._dial: Dial | None = None
        self._greeting: Greeting | None = None
        self._hangup_timer: asyncio.TimerHandle | None = None
        self._established = 0.0
        self._stalled_at = 0.0  # since when the client takes no more

    def __repr__(self) -> str:
        return f"<ConnectFront {self.address or '?'} {self.state.name}>"

    # ------------------------------------------------------------ from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._service.fronts.add(self)
        self._service.heads.add(self)

    def data_received(self, data: bytes) -> None:
        if self.state is State.RELAYING:
            if self._greeting is not None:
                self._end_greeting()
            self.peer.send(data)
        elif self.state is State.READING_HEAD:
            self._received += data
            self._read_head()
        else:
            self._received += data
            if len(self._received) >= MAX_EARLY:
                self.transport.pause_reading()

    def eof_received(self) -> bool:
        if self.state is State.READING_HEAD or (self.state is State.DIALLING and self._is_gone()):
            self.close()
            return False
        if self.state is State.DIALLING:
            self.has_their_eof = True  # told to the target once there is one
            self._watch_for_hangup(LOOK_FOR_HANGUP[0])
            return True
        if self._is_gone():
            self.has_their_eof = True
            self.peer.close()
            self.close()
            return False
        if super().eof_received():
            self._watch_for_hangup(LOOK_FOR_HANGUP[0])
            return True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._service.fronts.discard(self)
        self._service.heads.discard(self)
        self._service.stalls.discard(self)
        if self._hangup_timer is not None:
            self._hangup_timer.cancel()
        if self._greeting is not None:
            self._greeting.discard()
        if self.state is State.DIALLING and self._dial is not None:
            self._dial.cancel()
        if self.state is State.RELAYING:
            self._service.on_ended(self._service.loop.time() - self._established)
        self.state = State.ENDED

    # ------------------------------------------------------------ request and answer

    def _read_head(self) -> None:
        try:
            request = parse_connect(bytes(self._received))
        except BadRequest as error:
            _log.warning("connect.refused status=%d reason=%r", error.status, str(error))
            self._refuse(refusal(error.status, str(error)))
            return
        if request is None:
            return
        self._service.heads.discard(self)
        self._received = bytearray(request.early)
        self.address = request.address
        self.state = State.DIALLING
        dial = self._service.desk.dial(request.address, self)
        if self.state is State.DIALLING:
            self._dial = dial

    def on_dialled(self, leg: LinkLeg) -> None:
        self.state, self._dial, self._established = State.RELAYING, None, self._service.loop.time()
        self.transport.write(ESTABLISHED)
        if self.is_closing:
            leg.close()
            return
        join(self, leg)
        if self._received:
            leg.send(bytes(self._received))
        elif not self.has_their_eof:
            self._greeting = Greeting(super().send, self.transport.get_extra_info("socket"))
        if len(self._received) >= MAX_EARLY:
            self.transport.resume_reading()
        self._received.clear()
        if self.has_their_eof:
            leg.send_eof()

    def on_dial_failed(self, error: DialError) -> None:
        self._dial = None
        text = error.reason
        if isinstance(error, NoTunnel):
            text = f"currently no tunnels available: {error.reason}"
        _log.info("dial.failed address=%s type=%s reason=%r", self.address, type_name(error), error.reason)
        self._refuse(refusal(status_of(error), text or reason_text(error), type_name(error)))

    def _refuse(self, answer: bytes) -> None:
        self.state = State.ENDED
        if not self.is_closing:
            self.transport.write(answer)
            self.close()

    def on_head_timeout(self) -> None:
        if self.state is State.READING_HEAD:
            _log.info("connect.refused reason='no request head within %d s'", HEAD_TIMEOUT)
            self.close()

    # ------------------------------------------------------------ from the peer

    def send(self, data: Buffer) -> None:
        if self._greeting is not None:
            self._greeting.hold(data)
            if self._greeting.is_over:
                self._greeting = None
        else:
            super().send(data)
            if not self._stalled_at:
                self._service.observe_write(0.0)

    def pause_writing(self) -> None:
        self._stalled_at = self._service.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._service.observe_write(self._service.loop.time() - self._stalled_at)
        self._stalled_at = 0.0
        super().resume_writing()

    def send_eof(self) -> None:
        if self._greeting is not None and not self._greeting.is_over:
            self._greeting.hold_end(super().send_eof)
        else:
            super().send_eof()

    def close(self) -> None:
        if self._greeting is not None and not self._greeting.is_over and not self.has_their_eof:
            self._greeting.hold_end(super().close)
        else:
            super().close()

    def pause(self) -> None:
        super().pause()
        self._service.stalls.add(self)

    def resume(self) -> None:
        self._service.stalls.discard(self)
        super().resume()

    def on_stall(self) -> None:
        """Paused for long: the EOF of a client that left cannot be read behind the bytes nobody takes."""
        if not self._is_gone():
            self._service.stalls.add(self)
            return
        peer, self.peer = self.peer, NOBODY
        peer.abort("the client left and the target takes nothing")
        self.abort("the target takes nothing")

    def _end_greeting(self) -> None:
        greeting, self._greeting = self._greeting, None
        if greeting is not None:
            greeting.release()

    # ------------------------------------------------------------ hang-up

    def _is_gone(self) -> bool:
        """The client has closed, not only said EOF. On TCP one cannot know (and TLS has no half-close)."""
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        return any(mask & (select.POLLHUP | select.POLLERR) for _, mask in poll.poll(0))

    def _watch_for_hangup(self, delay: float) -> None:
        if self._hangup_timer is not None:
            self._hangup_timer.cancel()
        self._hangup_timer = asyncio.get_running_loop().call_later(delay, self._look_for_hangup, delay)

    def _look_for_hangup(self, delay: float) -> None:
        if self.state is State.ENDED or self.is_closing:
            return
        if not self._is_gone():
            self._watch_for_hangup(min(delay * 2, LOOK_FOR_HANGUP[1]))
            return
        peer, self.peer = self.peer, NOBODY
        peer.close()
        self.close()

