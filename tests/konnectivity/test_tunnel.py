"""One link's connections, sans-IO, as server and as agent, towards a peer of ours and a plain one."""

import pytest

from konnectivity.protocol.tunnel import (
    MAX_DATA,
    MAX_DATA_EXTENDED,
    WINDOW,
    AgentTunnel,
    Credited,
    DialAsked,
    DialCancelled,
    DialFailed,
    Dialled,
    Event,
    Received,
    ServerTunnel,
    TheirClose,
    TheirEOF,
    Tunnel,
)
from wire.protocol.konnectivity import (
    CloseRequest,
    CloseResponse,
    Credit,
    Data,
    DialRequest,
    DialResponse,
    EndOfFile,
    Packet,
    Unknown,
)


class Pair:
    """Both ends of a link, with one connection open after `dial`."""

    def __init__(self, extended: bool) -> None:
        self.server = ServerTunnel(extended=extended)
        self.agent = AgentTunnel(extended=extended, first_connect_id=100)
        self.server_events: list[Event] = []
        self.agent_events: list[Event] = []

    def exchange(self) -> list[Packet]:
        seen: list[Packet] = []
        while True:
            down, up = self.server.take_packets(), self.agent.take_packets()
            if not down and not up:
                return seen
            seen += down + up
            self.agent_events += [event for packet in down if (event := self.agent.receive(packet))]
            self.server_events += [event for packet in up if (event := self.server.receive(packet))]

    def dial(self) -> int:
        self.server.dial(5, "10.0.0.1:80")
        self.exchange()
        connect_id = self.agent.answer_dial(5)
        assert connect_id is not None
        self.exchange()
        return connect_id

    def is_empty(self) -> bool:
        return not len(self.server) and not len(self.agent) and not self.server.pending_dials


@pytest.fixture(params=[True, False], ids=["extended", "plain"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


def test_a_dial_becomes_a_connection(pair: Pair) -> None:
    assert pair.dial() == 100
    assert pair.agent_events == [DialAsked(5, "10.0.0.1:80")]
    assert pair.server_events == [Dialled(5, 100)]


@pytest.mark.parametrize(("extended", "kind"), [(True, "DialRefused"), (False, "")])
def test_a_failed_dial_keeps_its_type_towards_our_own_server(extended: bool, kind: str) -> None:
    pair = Pair(extended)
    pair.server.dial(5, "a:1")
    pair.exchange()
    pair.agent.refuse_dial(5, "connection refused", "DialRefused")
    pair.exchange()
    assert pair.server_events == [DialFailed(5, "connection refused", kind)]
    assert pair.is_empty()


def test_a_cancelled_dial_is_not_answered(pair: Pair) -> None:
    pair.server.dial(5, "a:1")
    pair.exchange()
    pair.server.cancel(5)
    pair.exchange()
    assert pair.agent_events[-1] == DialCancelled(5)
    assert pair.agent.answer_dial(5) is None
    assert pair.is_empty()


def test_the_late_answer_to_a_cancelled_dial_is_closed() -> None:
    # A real agent does not know DIAL_CLS and answers all the same.
    server = ServerTunnel(extended=False)
    server.dial(5, "a:1")
    server.cancel(5)
    server.take_packets()
    assert server.receive(DialResponse(5, 77)) is None
    assert server.take_packets() == [CloseRequest(77)]


def test_both_eofs_end_an_extended_connection() -> None:
    pair = Pair(True)
    connect_id = pair.dial()
    pair.server.send_eof(connect_id)
    pair.exchange()
    assert pair.agent_events[-1] == TheirEOF(connect_id)
    assert pair.agent.receive(Data(connect_id, b"late")) is None, "no data after their EOF"
    pair.agent.send_eof(connect_id)
    pair.exchange()
    assert pair.server_events[-1] == TheirEOF(connect_id)
    assert pair.is_empty()


def test_close_is_answered_and_ends_both(pair: Pair) -> None:
    connect_id = pair.dial()
    pair.server.close(connect_id)
    assert pair.exchange() == [CloseRequest(connect_id), CloseResponse(connect_id)]
    assert pair.agent_events[-1] == TheirClose(connect_id)
    assert pair.is_empty()


def test_closes_that_cross_end_once(pair: Pair) -> None:
    connect_id = pair.dial()
    pair.server.close(connect_id)
    pair.agent.close(connect_id) if pair.agent.extended else pair.agent.finish(connect_id)
    pair.exchange()
    assert pair.is_empty()


def test_a_reset_says_why(pair: Pair) -> None:
    connect_id = pair.dial()
    pair.agent.reset(connect_id, "connection reset by peer")
    pair.exchange()
    assert pair.server_events[-1] == TheirClose(connect_id, "connection reset by peer")
    assert pair.is_empty()


def test_the_close_of_a_plain_target_needs_no_request() -> None:
    pair = Pair(False)
    connect_id = pair.dial()
    pair.agent.finish(connect_id)
    assert pair.exchange() == [CloseResponse(connect_id)]
    assert pair.server_events[-1] == TheirClose(connect_id)


def test_data_for_an_unknown_connection_is_answered_as_upstream_does(pair: Pair) -> None:
    pair.server.receive(Data(9, b"x"))
    pair.agent.receive(Data(9, b"x"))
    assert pair.server.take_packets() == [CloseRequest(9)]
    assert pair.agent.take_packets() == [CloseResponse(9, "unrecognized connectID")]


def test_a_close_of_an_unknown_connection_is_answered(pair: Pair) -> None:
    pair.agent.receive(CloseRequest(9))
    assert pair.agent.take_packets() == [CloseResponse(9, "Unknown connectID")]
    assert pair.server.receive(CloseResponse(9)) is None


def test_unknown_packets_mean_nothing(pair: Pair) -> None:
    assert pair.server.receive(Unknown(99)) is None
    assert pair.server.take_packets() == []


def test_our_packets_mean_nothing_to_a_plain_tunnel() -> None:
    pair = Pair(False)
    connect_id = pair.dial()
    assert pair.server.receive(EndOfFile(connect_id)) is None
    assert pair.server.receive(Credit(connect_id, 5)) is None


def test_a_second_dial_with_the_same_id_is_dialled_once(pair: Pair) -> None:
    assert pair.agent.receive(DialRequest("a:1", 5)) == DialAsked(5, "a:1")
    assert pair.agent.receive(DialRequest("b:1", 5)) is None


def test_a_foreign_connect_id_cannot_take_over_a_connection(pair: Pair) -> None:
    connect_id = pair.dial()
    pair.server.dial(6, "b:1")
    event = pair.server.receive(DialResponse(6, connect_id))
    assert isinstance(event, DialFailed)
    assert connect_id in pair.server


def spend(tunnel: Tunnel, connect_id: int) -> int:
    total = 0
    while size := tunnel.sendable(connect_id, WINDOW // 4):
        tunnel.count_sent(connect_id, size)
        total += size
    return total


def test_an_extended_sender_stops_when_its_credit_is_spent() -> None:
    pair = Pair(True)
    connect_id = pair.dial()
    assert pair.server.sendable(connect_id, 1 << 20) == MAX_DATA_EXTENDED
    assert spend(pair.server, connect_id) == WINDOW
    for _ in range(4):
        assert isinstance(pair.agent.receive(Data(connect_id, bytes(WINDOW // 4))), Received)
    pair.agent.count_consumed(connect_id, WINDOW // 4)
    pair.exchange()
    assert pair.server.sendable(connect_id, 1) == 0, "credit comes in halves of the window"
    pair.agent.count_consumed(connect_id, WINDOW // 4)
    pair.exchange()
    assert pair.server_events[-1] == Credited(connect_id)
    assert spend(pair.server, connect_id) == WINDOW // 2


def test_a_sender_does_not_cut_a_piece_for_the_last_of_its_credit() -> None:
    pair = Pair(True)
    connect_id = pair.dial()
    pair.server.count_sent(connect_id, WINDOW - 1000)
    assert pair.server.sendable(connect_id, 1001) == 0
    assert pair.server.sendable(connect_id, 1000) == 1000


@pytest.mark.parametrize("window", [1, 2, 3, 5, 1000, WINDOW])
@pytest.mark.parametrize("piece", [1000, 4097, MAX_DATA_EXTENDED, 1 << 20])
def test_pieces_of_any_size_pass_a_window_of_any_size(window: int, piece: int) -> None:
    sender = ServerTunnel(extended=True, window=window)
    receiver = AgentTunnel(extended=True, first_connect_id=1, window=window)
    sender.dial(5, "10.0.0.1:80")
    for packet in sender.take_packets():
        receiver.receive(packet)
    connect_id = receiver.answer_dial(5)
    assert connect_id is not None
    for packet in receiver.take_packets():
        sender.receive(packet)
    left = min(3 * max(window, piece), 3000 * min(window, piece))
    while left:
        size = sender.sendable(connect_id, min(piece, left))
        assert size > 0, "everything was consumed, so some credit must have come back"
        sender.count_sent(connect_id, size)
        assert isinstance(receiver.receive(Data(connect_id, bytes(size))), Received)
        receiver.count_consumed(connect_id, size)
        for packet in receiver.take_packets():
            sender.receive(packet)
        left -= size


def test_a_peer_that_overdraws_its_credit_loses_that_connection_only() -> None:
    pair = Pair(True)
    connect_id = pair.dial()
    event: Event | None = None
    for _ in range(WINDOW // MAX_DATA + 1):
        event = pair.agent.receive(Data(connect_id, bytes(MAX_DATA)))
    assert event == TheirClose(connect_id, "the peer sent more than its credit")
    pair.exchange()
    assert pair.server_events[-1] == TheirClose(connect_id, "more data than the credit given")
    assert pair.is_empty()


def test_a_plain_sender_knows_no_credit() -> None:
    pair = Pair(False)
    connect_id = pair.dial()
    for _ in range(1000):
        pair.server.count_sent(connect_id, MAX_DATA)
    assert pair.server.sendable(connect_id, 1 << 20) == MAX_DATA
