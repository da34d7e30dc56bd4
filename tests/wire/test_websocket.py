"""WebSocket frames: RFC 6455's own examples, both roles, byte by byte, and everything hostile."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import ConnectionLost, PeerProtocolError
from wire.protocol.tunnel import inner_protocols, is_tunnel, outer_protocol
from wire.protocol.websocket import (
    CloseReceived,
    Event,
    Message,
    Opcode,
    PongReceived,
    Reassembly,
    Role,
    WebSocketConnection,
    encode_frame,
    xor_mask,
)
from wire.stream import stream_pair
from wire.tunnel import Tunnel
from wire.upgrade import websocket_accept
from wire.websocket_session import _MASKER, WebSocket

KEY = bytes.fromhex("37fa213d")
HELLO_MASKED = bytes.fromhex("818537fa213d7f9f4d5158")


def test_the_rfcs_examples() -> None:
    assert encode_frame(Opcode.TEXT, b"Hello").hex() == "810548656c6c6f"
    assert encode_frame(Opcode.TEXT, b"Hello", KEY) == HELLO_MASKED
    assert WebSocketConnection(Role.SERVER).receive_data(HELLO_MASKED) == [Message(b"Hello", True)]
    fragments = bytes.fromhex("010348656c80026c6f")
    assert WebSocketConnection(Role.CLIENT).receive_data(fragments) == [Message(b"Hello", True)]
    assert websocket_accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 65535, 65536, 100_003])
@pytest.mark.parametrize("step", [1 << 20, 4096, 7])
def test_any_size_survives_both_directions(size: int, step: int) -> None:
    payload = os.urandom(size)
    for sender, receiver, key in ((Role.CLIENT, Role.SERVER, KEY), (Role.SERVER, Role.CLIENT, None)):
        data = WebSocketConnection(sender).encode(Opcode.BINARY, payload, key)
        connection, events = WebSocketConnection(receiver), list[Event]()
        for start in range(0, len(data), step):
            events += connection.receive_data(data[start : start + step])
        assert events == [Message(payload, False)]


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=40_000))
@settings(max_examples=30, deadline=None)
def test_both_maskers_agree(key: bytes, data: bytes) -> None:
    ours, theirs = bytearray(data), bytearray(data)
    xor_mask(key, ours)
    _MASKER(key, theirs)
    assert ours == theirs
    xor_mask(key, ours)
    assert bytes(ours) == data


def test_control_frames_may_come_between_fragments_and_pings_are_answered() -> None:
    server = WebSocketConnection(Role.SERVER)
    first = bytes([0x02, 0x82]) + b"\0\0\0\0ab"
    last = bytes([0x80, 0x81]) + b"\0\0\0\0c"
    ping = encode_frame(Opcode.PING, b"?", KEY)
    assert server.receive_data(first + ping + last) == [Message(b"abc", False)]
    assert server.data_to_send() == encode_frame(Opcode.PONG, b"?")


def test_tunnels_get_fragments_as_they_come() -> None:
    server = WebSocketConnection(Role.SERVER, reassembly=Reassembly.FRAGMENTS)
    assert server.receive_data(bytes([0x02, 0x82]) + b"\0\0\0\0ab") == [Message(b"ab", False)]
    assert server.receive_data(bytes([0x80, 0x81]) + b"\0\0\0\0c") == [Message(b"c", False)]


def test_close_has_a_code_a_reason_or_neither_and_ends_reading() -> None:
    for payload, expected in (
        (b"", CloseReceived(1005, "")),
        (b"\x03\xe8", CloseReceived(1000, "")),
        (b"\x0f\xa0bye", CloseReceived(4000, "bye")),
    ):
        server = WebSocketConnection(Role.SERVER)
        data = encode_frame(Opcode.CLOSE, payload, KEY) + HELLO_MASKED
        assert server.receive_data(data) == [expected]
        assert server.receive_data(HELLO_MASKED) == []


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("810548656c6c6f"),  # unmasked from a client
        bytes.fromhex("c18537fa213d7f9f4d5158"),  # reserved bit: compression nobody agreed on
        bytes.fromhex("838037fa213d"),  # opcode 3
        bytes.fromhex("098037fa213d"),  # fragmented ping
        bytes.fromhex("89fe007e37fa213d"),  # ping of 126 bytes
        bytes.fromhex("808037fa213d"),  # continuation of nothing
        bytes.fromhex("018037fa213d") * 2,  # message inside a message
        bytes.fromhex("82ff7fffffffffffffff37fa213d"),  # 2^63-1 bytes
        bytes.fromhex("888137fa213d00"),  # close of one byte
        encode_frame(Opcode.CLOSE, (1005).to_bytes(2, "big"), KEY),
        encode_frame(Opcode.CLOSE, (999).to_bytes(2, "big"), KEY),
    ],
)
def test_illegal_frames_are_refused(data: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        WebSocketConnection(Role.SERVER).receive_data(data)


def test_fragments_together_may_not_exceed_the_limit() -> None:
    server = WebSocketConnection(Role.SERVER, max_message=1000)
    server.receive_data(bytes([0x02, 0xFE, 0x02, 0x58]) + bytes(4) + bytes(600))
    with pytest.raises(PeerProtocolError, match="more than 1000 bytes"):
        server.receive_data(bytes([0x80, 0xFE, 0x02, 0x58]) + bytes(4) + bytes(600))


@given(st.lists(st.binary(max_size=100), max_size=8), st.sampled_from(list(Role)), st.sampled_from(list(Reassembly)))
@settings(max_examples=300, deadline=None)
def test_garbage_gives_events_or_peer_protocol_error_and_nothing_else(
    parts: list[bytes], role: Role, reassembly: Reassembly
) -> None:
    connection = WebSocketConnection(role, reassembly=reassembly)
    try:
        for part in parts:
            connection.receive_data(part, KEY if role is Role.CLIENT else None)
    except PeerProtocolError:
        pass


def test_tunnel_names() -> None:
    assert is_tunnel(["v4.channel.k8s.io", "SPDY/3.1+portforward.k8s.io"])
    assert not is_tunnel(["SPDY/3.1+other.example", "v5.channel.k8s.io"])
    assert inner_protocols(["SPDY/3.1+portforward.k8s.io"]) == ["portforward.k8s.io"]
    assert (outer_protocol("portforward.k8s.io"), outer_protocol("")) == ("SPDY/3.1+portforward.k8s.io", "")


# The shell


async def sockets(reassembly: Reassembly = Reassembly.MESSAGES) -> tuple[WebSocket, WebSocket]:
    ours, theirs = await stream_pair()
    return WebSocket(ours, Role.CLIENT), WebSocket(theirs, Role.SERVER, reassembly)


async def test_ping_is_answered_while_reading_and_close_is_echoed() -> None:
    client, server = await sockets()
    client.send_ping()
    client.send(b"x")
    assert await server.receive() == Message(b"x", False)
    client.send_close(1000)
    assert await server.receive() is None
    assert await client.receive() is None
    assert client.close_received == CloseReceived(1000, "")
    await client.stream.aclose()
    await server.stream.aclose()


async def test_end_without_close_frame_is_an_error() -> None:
    client, server = await sockets()
    client.stream.abort()
    with pytest.raises(ConnectionLost):
        await server.receive()
    await server.stream.aclose()


async def test_tunnel_is_a_byte_stream_of_any_messages() -> None:
    """kubectl sends one SPDY frame as messages of 2,2,4,4,4,1,1,52 bytes, and empty ones between."""
    client, server = await sockets(Reassembly.FRAGMENTS)
    tunnel = Tunnel(server)
    for size in (2, 2, 4, 0, 4, 1):
        client.send(b"x" * size)
    got = b""
    while len(got) < 13:
        got += await tunnel.read()
    tunnel.write(b"back")
    assert await client.receive() == Message(b"back", False)
    client.send(b"text", is_text=True)
    with pytest.raises(PeerProtocolError):
        await tunnel.read()
    await client.stream.aclose()
    await server.stream.aclose()


@pytest.mark.parametrize(("code", "is_good"), [(1000, True), (1011, False)])
async def test_tunnel_ends_well_only_with_close_1000(code: int, is_good: bool) -> None:
    client, server = await sockets(Reassembly.FRAGMENTS)
    client.send_close(code)
    if is_good:
        assert await Tunnel(server).read() == b""
    else:
        with pytest.raises(ConnectionLost, match="1011"):
            await Tunnel(server).read()
    await client.stream.aclose()
    await server.stream.aclose()


def test_pong_is_an_event() -> None:
    assert WebSocketConnection(Role.CLIENT).receive_data(encode_frame(Opcode.PONG, b"!")) == [PongReceived(b"!")]
