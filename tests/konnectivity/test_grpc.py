"""gRPC framing, sans-IO: two real ends, whole and byte by byte, and what must not pass."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.protocol import http2frames as frames
from konnectivity.protocol.grpc import GRPCConnection
from konnectivity.protocol.grpccall import MAX_MESSAGE
from konnectivity.protocol.grpcevents import (
    CallAccepted,
    CallEnded,
    CallOpened,
    CallWritable,
    Event,
    GoingAway,
    Message,
    PingAcked,
    Status,
)
from wire.errors import PeerProtocolError

PATH = "/AgentService/Connect"


class Pair:
    """A client and a server; `step` is how many bytes travel at once."""

    def __init__(self, step: int = 1 << 20, call_window: int = 1 << 20) -> None:
        self.client = GRPCConnection(client=True, call_window=call_window)
        self.server = GRPCConnection(client=False, call_window=call_window)
        self.step = step
        self.client_events: list[Event] = []
        self.server_events: list[Event] = []

    def exchange(self) -> None:
        while self.client.output_pieces or self.server.output_pieces:
            for chunk in self._chunks(self.client):
                self.server_events += self.server.receive(chunk)
            for chunk in self._chunks(self.server):
                self.client_events += self.client.receive(chunk)

    def _chunks(self, end: GRPCConnection) -> Iterator[bytes]:
        data = b"".join(end.take_output())
        for at in range(0, len(data), self.step):
            yield data[at : at + self.step]

    def open(self) -> int:
        call = self.client.open_call(PATH, "x", {"agentid": ["a"]})
        self.exchange()
        self.server.accept_call(call, {"serverid": ["s"]})
        self.exchange()
        return call


@pytest.fixture(params=[1 << 20, 1], ids=["whole", "byte by byte"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


def messages(events: list[Event]) -> list[bytes]:
    return [bytes(event.payload) for event in events if isinstance(event, Message)]


def test_a_call_carries_metadata_both_ways(pair: Pair) -> None:
    call = pair.open()
    opened = pair.server_events[0]
    assert isinstance(opened, CallOpened)
    assert (opened.path, opened.metadata["agentid"]) == (PATH, ["a"])
    accepted = pair.client_events[0]
    assert isinstance(accepted, CallAccepted)
    assert (accepted.call, accepted.metadata["serverid"]) == (call, ["s"])


def test_messages_arrive_whole_and_in_order(pair: Pair) -> None:
    call = pair.open()
    sent = [b"one", b"", b"x" * 40_000, b"four"]
    for message in sent:
        pair.client.send_message(call, message)
        pair.server.send_message(call, message[:1], message[1:])
    pair.exchange()
    assert messages(pair.server_events) == sent
    assert messages(pair.client_events) == sent


def test_the_servers_status_ends_the_call_behind_its_messages(pair: Pair) -> None:
    call = pair.open()
    pair.server.send_message(call, b"last")
    pair.server.end_call(call, Status.UNAVAILABLE, "100 % gone")
    pair.exchange()
    assert messages(pair.client_events) == [b"last"]
    assert pair.client_events[-1] == CallEnded(call, Status.UNAVAILABLE, "100 % gone")


def test_a_call_refused_before_acceptance_is_ended_with_its_status(pair: Pair) -> None:
    call = pair.client.open_call(PATH, "x", {})
    pair.exchange()
    pair.server.end_call(call, Status.UNAUTHENTICATED, "no")
    pair.exchange()
    assert pair.client_events == [CallEnded(call, Status.UNAUTHENTICATED, "no")]


def test_the_clients_half_close_is_an_end_for_the_server(pair: Pair) -> None:
    call = pair.open()
    pair.client.send_message(call, b"bye")
    pair.client.end_call(call)
    pair.exchange()
    assert messages(pair.server_events) == [b"bye"]
    assert pair.server_events[-1] == CallEnded(call, Status.OK, "")


def test_a_reset_call_ends_at_the_other_end(pair: Pair) -> None:
    call = pair.open()
    pair.client.reset_call(call)
    pair.exchange()
    assert isinstance(pair.server_events[-1], CallEnded)


def test_ping_is_acknowledged(pair: Pair) -> None:
    pair.client.ping(b"12345678")
    pair.exchange()
    assert PingAcked(b"12345678") in pair.client_events


def test_open_calls_go_on_after_goaway(pair: Pair) -> None:
    # h2 would call the connection closed; gRPC lets open calls finish (grpc-go's GracefulStop).
    call = pair.open()
    pair.server.go_away()
    pair.exchange()
    pair.server.send_message(call, b"still here")
    pair.client.send_message(call, b"so am I")
    pair.exchange()
    assert isinstance(pair.client_events[-2], GoingAway)
    assert messages(pair.client_events) == [b"still here"]
    assert messages(pair.server_events) == [b"so am I"]


def test_a_sender_stops_at_the_window_until_it_is_acknowledged() -> None:
    pair = Pair(call_window=65_536)
    call = pair.open()
    for _ in range(4):
        written = pair.client.send_message(call, bytes(40_000))
    pair.exchange()
    assert not written
    assert len(messages(pair.server_events)) == 1
    for _ in range(4):
        for event in pair.server_events:
            if isinstance(event, Message):
                pair.server.acknowledge(call, event.cost)
        pair.server_events.clear()
        pair.exchange()
    assert CallWritable(call) in pair.client_events
    assert pair.client.queued(call) == 0


def test_one_call_without_acknowledgement_does_not_stop_another() -> None:
    pair = Pair(call_window=65_536)
    stalled, lively = pair.open(), pair.open()
    pair.client.send_message(stalled, bytes(200_000))
    pair.exchange()
    pair.client.send_message(lively, b"hello")
    pair.exchange()
    assert messages(pair.server_events) == [b"hello"]


def test_messages_larger_than_the_limit_end_their_call_only() -> None:
    pair = Pair()
    call, other = pair.open(), pair.open()
    head = b"\0" + (MAX_MESSAGE + 1).to_bytes(4, "big")
    pair.server_events += pair.server.receive(frames.head(len(head), frames.DATA, 0, call) + head)
    assert isinstance(pair.server_events[-1], CallEnded)
    assert pair.server_events[-1].status == Status.RESOURCE_EXHAUSTED
    pair.client.send_message(other, b"fine")
    pair.exchange()
    assert messages(pair.server_events) == [b"fine"]


def test_compressed_messages_are_refused() -> None:
    pair = Pair()
    call = pair.open()
    events = pair.server.receive(frames.head(6, frames.DATA, 0, call) + b"\1\0\0\0\1x")
    assert events == [CallEnded(call, Status.UNIMPLEMENTED, "grpc: compressed message, no compression was agreed on")]


def test_padding_is_not_content() -> None:
    pair = Pair()
    call = pair.open()
    body = b"\4" + b"\0\0\0\0\2hi" + bytes(4)
    events = pair.server.receive(frames.head(len(body), frames.DATA, frames.PADDED, call) + body)
    assert messages(events) == [b"hi"]


@pytest.mark.parametrize(
    "wire",
    [
        frames.head(1, frames.DATA, 0, 99) + b"x",  # a stream that was never opened
        frames.head(1, frames.DATA, 0, 0) + b"x",  # no stream at all
        frames.head(frames.MAX_FRAME + 1, frames.DATA, 0, 1),  # oversize
        frames.head(5, frames.DATA, frames.PADDED, 1) + b"\x09abcd",  # padding beyond the frame
        frames.head(3, frames.GOAWAY, 0, 0) + b"abc",
        frames.head(3, frames.SETTINGS, 0, 0) + b"abc",
        frames.head(4, frames.WINDOW_UPDATE, 0, 0) + bytes(4),  # increment 0
    ],
)
def test_broken_frames_are_one_documented_error(wire: bytes) -> None:
    pair = Pair()
    pair.open()
    with pytest.raises(PeerProtocolError):
        pair.server.receive(wire)


def test_more_data_than_the_window_is_refused() -> None:
    pair = Pair(call_window=65_536)
    call = pair.open()
    frame = frames.head(16_384, frames.DATA, 0, call) + b"\0" + (1 << 20).to_bytes(4, "big") + bytes(16_379)
    with pytest.raises(PeerProtocolError, match="window"):
        for _ in range(5):
            pair.server.receive(frame)


def test_late_data_of_an_ended_call_is_ignored() -> None:
    pair = Pair()
    call = pair.open()
    pair.server.end_call(call)
    assert pair.server.receive(frames.head(1, frames.DATA, 0, call) + b"x") == []


@given(st.binary(max_size=300))
def test_garbage_gives_events_or_one_error(garbage: bytes) -> None:
    pair = Pair()
    pair.open()
    try:
        pair.server.receive(garbage)
    except PeerProtocolError:
        return


@given(st.integers(0, 9), st.integers(0, 255), st.integers(0, 4), st.binary(max_size=60))
def test_any_frame_gives_events_or_one_error(kind: int, flags: int, stream: int, body: bytes) -> None:
    pair = Pair()
    pair.open()
    try:
        pair.server.receive(frames.head(len(body), kind, flags, stream) + body)
        pair.server.take_output()
    except PeerProtocolError:
        return
