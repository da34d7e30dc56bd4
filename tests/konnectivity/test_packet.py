"""Packets, byte for byte as upstream's generated code writes them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import PeerProtocolError
from wire.protocol.konnectivity import (
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
    Unknown,
    data_head,
    decode,
    encode,
)

VECTORS: list[tuple[Packet, str]] = [
    # DIAL_REQ is enum 0 and leaves field 1 out: it begins with its payload.
    (DialRequest("a:1", 5), "120c0a037463701203613a311805"),
    (DialResponse(5, 7), "08011a0410071805"),
    (DialResponse(5, 0, "no"), "08011a060a026e6f1805"),
    # connectID is field 1 in CloseRequest and Data, field 2 in the responses.
    (CloseRequest(7), "08022a020807"),
    (CloseResponse(7, "x"), "080332050a01781007"),
    (Data(7, b"hi"), "0804220608071a026869"),
    (CloseDial(300), "08053a0308ac02"),
    (Drain(), "08064200"),
]
OURS: list[Packet] = [EndOfFile(7), Credit(7, 1 << 20), Reset(7, "gone"), DialResponse(5, 0, "no", "DialRefused")]


@pytest.mark.parametrize(("packet", "wire"), VECTORS)
def test_packet_is_written_as_upstream_writes_it(packet: Packet, wire: str) -> None:
    assert encode(packet).hex() == wire


@pytest.mark.parametrize(("packet", "wire"), VECTORS)
def test_packet_is_read_back(packet: Packet, wire: str) -> None:
    assert decode(bytes.fromhex(wire)) == packet


@pytest.mark.parametrize("packet", OURS)
def test_our_own_packets_survive_the_wire(packet: Packet) -> None:
    assert decode(encode(packet)) == packet


def test_data_head_and_payload_make_a_data_packet() -> None:
    payload = bytes(70_000)
    assert data_head(1 << 40, len(payload)) + payload == encode(Data(1 << 40, payload))


def test_payload_is_a_view_not_a_copy() -> None:
    packet = decode(encode(Data(1, bytes(1000))))
    assert isinstance(packet, Data)
    assert isinstance(packet.data, memoryview)


def test_negative_ids_take_ten_bytes_and_come_back() -> None:
    assert decode(encode(CloseRequest(-1))) == CloseRequest(-1)


def test_unknown_fields_are_skipped() -> None:
    # field 15 varint, field 16 fixed64, field 17 fixed32, field 18 bytes around a CLOSE_REQ
    extra = bytes.fromhex("7801" + "8101" + "00" * 8 + "8d01" + "00" * 4 + "92010161")
    assert decode(extra + encode(CloseRequest(7))) == CloseRequest(7)


def test_unknown_type_is_reported_and_not_an_error() -> None:
    assert decode(b"\x08\x63") == Unknown(99)


def test_payload_of_another_type_reads_as_absent() -> None:
    assert decode(bytes.fromhex("08022207080a1a0361626d")[:2] + encode(Data(1, b"x"))[2:]) == CloseRequest(0)


@pytest.mark.parametrize(
    "wire",
    [
        "08",  # key without value
        "0a05",  # longer than the packet
        "080422ff",  # truncated length
        "00",  # field 0
        "0b",  # group, gone since proto2
        "08" + "ff" * 11,  # varint without end
        "12050a03ff",  # truncated inside
        "08031a040a02fffe",  # not UTF-8 would be in field 6; here a stray payload
    ],
)
def test_what_is_no_protobuf_is_refused_or_ignored_but_nothing_else(wire: str) -> None:
    try:
        decode(bytes.fromhex(wire))
    except PeerProtocolError:
        return
    assert wire == "08031a040a02fffe"


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(PeerProtocolError, match="UTF-8"):
        decode(bytes.fromhex("080332040a02fffe"))


@given(st.binary(max_size=200))
def test_garbage_gives_a_packet_or_one_error(garbage: bytes) -> None:
    with contextlib.suppress(PeerProtocolError):
        decode(garbage)
