"""Objects as stored bytes and back.

My job: the canonical stored form (compact JSON, kind, apiVersion and metadata first, no resourceVersion) and the
splice that adds a revision without parsing. The watch cache relies on the same form. Pure.
"""

from typing import Any

import orjson

from miniapiserver.watchcache.cached import splice

JSON = dict[str, Any]


def encode(obj: JSON) -> bytes:
    """The stored form. `obj` keeps its own resourceVersion; the bytes have none."""
    metadata = obj["metadata"]
    if "resourceVersion" in metadata:
        metadata = {key: value for key, value in metadata.items() if key != "resourceVersion"}
    head = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": metadata}
    return orjson.dumps(head | {key: value for key, value in obj.items() if key not in head})


def with_revision(data: bytes, revision: int) -> bytes:
    """The stored form as clients see it."""
    return splice(data, revision)


def decode(data: bytes) -> JSON:
    obj: JSON = orjson.loads(data)
    return obj
