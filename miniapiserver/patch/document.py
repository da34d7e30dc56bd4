"""Patch bodies as Python values.

My job: read the body of a JSON, merge or strategic merge patch, name duplicate fields, and copy what a patch may
change.
"""

from typing import Any, Final

import orjson

from miniapiserver.patch.errors import BadPatch
from miniapiserver.schema import gojson
from miniapiserver.schema.decode import TooDeep, has_duplicates

JSON = dict[str, Any]

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
_OPERATION_FIELDS: Final = frozenset({"op", "path", "from", "value"})


def read(body: bytes, content_type: str) -> tuple[Any, list[str]]:
    """(patch, problems): a list of operations for a JSON patch, else an object. Raises BadPatch."""
    bare = content_type.partition(";")[0].strip().lower()
    wrapped = "error decoding patch: " if bare != STRATEGIC_PATCH else ""
    try:
        patch = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadPatch(wrapped + gojson.syntax_error(body)) from error
    try:
        problems = gojson.duplicate_fields(body) if has_duplicates(body, patch) else []
    except TooDeep as error:
        raise BadPatch(f"{wrapped}{error}") from error
    if bare == JSON_PATCH:
        if not isinstance(patch, list):
            raise BadPatch(f"{wrapped}json: cannot unmarshal {_json_type(patch)} into Go value of type "
                           "[]handlers.jsonPatchOp")
        problems = [f"json patch {problem}" for problem in problems + _unknown_fields(patch)]
    elif not isinstance(patch, dict):
        raise BadPatch(f"{wrapped}json: cannot unmarshal {_json_type(patch)} into Go value of type "
                       "map[string]interface {}")
    return patch, problems


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "bool", type(None): "null"}
    return names.get(type(value), "number")


def _unknown_fields(operations: list[Any]) -> list[str]:
    return [f'unknown field "[{index}].{key}"' for index, operation in enumerate(operations)
            if isinstance(operation, dict) for key in operation if key not in _OPERATION_FIELDS]


def copy(value: Any) -> Any:
    """A deep copy; values are JSON, so writing and reading is the fastest one there is."""
    return orjson.loads(orjson.dumps(value))


def mark(value: Any) -> bytes:
    """Equal for equal JSON values only (Python holds 1 and true for equal)."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
