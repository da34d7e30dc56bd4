"""What a man in the middle hears, whole and byte by byte, and what he can say."""

import pytest

from miniplane.demo.wiretap import ChannelTap, Overheard, SpdyTap, TunnelTap, Wiretap, tap_for
from wire.protocol.http1 import Head
from wire.protocol.spdy.session import Role as SpdyRole
from wire.protocol.spdy.session import SpdyConnection
from wire.protocol.websocket import Opcode, encode_frame

MASK = b"abcd"


def heard(found: list[Overheard]) -> dict[str, bytes]:
    together: dict[str, bytes] = {}
    for one in found:
        together[one.stream] = together.get(one.stream, b"") + one.data
    return together


def listen(tap: Wiretap, client: bytes, node: bytes, size: int) -> dict[str, bytes]:
    found: list[Overheard] = []
    for start in range(0, len(client), size):
        found += tap.from_client(client[start : start + size])
    for start in range(0, len(node), size):
        found += tap.from_node(node[start : start + size])
    return heard(found)


def spdy(*streams: str, typed: bytes, printed: bytes) -> tuple[bytes, bytes]:
    """Both directions of a conversation whose last stream carries the bytes."""
    client, node = SpdyConnection(SpdyRole.CLIENT), SpdyConnection(SpdyRole.SERVER)
    ids = {name: client.open_stream({"streamtype": name}) for name in streams}
    first = client.data_to_send()
    node.receive_data(first)
    for number in ids.values():
        node.reply(number)
    client.receive_data(replies := node.data_to_send())
    client.send_data(ids.get("stdin", ids[streams[-1]]), typed)
    node.send_data(ids.get("stdout", ids[streams[-1]]), printed)
    return first + client.data_to_send(), replies + node.data_to_send()


def wrapped(data: bytes, mask: bytes | None) -> bytes:
    return b"".join(encode_frame(Opcode.BINARY, data[start : start + 7], mask) for start in range(0, len(data), 7))


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_spdy_streams_are_known_by_their_type(size: int) -> None:
    client, node = spdy("error", "stdin", "stdout", typed=b"ls\n", printed=b"a b\n")
    assert listen(SpdyTap(), client, node, size) == {"stdin": b"ls\n", "stdout": b"a b\n"}


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_websocket_channels_and_tunnels_are_heard(size: int) -> None:
    client = encode_frame(Opcode.BINARY, b"\x00ls\n", MASK)
    node = encode_frame(Opcode.BINARY, b"\x01a b\n") + encode_frame(Opcode.BINARY, b"\x03{}")
    assert listen(ChannelTap(), client, node, size) == {"stdin": b"ls\n", "stdout": b"a b\n"}
    there, back = spdy("error", "data", typed=b"GET /", printed=b"200")
    found = listen(TunnelTap(), wrapped(there, MASK), wrapped(back, None), size)
    assert found == {"request": b"GET /", "response": b"200"}


def test_words_are_put_in_at_a_frames_border_and_the_node_takes_them_for_the_clients() -> None:
    tap, node = SpdyTap(), SpdyConnection(SpdyRole.SERVER)
    assert tap.typed(b"id\n") is None  # no stdin yet
    client, _ = spdy("error", "stdin", "stdout", typed=b"ls\n", printed=b"")
    tap.from_client(client[:-2])
    assert tap.typed(b"id\n") is None  # in the middle of a frame
    tap.from_client(client[-2:])
    extra = tap.typed(b"id\n")
    assert extra is not None
    events = node.receive_data(client + extra)
    assert [event.data for event in events if hasattr(event, "data")] == [b"ls\n", b"id\n"]


def test_the_request_says_how_to_listen() -> None:
    def tap(upgrade: str, *protocols: str) -> Wiretap:
        offered = tuple(("sec-websocket-protocol", one) for one in protocols)
        return tap_for(Head(200, "", (("upgrade", upgrade), *offered)))

    assert isinstance(tap("SPDY/3.1"), SpdyTap)
    assert isinstance(tap("websocket", "v5.channel.k8s.io"), ChannelTap)
    assert isinstance(tap("websocket", "SPDY/3.1+portforward.k8s.io"), TunnelTap)
