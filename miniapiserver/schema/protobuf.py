"""Kubernetes' protobuf: `k8s\\0` envelopes to plain JSON-shaped objects and back.

My job: read and write the wire form by the numbers in the type table; no generated code. kubectl since 1.32 sends it
for typed calls and does not fall back. I keep what is on the wire; dropping Go's zero values is `conform`'s work.
Hostile input raises BadProtobuf and nothing else.
"""

import base64
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import orjson

from miniapiserver.schema import times
from miniapiserver.schema.types import Field, Kind, Type, TypeSchema, find, for_kind

JSON = dict[str, Any]

MAGIC: Final = b"k8s\x00"
#: Nested messages; Go's own recursion would end far later, Python's not.
MAX_DEPTH: Final = 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class BadProtobuf(ValueError):
    """Bytes that are no Kubernetes protobuf object."""


def decode(body: bytes, *, default_kind: str = "") -> JSON:
    """An enveloped object as JSON would show it, with kind and apiVersion. Raises BadProtobuf."""
    if not body:
        raise BadProtobuf("empty data")
    if body[:4] != MAGIC:
        raise BadProtobuf("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        return _decode_unknown(body[4:], default_kind)
    except (times.InvalidTime, orjson.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadProtobuf(f"proto: {error}") from error


def _decode_unknown(data: bytes, default_kind: str) -> JSON:
    api_version, kind, raw, encoding = "", "", b"", b""
    for number, value in _records(data):
        if number == 1:
            meta = {key: _text(part) for key, part in _records(_bytes(value))}
            api_version, kind = meta.get(1, ""), meta.get(2, "")
        elif number == 2:
            raw = _bytes(value)
        elif number == 3:
            encoding = _bytes(value)
    if encoding:
        raise BadProtobuf(f"unsupported content encoding {_text(encoding)!r}")
    group, _, version = api_version.rpartition("/")
    schema = for_kind(group, version, kind or default_kind)
    if schema is None:
        raise BadProtobuf(f'no kind "{kind}" is registered for version "{api_version}"')
    return {"kind": kind, "apiVersion": api_version} | _decode_message(raw, schema, 0)


def encode(obj: JSON) -> bytes:
    """The enveloped object. Raises UnknownType for a kind that has no protobuf form."""
    group, _, version = obj["apiVersion"].rpartition("/")
    schema = for_kind(group, version, obj["kind"])
    if schema is None:
        raise BadProtobuf(f'no kind "{obj["kind"]}" is registered for version "{obj["apiVersion"]}"')
    meta = _record(1, obj["apiVersion"].encode()) + _record(2, obj["kind"].encode())
    return MAGIC + _record(1, meta) + _record(2, _encode_message(obj, schema)) + _record(3, b"") + _record(4, b"")


def encode_watch_event(kind: str, obj: JSON) -> bytes:
    """A frame of `application/vnd.kubernetes.protobuf;stream=watch`: length, then the event."""
    event = _record(1, kind.encode()) + _record(2, _record(1, encode(obj)))
    return struct.pack(">I", len(event)) + event


# --- reading -----------------------------------------------------------------------------------------------------

_Value = int | bytes


def _records(data: bytes) -> Iterator[tuple[int, _Value]]:
    """The records of one message: varints as int, everything else as bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise BadProtobuf("proto: illegal tag 0")
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire == _FIXED64:
            size = 8
        elif wire == _FIXED32:
            size = 4
        else:
            raise BadProtobuf(f"proto: illegal wireType {wire}")
        if size > end - at:
            raise BadProtobuf("unexpected EOF")
        yield number, data[at:at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
            if shift > 63:
                raise BadProtobuf("proto: integer overflow")
    except IndexError:
        raise BadProtobuf("unexpected EOF") from None


def _bytes(value: _Value) -> bytes:
    if isinstance(value, int):
        raise BadProtobuf("proto: wrong wireType = 0")
    return value


def _integer(value: _Value) -> int:
    if not isinstance(value, int):
        raise BadProtobuf("proto: wrong wireType = 2")
    return value - 2**64 if value >= 2**63 else value


def _text(value: _Value) -> str:
    return _bytes(value).decode()


@cache
def _numbers(name: str) -> dict[int, Field]:
    return {field.number: field for field in find(name).own.values()}


def _decode_message(data: bytes, schema: TypeSchema, depth: int) -> JSON:
    if depth > MAX_DEPTH:
        raise BadProtobuf("proto: too deeply nested")
    found: JSON = {}
    numbers = _numbers(schema.name)
    for number, value in _records(data):
        field = numbers.get(number)
        if field is not None:
            _decode_field(found, field, value, depth)
        elif number in schema.inlined:
            found |= _decode_message(_bytes(value), find(schema.inlined[number]), depth + 1)
    return found


def _decode_field(found: JSON, field: Field, value: _Value, depth: int) -> None:
    of = field.type
    if of.kind is Kind.LIST and not field.wrapped:
        items = found.setdefault(field.name, [])
        if isinstance(value, bytes) and of.of.kind in (Kind.INT32, Kind.INT64, Kind.BOOL):
            items.extend(_packed(value, of.of, depth))
        else:
            items.append(_decode_value(value, of.of, depth))
    elif of.kind is Kind.MAP:
        key, item = "", None
        for number, part in _records(_bytes(value)):
            if number == 1:
                key = _text(part)
            elif number == 2:
                item = _decode_value(part, of.of, depth)
        found.setdefault(field.name, {})[key] = item if item is not None else _absent(of.of, depth)
    else:
        found[field.name] = _decode_value(value, of, depth)


def _absent(of: Type, depth: int) -> Any:
    """The value of a map entry that carries none."""
    if of.kind is Kind.BOOL:
        return False
    return 0 if of.kind in (Kind.INT32, Kind.INT64) else _decode_value(b"", of, depth)


def _packed(data: bytes, of: Type, depth: int) -> Iterator[Any]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield _decode_value(value, of, depth)


def _decode_value(value: _Value, of: Type, depth: int) -> Any:
    if of.kind is Kind.STRUCT:
        return _decode_message(_bytes(value), of.struct, depth + 1)
    if of.kind is Kind.LIST:  # a list inside a map or list is a message of its own: {1: repeated items}
        return [_decode_value(part, of.of, depth + 1) for number, part in _records(_bytes(value)) if number == 1]
    return _READ[of.kind](value, depth)


def _read_double(value: _Value, depth: int) -> float:
    raw = _bytes(value)
    if len(raw) != 8:
        raise BadProtobuf("proto: wrong size of a double")
    number = float(struct.unpack("<d", raw)[0])
    if number != number or number in (float("inf"), float("-inf")):
        raise BadProtobuf("proto: a double that JSON has no word for")
    return number


def _seconds(value: _Value) -> tuple[int, int]:
    parts = {number: _integer(part) for number, part in _records(_bytes(value))}
    return parts.get(1, 0), parts.get(2, 0)


def _read_time(value: _Value, depth: int) -> str | None:
    if not value:
        return None
    return times.render(*_seconds(value))


def _read_micro_time(value: _Value, depth: int) -> str | None:
    if not value:
        return None
    seconds, nanos = _seconds(value)
    if not 0 <= nanos < 10**9:
        raise BadProtobuf("proto: nanoseconds out of range")
    return times.render(seconds, nanos, micro=True)


def _read_quantity(value: _Value, depth: int) -> str:
    parts = dict(_records(_bytes(value)))
    return _text(parts.get(1, b"")) or "0"


def _read_int_or_string(value: _Value, depth: int) -> int | str:
    parts = dict(_records(_bytes(value)))
    if _integer(parts.get(1, 0)) == 1:
        return _text(parts.get(3, b""))
    return _integer(parts.get(2, 0))


def _read_raw(value: _Value, depth: int) -> Any:
    parts = dict(_records(_bytes(value)))
    raw = _bytes(parts.get(1, b""))
    if not raw:
        return None
    if depth > MAX_DEPTH:
        raise BadProtobuf("proto: too deeply nested")
    return _decode_unknown(raw[4:], "") if raw[:4] == MAGIC else orjson.loads(raw)


_SCHEMA_PROPS: Final = "apiextensions.v1.JSONSchemaProps"


def _read_schema_union(value: _Value, depth: int) -> Any:
    """JSONSchemaPropsOrArray {1 schema, 2 schemas} and …OrStringArray {1 schema, 2 property}."""
    schemas: list[Any] = []
    for number, part in _records(_bytes(value)):
        if number == 1:
            return _decode_message(_bytes(part), find(_SCHEMA_PROPS), depth + 1)
        schemas.append(part)
    return [_decode_message(_bytes(part), find(_SCHEMA_PROPS), depth + 1) for part in schemas]


def _read_schema_strings(value: _Value, depth: int) -> Any:
    words: list[str] = []
    for number, part in _records(_bytes(value)):
        if number == 1:
            return _decode_message(_bytes(part), find(_SCHEMA_PROPS), depth + 1)
        words.append(_text(part))
    return words


def _read_schema_bool(value: _Value, depth: int) -> Any:
    parts = dict(_records(_bytes(value)))
    if 2 in parts:
        return _decode_message(_bytes(parts[2]), find(_SCHEMA_PROPS), depth + 1)
    return bool(parts.get(1, 0))


_READ: Final[dict[Kind, Callable[[_Value, int], Any]]] = {
    Kind.STRING: lambda value, depth: _text(value),
    Kind.BOOL: lambda value, depth: bool(_integer(value)),
    Kind.INT32: lambda value, depth: _integer(value),
    Kind.INT64: lambda value, depth: _integer(value),
    Kind.DOUBLE: _read_double,
    Kind.BYTES: lambda value, depth: base64.b64encode(_bytes(value)).decode(),
    Kind.TIME: _read_time,
    Kind.MICRO_TIME: _read_micro_time,
    Kind.DURATION: lambda value, depth: times.render_duration(_seconds(value)[0]),
    Kind.QUANTITY: _read_quantity,
    Kind.INT_OR_STRING: _read_int_or_string,
    Kind.RAW: _read_raw,
    Kind.FIELDS: _read_raw,
    Kind.ANY: _read_raw,
    Kind.SCHEMA_OR_ARRAY: _read_schema_union,
    Kind.SCHEMA_OR_BOOL: _read_schema_bool,
    Kind.SCHEMA_OR_STRINGS: _read_schema_strings,
}


# --- writing -----------------------------------------------------------------------------------------------------


def _number(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _record(number: int, data: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(data)) + data


def _varint_record(number: int, value: int) -> bytes:
    return _number(number << 3 | _VARINT) + _number(value)


def _encode_message(obj: JSON, schema: TypeSchema) -> bytes:
    parts = [(field.number, _encode_field(field, obj[name]))
             for name, field in schema.own.items() if obj.get(name) is not None]
    for number, inner in schema.inlined.items():
        parts.append((number, _record(number, _encode_message(obj, find(inner)))))
    return b"".join(part for _, part in sorted(parts))


def _encode_field(field: Field, value: Any) -> bytes:
    of, number = field.type, field.number
    if of.kind is Kind.LIST and not field.wrapped:
        return b"".join(_encode_value(number, of.of, item) for item in value)
    if of.kind is Kind.MAP:
        return b"".join(_record(number, _record(1, key.encode()) + _encode_value(2, of.of, value[key]))
                        for key in sorted(value))
    return _encode_value(number, of, value)


def _encode_value(number: int, of: Type, value: Any) -> bytes:
    if of.kind in (Kind.INT32, Kind.INT64, Kind.BOOL):
        return _varint_record(number, int(value))
    if of.kind is Kind.DOUBLE:
        return _number(number << 3 | _FIXED64) + struct.pack("<d", value)
    if of.kind is Kind.STRUCT:
        return _record(number, _encode_message(value, of.struct))
    if of.kind is Kind.LIST:
        return _record(number, b"".join(_encode_value(1, of.of, item) for item in value))
    return _record(number, _WRITE[of.kind](value))


def _write_time(value: str | None) -> bytes:
    if value is None:
        return b""
    seconds, nanos = times.parse(value)
    return _varint_record(1, seconds) + _varint_record(2, nanos)


def _write_int_or_string(value: int | str) -> bytes:
    if isinstance(value, str):
        return _varint_record(1, 1) + _varint_record(2, 0) + _record(3, value.encode())
    return _varint_record(1, 0) + _varint_record(2, value) + _record(3, b"")


def _write_schema_union(value: Any) -> bytes:
    props = find(_SCHEMA_PROPS)
    if isinstance(value, dict):
        return _record(1, _encode_message(value, props))
    return b"".join(_record(2, item.encode() if isinstance(item, str) else _encode_message(item, props))
                    for item in value)


def _write_schema_bool(value: Any) -> bytes:
    if isinstance(value, dict):
        return _varint_record(1, 1) + _record(2, _encode_message(value, find(_SCHEMA_PROPS)))
    return _varint_record(1, int(value))


_WRITE: Final[dict[Kind, Callable[[Any], bytes]]] = {
    Kind.STRING: lambda value: value.encode(),
    Kind.BYTES: base64.b64decode,
    Kind.TIME: _write_time,
    Kind.MICRO_TIME: _write_time,
    Kind.DURATION: lambda value: _varint_record(1, times.parse_duration(value)),
    Kind.QUANTITY: lambda value: _record(1, value.encode()),
    Kind.INT_OR_STRING: _write_int_or_string,
    Kind.RAW: lambda value: _record(1, orjson.dumps(value)),
    Kind.FIELDS: lambda value: _record(1, orjson.dumps(value)),
    Kind.ANY: lambda value: _record(1, orjson.dumps(value)),
    Kind.SCHEMA_OR_ARRAY: _write_schema_union,
    Kind.SCHEMA_OR_BOOL: _write_schema_bool,
    Kind.SCHEMA_OR_STRINGS: _write_schema_union,
}
