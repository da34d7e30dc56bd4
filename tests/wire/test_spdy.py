"""SPDY/3.1: vectors recorded from real kubectls, both roles, byte by byte, and everything hostile."""

import asyncio
import hashlib
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import ConnectionLost, PeerProtocolError, WireError
from wire.protocol.spdy.dictionary import HEADER_DICTIONARY
from wire.protocol.spdy.frames import FrameReader, FrameType, control, data_head
from wire.protocol.spdy.headers import HeaderCompressor, HeaderDecompressor
from wire.protocol.spdy.session import (
    DataReceived,
    Event,
    GoneAway,
    PingAnswered,
    Role,
    SpdyConnection,
    StreamOpened,
    StreamReplied,
    StreamReset,
)
from wire.spdy_session import READ_BUDGET, SpdySession, spdy_session
from wire.stream import stream_pair

KUBECTL_BLOCKS = [
    ("78f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff", {"streamtype": "error"}),
    ("c22ac5565c92925f5a02000000ffff", {"streamtype": "stdout"}),
    ("c229975a5404000000ffff", {"streamtype": "stderr"}),
]


def test_dictionary_is_the_drafts() -> None:
    assert len(HEADER_DICTIONARY) == 1423
    assert zlib.adler32(HEADER_DICTIONARY) == 0xE3C6A7C2
    digest = hashlib.sha256(HEADER_DICTIONARY).hexdigest()
    assert digest == "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02"


def test_header_blocks_of_kubectl_decode() -> None:
    decompressor = HeaderDecompressor()
    assert [decompressor.decompress(bytes.fromhex(block)) for block, _ in KUBECTL_BLOCKS] == [
        headers for _, headers in KUBECTL_BLOCKS
    ]


def test_empty_reply_blocks_encode_as_recorded() -> None:
    compressor = HeaderCompressor()
    assert compressor.compress({}).hex() == "78f9e3c6a7c202a6230600000000ffff"
    assert compressor.compress({}).hex() == "020100000000ffff"


NAMES = st.from_regex(r"\Ax-[a-z0-9-]{1,20}\Z")
VALUES = st.text(st.characters(max_codepoint=255))


@given(st.lists(st.dictionaries(NAMES, VALUES), max_size=5))
@settings(max_examples=50, deadline=None)
def test_any_headers_survive_compression(blocks: list[dict[str, str]]) -> None:
    compressor, decompressor = HeaderCompressor(), HeaderDecompressor()
    for headers in blocks:
        assert decompressor.decompress(compressor.compress(headers)) == headers


# A conversation, run in both directions, whole and byte by byte


def pump(sender: SpdyConnection, receiver: SpdyConnection, size: int) -> list[Event]:
    data = sender.data_to_send()
    events: list[Event] = []
    for start in range(0, len(data), size):
        events += receiver.receive_data(data[start : start + size])
    return events


def joined(events: list[Event]) -> list[Event]:
    """Data pieces of one stream put together: how DATA is cut is nobody's business."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, DataReceived) and isinstance(last, DataReceived) and last.stream_id == event.stream_id:
            out[-1] = DataReceived(event.stream_id, last.data + event.data, event.fin)
        else:
            out.append(event)
    return out


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("role", [Role.CLIENT, Role.SERVER])
def test_conversation_is_the_same_whole_and_byte_by_byte(size: int, role: Role) -> None:
    ours = SpdyConnection(role)
    theirs = SpdyConnection(Role.SERVER if role is Role.CLIENT else Role.CLIENT)
    first = 1 if role is Role.CLIENT else 2
    stream_id = ours.open_stream({"streamtype": "stdin"})
    assert stream_id == first
    assert pump(ours, theirs, size) == [StreamOpened(first, {"streamtype": "stdin"}, False)]
    theirs.reply(first)
    theirs.send_data(first, b"x" * 100_000)
    theirs.finish(first)
    replied, *data = joined(pump(theirs, ours, size))
    assert (replied, data) == (StreamReplied(first, {}, False), [DataReceived(first, b"x" * 100_000, True)])
    ours.finish(first)
    assert pump(ours, theirs, size) == [DataReceived(first, b"", True)]
    assert ours.streams == theirs.streams == {}
    other = ours.open_stream({"streamtype": "error"})
    ours.reset(other)
    ours.go_away()
    opened, reset, gone = pump(ours, theirs, size)
    assert (opened, reset) == (StreamOpened(other, {"streamtype": "error"}, False), StreamReset(other, 5))
    assert gone == GoneAway(0, 0)


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_ping_is_echoed_only_with_the_peers_parity(size: int) -> None:
    client, server = SpdyConnection(Role.CLIENT), SpdyConnection(Role.SERVER)
    assert [client.ping(), client.ping(), server.ping()] == [1, 3, 2]
    assert pump(client, server, size) == []
    assert pump(server, client, size) == [PingAnswered(1), PingAnswered(3)]
    assert pump(client, server, size) == [PingAnswered(2)]
    assert client.data_to_send() == server.data_to_send() == b""


def syn(stream_id: int, compressor: HeaderCompressor, **headers: str) -> bytes:
    return control(FrameType.SYN_STREAM, stream_id.to_bytes(4, "big") + bytes(6) + compressor.compress(headers))


def test_stream_id_that_goes_backwards_is_reset_and_compression_survives() -> None:
    server, compressor = SpdyConnection(Role.SERVER), HeaderCompressor()
    assert len(server.receive_data(syn(5, compressor, a="1"))) == 1
    assert server.receive_data(syn(3, compressor, a="2")) == []
    assert server.data_to_send() == control(FrameType.RST_STREAM, (3).to_bytes(4, "big") + (1).to_bytes(4, "big"))
    assert server.receive_data(syn(7, compressor, a="3")) == [StreamOpened(7, {"a": "3"}, False)]


def test_streams_beyond_the_cap_are_refused() -> None:
    server, compressor = SpdyConnection(Role.SERVER, max_streams=2), HeaderCompressor()
    for stream_id in (1, 3, 5):
        server.receive_data(syn(stream_id, compressor))
    assert list(server.streams) == [1, 3]
    assert server.data_to_send() == control(FrameType.RST_STREAM, (5).to_bytes(4, "big") + (3).to_bytes(4, "big"))


def test_nothing_behind_goaway_is_read() -> None:
    server, compressor = SpdyConnection(Role.SERVER), HeaderCompressor()
    goaway = control(FrameType.GOAWAY, bytes(8))
    assert server.receive_data(goaway + syn(1, compressor)) == [GoneAway(0, 0)]
    assert server.receive_data(b"\xff" * 100) == []


def test_windows_settings_and_unknown_frames_are_ignored() -> None:
    server = SpdyConnection(Role.SERVER)
    noop = bytes.fromhex("8003000500000000")
    window = control(FrameType.WINDOW_UPDATE, bytes(8))
    settings_frame = control(FrameType.SETTINGS, (1).to_bytes(4, "big") + bytes(8))
    assert server.receive_data(noop + window + settings_frame) == []
    assert server.data_to_send() == b""


HOSTILE: dict[str, Callable[[], bytes]] = {
    "settings_count": lambda: control(FrameType.SETTINGS, b"\xff\xff\xff\xff" + bytes(8)),
    "header_count": lambda: raw_block(b"\x80\x00\x00\x00"),
    "header_length": lambda: raw_block(b"\x00\x00\x00\x01\x7f\xff\xff\xff"),
    "zip_bomb": lambda: raw_block(bytes(60_000_000)),
    "upper_case": lambda: raw_block(b"\0\0\0\1\0\0\0\1A\0\0\0\0"),
    "duplicate": lambda: raw_block(b"\0\0\0\2" + b"\0\0\0\1a\0\0\0\0" * 2),
    "forbidden": lambda: raw_block(b"\0\0\0\1\0\0\0\4host\0\0\0\0"),
    "trailing": lambda: raw_block(b"\0\0\0\0x"),
    "stream_zero": lambda: control(FrameType.SYN_STREAM, bytes(10)),
    "ping_zero": lambda: control(FrameType.PING, bytes(4)),
    "short_ping": lambda: control(FrameType.PING, b"\1"),
    "version": lambda: bytes.fromhex("8002000600000000"),
    "huge_control": lambda: bytes.fromhex("8003000100ffffff"),
    "data_zero": lambda: data_head(0, 4, False) + b"1234",
    "http": lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"\x80" * 20,
}


def raw_block(plain: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, HEADER_DICTIONARY)
    block = packer.compress(plain) + packer.flush(zlib.Z_SYNC_FLUSH)
    return control(FrameType.SYN_STREAM, (1).to_bytes(4, "big") + bytes(6) + block)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "http"])
def test_cve_2026_35469_counts_lengths_and_bombs_are_refused(name: str) -> None:
    with pytest.raises(PeerProtocolError):
        SpdyConnection(Role.SERVER).receive_data(HOSTILE[name]())


@given(st.lists(st.binary(max_size=200), max_size=10), st.sampled_from(list(Role)))
@settings(max_examples=300, deadline=None)
def test_garbage_gives_events_or_peer_protocol_error_and_nothing_else(parts: list[bytes], role: Role) -> None:
    connection = SpdyConnection(role)
    connection.open_stream({"a": "b"})
    try:
        for part in parts:
            connection.receive_data(part)
    except PeerProtocolError:
        pass


FRAMES = st.builds(
    lambda kind, flags, payload: control(FrameType.PING, payload)[:2]
    + kind.to_bytes(2, "big")
    + (flags << 24 | len(payload)).to_bytes(4, "big")
    + payload,
    st.integers(0, 12),
    st.integers(0, 3),
    st.binary(max_size=40),
) | st.builds(
    lambda stream_id, fin, payload: data_head(stream_id, len(payload), fin) + payload,
    st.integers(0, 9),
    st.booleans(),
    st.binary(max_size=40),
)


@given(st.lists(FRAMES, max_size=20), st.sampled_from(list(Role)))
@settings(max_examples=300, deadline=None)
def test_well_framed_nonsense_gives_events_or_peer_protocol_error(frames: list[bytes], role: Role) -> None:
    connection, compressor = SpdyConnection(role), HeaderCompressor()
    connection.open_stream({})
    try:
        connection.receive_data(syn(2 if role is Role.CLIENT else 1, compressor, a="b"))
        for frame in frames:
            connection.receive_data(frame)
    except PeerProtocolError:
        pass


def test_a_sixteen_megabyte_data_frame_is_never_held_as_a_whole() -> None:
    reader = FrameReader()
    pieces = reader.feed(data_head(1, 0xFFFFFF, True) + b"x" * 1000)
    assert [len(piece.data) for piece in pieces if hasattr(piece, "data")] == [1000]
    assert len(reader._held) == 0


# The shell


async def test_data_stream_may_arrive_before_error_stream() -> None:
    ours, theirs = await stream_pair()
    async with spdy_session(theirs, Role.SERVER) as server, spdy_session(ours, Role.CLIENT) as client:
        await client.open({"streamtype": "data"})
        await client.open({"streamtype": "error"})
        got = [await server.accept(), await server.accept()]
        assert [stream.headers["streamtype"] for stream in got if stream] == ["data", "error"]


async def test_no_window_is_waited_for_and_five_megabytes_go_through() -> None:
    ours, theirs = await stream_pair()
    async with spdy_session(theirs, Role.SERVER) as server, spdy_session(ours, Role.CLIENT) as client:
        sender = await client.open({})
        receiver = await server.accept()
        assert receiver is not None

        async def send() -> None:
            for _ in range(80):
                await sender.write(b"x" * 65536)
            sender.finish()

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(send())
            total = 0
            while data := await receiver.read():
                total += len(data)
        assert total == 80 * 65536


async def test_stream_whose_consumer_is_gone_does_not_stall_the_others() -> None:
    ours, theirs = await stream_pair()
    async with spdy_session(theirs, Role.SERVER) as server, spdy_session(ours, Role.CLIENT) as client:
        unread, busy = await client.open({}), await client.open({})
        first, second = await server.accept(), await server.accept()
        assert first is not None and second is not None
        first.discard()
        async with asyncio.timeout(10):
            for _ in range(READ_BUDGET // 65536 * 2):
                await unread.write(b"x" * 65536)
            await busy.write(b"hello")
            assert await second.read() == b"hello"


async def test_unread_stream_holds_a_bounded_amount_and_then_pauses_reading() -> None:
    ours, theirs = await stream_pair()
    async with spdy_session(theirs, Role.SERVER) as server, spdy_session(ours, Role.CLIENT) as client:
        stream = await client.open({})
        receiver = await server.accept()
        assert receiver is not None
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await stream.write(b"x" * 65536)
                    sent += 65536
        assert sent < READ_BUDGET * 2
        assert server._held < READ_BUDGET + 1_000_000
        received = 0
        async with asyncio.timeout(10):
            while received < sent:
                received += len(await receiver.read())


async def test_many_streams_run_side_by_side() -> None:
    """No five workers: fifty streams are open and every one moves (openshift/origin#4287)."""
    ours, theirs = await stream_pair()

    async def echo(server: SpdySession) -> None:
        while stream := await server.accept():
            group.create_task(answer(stream))

    async def answer(stream: object) -> None:
        data = await stream.read()  # type: ignore[attr-defined]
        await stream.write(data)  # type: ignore[attr-defined]
        stream.finish()  # type: ignore[attr-defined]

    async with asyncio.timeout(10), asyncio.TaskGroup() as group, spdy_session(theirs, Role.SERVER) as server:
        group.create_task(echo(server))
        async with spdy_session(ours, Role.CLIENT) as client:
            streams = [await client.open({}) for _ in range(50)]
            for number, stream in reversed(list(enumerate(streams))):
                await stream.write(b"%d" % number)
            assert [await stream.read() for stream in streams] == [b"%d" % number for number in range(50)]
            for stream in streams:
                stream.finish()
        await server.ended.wait()


async def test_refused_stream_raises_and_the_end_of_the_session_is_seen() -> None:
    ours, theirs = await stream_pair()
    async with spdy_session(ours, Role.CLIENT) as client:
        admit = lambda headers: "port" in headers  # noqa: E731
        async with spdy_session(theirs, Role.SERVER, admit=admit):
            with pytest.raises(WireError, match="Stream reset"):
                await client.open({"streamtype": "data"})
            stream = await client.open({"port": "80"})
        assert await stream.read() == b""
        with pytest.raises(ConnectionLost):
            await stream.write(b"x")


async def test_silent_client_is_never_spoken_to() -> None:
    """kubectl loses what it reads together with the 101 head, so a session nobody used ends without a byte."""
    ours, theirs = await stream_pair()
    async with spdy_session(theirs, Role.SERVER):
        pass
    assert await ours.read() == b""
    await ours.aclose()


async def test_garbage_ends_the_session_with_its_error() -> None:
    ours, theirs = await stream_pair()
    async with spdy_session(theirs, Role.SERVER) as server:
        ours.write(HOSTILE["zip_bomb"]())
        async with asyncio.timeout(5):
            assert await server.accept() is None
        assert isinstance(server.error, PeerProtocolError)
    await ours.aclose()
