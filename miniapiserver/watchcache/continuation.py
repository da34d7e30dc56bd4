"""Continue tokens of chunked lists.

My job: (revision, next key) ↔ the opaque token, as apiserver `storage/continue.go` writes and refuses it. No I/O.
Revision -1 is the inconsistent token: go on from the key at whatever the state is now.
"""

import base64
import binascii
import posixpath
import re
from typing import Any

import orjson

from miniapiserver.errors import BadRequest

VERSION = "meta.k8s.io/v1"
NOW = -1


def encode_continue(revision: int, key: str, prefix: str) -> str:
    token = orjson.dumps({"v": VERSION, "rv": revision, "start": key.removeprefix(prefix)})
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def decode_continue(token: str, prefix: str) -> tuple[int, str]:
    """(revision, key to start at), the key always inside `prefix`. Raises BadRequest."""
    fields = _decode(token)
    version, revision, start = fields.get("v"), fields.get("rv", 0), fields.get("start", "")
    if version != VERSION:
        raise _invalid(f"continue key is not valid: server does not recognize this encoded version {version or ''}")
    if not isinstance(revision, int) or not isinstance(start, str):
        raise _invalid("continue key is not valid: json: cannot unmarshal value into Go value")
    if revision == 0:
        raise _invalid(f"continue key is not valid: incorrect encoded start resourceVersion (version {VERSION})")
    if not start:
        raise _invalid(f"continue key is not valid: encoded start key empty (version {VERSION})")
    rooted = start if start.startswith("/") else "/" + start
    if posixpath.normpath(rooted) != rooted:  # no way out of the prefix by ".."
        raise _invalid(f"continue key is not valid: {start}")
    return revision, prefix + rooted[1:]


def _decode(token: str) -> dict[str, Any]:
    if bad := re.search(r"[^A-Za-z0-9_-]", token):
        raise _invalid(f"continue key is not valid: illegal base64 data at input byte {bad.start()}")
    try:
        data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except binascii.Error:
        raise _invalid(f"continue key is not valid: illegal base64 data at input byte {len(token)}") from None
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise _invalid(f"continue key is not valid: {_go_json_error(data)}") from None
    if not isinstance(fields, dict):
        raise _invalid("continue key is not valid: json: cannot unmarshal value into Go value")
    return fields


def _go_json_error(data: bytes) -> str:
    first = data.lstrip(b" \t\r\n")[:1]
    if not first or first in b"{[\"-0123456789tfn":
        return "unexpected end of JSON input"
    shown = chr(first[0]) if 0x20 <= first[0] < 0x7F else f"\\u{first[0]:04x}"
    return f"invalid character '{shown}' looking for beginning of value"


def _invalid(why: str) -> BadRequest:
    return BadRequest(f"invalid continue token: {why}")
