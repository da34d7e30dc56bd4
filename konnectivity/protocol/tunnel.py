"""One agent link's connections, without I/O, seen from either end.

Job: packets in, events out; intentions in, packets out: who asked for which dial, which connect ID it became, who has
ended. Owns no socket; `konnectivity.link` moves the bytes. No clock, no randomness: dial ids and the first connect id
are given by the caller. Packets: `wire.protocol.konnectivity`.

Rule: a packet never raises here unless it breaks an agreement of our own two ends (credit); what a real peer may do
out of order (late data, a second close) is answered as upstream answers it.

`extended` is true when both ends are ours: they then also speak EOF, CREDIT and RESET.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from wire.protocol.konnectivity import (
    Buffer,
    CloseDial,
    CloseRequest,
    CloseResponse,
    Credit,
    Data,
    DialRequest,
    DialResponse,
    Drain,
    EndOfFile,
    Packet,
    Reset,
)

MAX_DATA = 64 << 10  # one DATA packet to a real peer; far below gRPC's 4 MiB, large enough to be cheap
MAX_DATA_EXTENDED = 256 << 10  # one to a peer of ours, which takes it as one HTTP/2 frame
# What an extended peer may send ahead on one connection: three times what one read of a UNIX socket gives (219,264
# bytes with Linux's default buffer). All of it may lie in sockets before a neighbour's few bytes: more is their wait.
WINDOW = 672 << 10
UNLIMITED = 1 << 62


class State(Enum):
    OPEN = auto()
    OUR_EOF = auto()  # we have said EOF; they may still send
    THEIR_EOF = auto()
    CLOSING = auto()  # we asked for the close and await the answer; what comes is dropped


class Move(Enum):
    SEND_EOF = auto()
    RECEIVE_EOF = auto()
    SEND_CLOSE = auto()


# A state missing behind a move is the end of the connection. Closes received and resets end any state.
TRANSITIONS: dict[State, dict[Move, State | None]] = {
    State.OPEN: {
        Move.SEND_EOF: State.OUR_EOF,
        Move.RECEIVE_EOF: State.THEIR_EOF,
        Move.SEND_CLOSE: State.CLOSING,
    },
    State.OUR_EOF: {Move.SEND_EOF: State.OUR_EOF, Move.RECEIVE_EOF: None, Move.SEND_CLOSE: State.CLOSING},
    State.THEIR_EOF: {Move.SEND_EOF: None, Move.RECEIVE_EOF: State.THEIR_EOF, Move.SEND_CLOSE: State.CLOSING},
    State.CLOSING: {
        Move.SEND_EOF: State.CLOSING,
        Move.RECEIVE_EOF: State.CLOSING,
        Move.SEND_CLOSE: State.CLOSING,
    },
}


@dataclass(frozen=True, slots=True)
class DialAsked:
    dial_id: int
    address: str


@dataclass(frozen=True, slots=True)
class DialCancelled:
    dial_id: int


@dataclass(frozen=True, slots=True)
class Dialled:
    dial_id: int
    connect_id: int


@dataclass(frozen=True, slots=True)
class DialFailed:
    dial_id: int
    error: str
    error_type: str


@dataclass(frozen=True, slots=True)
class Received:
    connect_id: int
    data: Buffer


@dataclass(frozen=True, slots=True)
class Credited:
    connect_id: int


@dataclass(frozen=True, slots=True)
class TheirEOF:
    connect_id: int


@dataclass(frozen=True, slots=True)
class TheirClose:
    """The connection is over: deliver what came before, then close. With `error` it ended early."""

    connect_id: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Draining:
    pass


Event = DialAsked | DialCancelled | Dialled | DialFailed | Received | Credited | TheirEOF | TheirClose | Draining


@dataclass(slots=True)
class Connection:
    state: State
    credit: int  # bytes we may still send
    window: int  # bytes they may still send
    owed: int = 0  # bytes consumed here and not credited yet


class Tunnel:
    """What both ends of a link share: established connections. Lives as long as the Connect call."""

    def __init__(self, *, extended: bool, window: int = WINDOW) -> None:
        self.extended = extended
        self._window = window if extended else UNLIMITED
        self._max_data = MAX_DATA_EXTENDED if extended else MAX_DATA
        self._worthwhile = min(self._max_data, self._window // 4)
        self._connections: dict[int, Connection] = {}
        self._packets: list[Packet] = []
        self._handlers: dict[type, Callable[..., Event | None]] = {
            Data: self._on_data,
            CloseRequest: self._on_close_request,
            CloseResponse: self._on_close_response,
            Drain: self._on_drain,
        }
        if extended:
            self._handlers |= {EndOfFile: self._on_eof, Credit: self._on_credit, Reset: self._on_reset}

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, connect_id: int) -> bool:
        return connect_id in self._connections

    def receive(self, packet: Packet) -> Event | None:
        """What the packet means, if it means anything. Afterwards send what `take_packets` has."""
        handler = self._handlers.get(type(packet))
        return handler(packet) if handler is not None else None

    @property
    def has_packets(self) -> bool:
        return bool(self._packets)

    def take_packets(self) -> list[Packet]:
        packets, self._packets = self._packets, []
        return packets

    def sendable(self, connect_id: int, wanted: int) -> int:
        """How many of `wanted` bytes the next DATA packet may carry; 0: wait for Credited.

        The last bit of the credit is not worth cutting a piece in two: each costs both ends a turn of their loops.
        More will come, for the peer credits at the half of the window and less than a quarter is left.
        """
        connection = self._connections.get(connect_id)
        if connection is None:
            return 0
        room = min(connection.credit, self._max_data, wanted)
        return room if room == wanted or room >= self._worthwhile else 0

    def count_sent(self, connect_id: int, size: int) -> None:
        connection = self._connections.get(connect_id)
        if connection is not None:
            connection.credit -= size

    def count_consumed(self, connect_id: int, size: int) -> None:
        """`size` received bytes have left our hands: the peer may send as many again."""
        connection = self._connections.get(connect_id)
        if connection is None or not self.extended:
            return
        connection.owed += size
        if connection.owed >= self._window // 2:
            connection.window += connection.owed
            self._packets.append(Credit(connect_id, connection.owed))
            connection.owed = 0

    def send_eof(self, connect_id: int) -> None:
        """No more bytes from us. Only an extended peer can be told; to others the end of one way is `close`."""
        connection = self._connections.get(connect_id)
        if connection is None or connection.state in (State.OUR_EOF, State.CLOSING):
            return
        assert self.extended, "a plain peer has no half-close"
        self._packets.append(EndOfFile(connect_id))
        self._move(connect_id, connection, Move.SEND_EOF)

    def close(self, connect_id: int) -> None:
        """We want nothing more of this connection; the peer delivers what we sent before."""
        connection = self._connections.get(connect_id)
        if connection is not None and connection.state is not State.CLOSING:
            self._packets.append(CloseRequest(connect_id))
            self._move(connect_id, connection, Move.SEND_CLOSE)

    def reset(self, connect_id: int, error: str) -> None:
        """The connection ended early on our side."""
        connection = self._connections.get(connect_id)
        if connection is None:
            return
        if not self.extended:
            self._reset_plain(connect_id, error)
        else:
            del self._connections[connect_id]
            self._packets.append(Reset(connect_id, error))

    def _reset_plain(self, connect_id: int, error: str) -> None:
        self.close(connect_id)

    def _open(self, connect_id: int) -> None:
        self._connections[connect_id] = Connection(State.OPEN, self._window, self._window)

    def _move(self, connect_id: int, connection: Connection, move: Move) -> None:
        after = TRANSITIONS[connection.state][move]
        if after is None:
            del self._connections[connect_id]
        else:
            connection.state = after

    # ------------------------------------------------------------ packets of both directions

    def _on_data(self, packet: Data) -> Event | None:
        connection = self._connections.get(packet.connect_id)
        if connection is None:
            self._packets.append(self._answer_stray_data(packet.connect_id))
            return None
        size = len(packet.data)
        connection.window -= size
        if connection.window < 0:
            self.reset(packet.connect_id, "more data than the credit given")
            return TheirClose(packet.connect_id, "the peer sent more than its credit")
        if connection.state in (State.CLOSING, State.THEIR_EOF) or not size:
            return None
        return Received(packet.connect_id, packet.data)

    def _answer_stray_data(self, connect_id: int) -> Packet:
        raise NotImplementedError

    def _on_eof(self, packet: EndOfFile) -> Event | None:
        connection = self._connections.get(packet.connect_id)
        if connection is None:
            return None
        self._move(packet.connect_id, connection, Move.RECEIVE_EOF)
        return TheirEOF(packet.connect_id)

    def _on_credit(self, packet: Credit) -> Event | None:
        connection = self._connections.get(packet.connect_id)
        if connection is None or packet.size <= 0:
            return None
        connection.credit = min(connection.credit + packet.size, UNLIMITED)
        return Credited(packet.connect_id)

    def _on_reset(self, packet: Reset) -> Event | None:
        if self._connections.pop(packet.connect_id, None) is None:
            return None
        return TheirClose(packet.connect_id, packet.error or "reset by the peer")

    def _on_close_request(self, packet: CloseRequest) -> Event | None:
        known = self._connections.pop(packet.connect_id, None) is not None
        self._packets.append(CloseResponse(packet.connect_id, "" if known else "Unknown connectID"))
        return TheirClose(packet.connect_id) if known else None

    def _on_close_response(self, packet: CloseResponse) -> Event | None:
        if self._connections.pop(packet.connect_id, None) is None:
            return None
        return TheirClose(packet.connect_id, packet.error)

    def _on_drain(self, packet: Drain) -> Event | None:
        return Draining()


class ServerTunnel(Tunnel):
    """The server's end: asks for dials."""

    def __init__(self, *, extended: bool, window: int = WINDOW) -> None:
        super().__init__(extended=extended, window=window)
        self._pending: set[int] = set()
        self._handlers[DialResponse] = self._on_dial_response

    @property
    def pending_dials(self) -> int:
        return len(self._pending)

    def dial(self, dial_id: int, address: str) -> None:
        self._pending.add(dial_id)
        self._packets.append(DialRequest(address, dial_id))

    def cancel(self, dial_id: int) -> None:
        """Give a dial up. A real agent ignores this; its late answer is then closed (see `_on_dial_response`)."""
        if dial_id in self._pending:
            self._pending.discard(dial_id)
            self._packets.append(CloseDial(dial_id))

    def _on_dial_response(self, packet: DialResponse) -> Event | None:
        if packet.dial_id not in self._pending:
            if packet.connect_id and not packet.error and packet.connect_id not in self._connections:
                self._packets.append(CloseRequest(packet.connect_id))
            return None
        self._pending.discard(packet.dial_id)
        if packet.error:
            return DialFailed(packet.dial_id, packet.error, packet.error_type)
        if packet.connect_id in self._connections or packet.connect_id == 0:
            return DialFailed(packet.dial_id, f"agent answered with connect id {packet.connect_id}", "")
        self._open(packet.connect_id)
        return Dialled(packet.dial_id, packet.connect_id)

    def _answer_stray_data(self, connect_id: int) -> Packet:
        return CloseRequest(connect_id)


class AgentTunnel(Tunnel):
    """The agent's end: is asked for dials and numbers what it dialled."""

    def __init__(self, *, extended: bool, first_connect_id: int, window: int = WINDOW) -> None:
        super().__init__(extended=extended, window=window)
        self._next_connect_id = first_connect_id
        self._dialling: set[int] = set()
        self._handlers |= {DialRequest: self._on_dial_request, CloseDial: self._on_close_dial}

    def answer_dial(self, dial_id: int) -> int | None:
        """The dial succeeded: its connect id, or None if nobody waits for it any more."""
        if dial_id not in self._dialling:
            return None
        self._dialling.discard(dial_id)
        connect_id = self._next_connect_id
        self._next_connect_id += 1
        self._open(connect_id)
        self._packets.append(DialResponse(dial_id, connect_id))
        return connect_id

    def refuse_dial(self, dial_id: int, error: str, error_type: str) -> None:
        if dial_id in self._dialling:
            self._dialling.discard(dial_id)
            self._packets.append(DialResponse(dial_id, 0, error, error_type if self.extended else ""))

    def drain(self) -> None:
        self._packets.append(Drain())

    def finish(self, connect_id: int, error: str = "") -> None:
        """The target has ended and all its bytes are sent: the close of a plain peer, which needs no request."""
        if self._connections.pop(connect_id, None) is not None:
            self._packets.append(CloseResponse(connect_id, error))

    def _reset_plain(self, connect_id: int, error: str) -> None:
        self.finish(connect_id, error)

    def _on_dial_request(self, packet: DialRequest) -> Event | None:
        if packet.dial_id in self._dialling:
            return None  # the first of two equal ids is being dialled already
        self._dialling.add(packet.dial_id)
        return DialAsked(packet.dial_id, packet.address)

    def _on_close_dial(self, packet: CloseDial) -> Event | None:
        if packet.dial_id not in self._dialling:
            return None
        self._dialling.discard(packet.dial_id)
        return DialCancelled(packet.dial_id)

    def _answer_stray_data(self, connect_id: int) -> Packet:
        return CloseResponse(connect_id, "unrecognized connectID")
