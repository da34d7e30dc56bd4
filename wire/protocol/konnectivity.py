"""Konnectivity's packets: the protobuf messages both gRPC services carry, written by hand.

Job: `encode(packet) -> bytes`, `decode(bytes) -> Packet`. No I/O, no ids invented. Neighbours: `konnectivity.protocol`
frames packets as gRPC messages, the API server's gRPC egress speaks them too (siblings meet on the wire, so the format
is here). Rule: what a real peer would ignore (unknown fields, unknown types) is ignored; what is not protobuf at all
raises PeerProtocolError and nothing else.

    Packet        1 type (enum)   then one of:
    DIAL_REQ  0   2 dialRequest   {1 protocol, 2 address, 3 random}
    DIAL_RSP  1   3 dialResponse  {1 error, 2 connectID, 3 random}       100 error type (ours)
    CLOSE_REQ 2   5 closeRequest  {1 connectID}                          numbering of closes is 5 and 6 ...
    CLOSE_RSP 3   6 closeResponse {1 error, 2 connectID}
    DATA      4   4 data          {1 connectID, 2 error, 3 data}         ... because DATA sits at 4
    DIAL_CLS  5   7 closeDial     {1 random}
    DRAIN     6   8 drain         {}
    EOF      64  64 eof           {1 connectID}                          ours: no more bytes this way, half-close
    CREDIT   65  65 credit        {1 connectID, 2 bytes}                 ours: so many more bytes may be sent
    RESET    66  66 reset         {1 connectID, 2 error}                 ours: ended early, in both directions

The last three, and field 100, go only to a peer that announced in its metadata that it knows them.

`dial_id` is "random" on the wire: who asked. `connect_id` is the agent's number for what it dialled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from wire.errors import PeerProtocolError

Buffer = bytes | bytearray | memoryview

SMALL = 512
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
ERROR_TYPE = 100  # a field of DialResponse that only our two ends know


class PacketType(IntEnum):
    DIAL_REQ = 0
    DIAL_RSP = 1
    CLOSE_REQ = 2
    CLOSE_RSP = 3
    DATA = 4
    DIAL_CLS = 5
    DRAIN = 6
    EOF = 64
    CREDIT = 65
    RESET = 66


@dataclass(frozen=True, slots=True)
class DialRequest:
    address: str
    dial_id: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class DialResponse:
    dial_id: int
    connect_id: int = 0
    error: str = ""
    error_type: str = ""


@dataclass(frozen=True, slots=True)
class CloseRequest:
    connect_id: int


@dataclass(frozen=True, slots=True)
class CloseResponse:
    connect_id: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    connect_id: int
    data: Buffer


@dataclass(frozen=True, slots=True)
class CloseDial:
    dial_id: int


@dataclass(frozen=True, slots=True)
class Drain:
    pass


@dataclass(frozen=True, slots=True)
class EndOfFile:
    connect_id: int


@dataclass(frozen=True, slots=True)
class Credit:
    connect_id: int
    size: int


@dataclass(frozen=True, slots=True)
class Reset:
    connect_id: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A packet type newer than this program. Real peers ignore those, and so do we."""

    type: int


PlainPacket = DialRequest | DialResponse | CloseRequest | CloseResponse | Data | CloseDial | Drain | Unknown
Packet = PlainPacket | EndOfFile | Credit | Reset
Fields = dict[int, "int | Buffer"]


# ---------------------------------------------------------------- writing


def encode(packet: Packet) -> bytes:
    match packet:
        case DialRequest(address, dial_id, protocol):
            # Enum 0 is proto3's default and is not written: a DIAL_REQ begins with its payload, byte 0x12.
            return _message(2, _text(1, protocol) + _text(2, address) + _number(3, dial_id))
        case DialResponse(dial_id, connect_id, error, error_type):
            body = _text(1, error) + _number(2, connect_id) + _number(3, dial_id) + _text(ERROR_TYPE, error_type)
            return b"\x08\x01" + _message(3, body)
        case CloseRequest(connect_id):
            return b"\x08\x02" + _message(5, _number(1, connect_id))
        case CloseResponse(connect_id, error):
            return b"\x08\x03" + _message(6, _text(1, error) + _number(2, connect_id))
        case Data(connect_id, data):
            return data_head(connect_id, len(data)) + data
        case CloseDial(dial_id):
            return b"\x08\x05" + _message(7, _number(1, dial_id))
        case Drain():
            return b"\x08\x06\x42\x00"
        case EndOfFile(connect_id):
            return b"\x08\x40" + _message(64, _number(1, connect_id))
        case Credit(connect_id, size):
            return b"\x08\x41" + _message(65, _number(1, connect_id) + _number(2, size))
        case Reset(connect_id, error):
            return b"\x08\x42" + _message(66, _number(1, connect_id) + _text(2, error))
        case Unknown(kind):
            return b"\x08" + varint(kind)


def data_head(connect_id: int, length: int) -> bytes:
    """All of a DATA packet but its payload, so that the payload need not be copied. Never send `length` 0."""
    field = _number(1, connect_id) + b"\x1a" + varint(length)
    return b"\x08\x04\x22" + varint(len(field) + length) + field


def varint(value: int) -> bytes:
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= 0xFFFF_FFFF_FFFF_FFFF  # a negative int64 is ten bytes on the wire
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return bytes((field << 3,)) + varint(value) if value else b""


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode()) if text else b""


def _message(field: int, body: bytes) -> bytes:
    return varint(field << 3 | BYTES) + varint(len(body)) + body


# ---------------------------------------------------------------- reading


def decode(packet: Buffer) -> Packet:
    """The packet in `packet`; a DATA's payload is a view of it, not a copy. Raises PeerProtocolError."""
    # Small packets are read twice as fast as bytes; copying them costs nothing.
    fields = _fields(bytes(packet) if len(packet) <= SMALL else memoryview(packet))
    kind = fields.get(1, 0)
    if not isinstance(kind, int):
        raise PeerProtocolError("konnectivity packet: type is not a number")
    if kind not in _READERS:
        return Unknown(kind)
    field, read = _READERS[kind]
    payload = fields.get(field, b"")
    if isinstance(payload, int):
        raise PeerProtocolError(f"konnectivity packet: payload of type {kind} is a number")
    # A payload that belongs to another type reads as absent, as Go's generated getters do it.
    return read(_fields(payload))


def _read_dial_request(fields: Fields) -> Packet:
    return DialRequest(_str(fields, 2), _int(fields, 3), _str(fields, 1))


def _read_dial_response(fields: Fields) -> Packet:
    return DialResponse(_int(fields, 3), _int(fields, 2), _str(fields, 1), _str(fields, ERROR_TYPE))


def _read_data(fields: Fields) -> Packet:
    data = fields.get(3, b"")
    if isinstance(data, int):
        raise PeerProtocolError("konnectivity packet: data is a number")
    return Data(_int(fields, 1), data)


_READERS: dict[int, tuple[int, Callable[[Fields], Packet]]] = {
    PacketType.DIAL_REQ: (2, _read_dial_request),
    PacketType.DIAL_RSP: (3, _read_dial_response),
    PacketType.DATA: (4, _read_data),
    PacketType.CLOSE_REQ: (5, lambda fields: CloseRequest(_int(fields, 1))),
    PacketType.CLOSE_RSP: (6, lambda fields: CloseResponse(_int(fields, 2), _str(fields, 1))),
    PacketType.DIAL_CLS: (7, lambda fields: CloseDial(_int(fields, 1))),
    PacketType.DRAIN: (8, lambda fields: Drain()),
    PacketType.EOF: (64, lambda fields: EndOfFile(_int(fields, 1))),
    PacketType.CREDIT: (65, lambda fields: Credit(_int(fields, 1), _int(fields, 2))),
    PacketType.RESET: (66, lambda fields: Reset(_int(fields, 1), _str(fields, 2))),
}


def _int(fields: Fields, number: int) -> int:
    value = fields.get(number, 0)
    if not isinstance(value, int):
        raise PeerProtocolError(f"konnectivity packet: field {number} is not a number")
    return value - (1 << 64) if value >> 63 else value


def _str(fields: Fields, number: int) -> str:
    value = fields.get(number, b"")
    if isinstance(value, int):
        raise PeerProtocolError(f"konnectivity packet: field {number} is not text")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise PeerProtocolError(f"konnectivity packet: field {number} is not UTF-8") from error


def _fields(view: Buffer) -> Fields:
    """One message's fields by number; the last of a kind counts, as proto3 says."""
    fields: Fields = {}
    at, end = 0, len(view)
    while at < end:
        key = view[at]
        at += 1
        if key >= 0x80:
            key, at = _varint(view, at - 1, end)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise PeerProtocolError("konnectivity packet: field number 0")
        if kind == VARINT:
            fields[number], at = _varint(view, at, end)
            continue
        if kind == BYTES:
            length, at = _varint(view, at, end)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise PeerProtocolError(f"konnectivity packet: wire type {kind}")
        if length > end - at:
            raise PeerProtocolError("konnectivity packet: truncated")
        fields[number] = view[at : at + length]
        at += length
    return fields


def _varint(view: Buffer, at: int, end: int) -> tuple[int, int]:
    if at < end and view[at] < 0x80:
        return view[at], at + 1
    value = shift = 0
    while at < end and shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise PeerProtocolError("konnectivity packet: bad varint")
