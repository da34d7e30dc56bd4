"""OpenAPI 2 documents in gnostic's protobuf, the only form in which client-go reads them.

My job: a Swagger 2 document (as plain JSON) to the bytes of `openapi.v2.Document` by the field numbers of gnostic's
OpenAPIv2.proto. Only what our own documents contain. Pure.
"""

from collections.abc import Callable
from typing import Any, Final

import orjson

JSON = dict[str, Any]


def encode(document: JSON) -> bytes:
    """`openapi.v2.Document`."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    paths = b"".join(_message(2, _named(path, _path_item(item))) for path, item in document["paths"].items())
    definitions = b"".join(_message(1, _named(name, schema(value))) for name, value in document["definitions"].items())
    return _text(1, document["swagger"]) + _message(2, info) + _message(8, paths) + _message(9, definitions)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode()) if value else b""


def _texts(number: int, values: list[str]) -> bytes:
    return b"".join(_message(number, value.encode()) for value in values)


def _bool(number: int, value: bool) -> bytes:
    return _varint(number << 3) + b"\x01" if value else b""


def _named(name: str, value: bytes) -> bytes:
    """gnostic's NamedX {1 name, 2 value}, which is how it writes maps."""
    return _text(1, name) + _message(2, value)


def _any(value: Any) -> bytes:
    """gnostic's Any {2 yaml}; JSON is YAML."""
    return _message(2, orjson.dumps(value) + b"\n")


def _extensions(number: int, owner: JSON) -> bytes:
    return b"".join(_message(number, _named(key, _any(value))) for key, value in owner.items() if key.startswith("x-"))


def _properties(number: int, value: JSON) -> bytes:
    return _message(number, b"".join(_message(1, _named(name, schema(inner))) for name, inner in value.items()))


_SCHEMA: Final[dict[str, Callable[[Any], bytes]]] = {
    "$ref": lambda value: _text(1, value),
    "format": lambda value: _text(2, value),
    "description": lambda value: _text(4, value),
    "default": lambda value: _message(5, _any(value)),
    "required": lambda value: _texts(19, value),
    "additionalProperties": lambda value: _message(21, _message(1, schema(value))),
    "type": lambda value: _message(22, _text(1, value)),
    "items": lambda value: _message(23, _message(1, schema(value))),
    "properties": lambda value: _properties(25, value),
}


def schema(value: JSON) -> bytes:
    return b"".join(_SCHEMA[key](inner) for key, inner in value.items() if key in _SCHEMA) + _extensions(31, value)


_METHODS: Final = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def _path_item(item: JSON) -> bytes:
    operations = b"".join(_message(number, _operation(item[method])) for method, number in _METHODS.items()
                          if method in item)
    return operations + _parameters(9, item.get("parameters", []))


def _operation(operation: JSON) -> bytes:
    responses = b"".join(_message(1, _named(code, _message(1, _response(value))))
                         for code, value in operation["responses"].items())
    return (_texts(1, operation.get("tags", [])) + _text(3, operation["description"])
            + _text(5, operation["operationId"]) + _texts(6, operation["produces"]) + _texts(7, operation["consumes"])
            + _parameters(8, operation.get("parameters", [])) + _message(9, responses) + _extensions(13, operation))


def _response(response: JSON) -> bytes:
    answer = _message(2, _message(1, schema(response["schema"]))) if "schema" in response else b""
    return _text(1, response["description"]) + answer


def _parameters(number: int, parameters: list[JSON]) -> bytes:
    """ParametersItem {1 Parameter {1 body | 2 non-body {3 query | 4 path}}}."""
    return b"".join(_message(number, _message(1, _parameter(parameter))) for parameter in parameters)


def _parameter(parameter: JSON) -> bytes:
    place = parameter["in"]
    if place == "body":
        return _message(1, _text(2, parameter["name"]) + _text(3, place) + _bool(4, parameter.get("required", False))
                        + _message(5, schema(parameter["schema"])))
    unique = _bool(20 if place == "query" else 19, parameter.get("uniqueItems", False))
    kind = 6 if place == "query" else 5
    common = (_bool(1, parameter.get("required", False)) + _text(2, place) + _text(3, parameter.get("description", ""))
              + _text(4, parameter["name"]) + _text(kind, parameter["type"]) + unique)
    return _message(2, _message(3 if place == "query" else 4, common))
