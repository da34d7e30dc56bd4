"""What can be wrong with a patch, in upstream's words (apiserver `handlers/patch.go`).

My job: the Status errors that the three patch formats share. I own no format.
"""

from typing import Any

from miniapiserver.errors import BadRequest, Invalid, PlainInternal


class Unprocessable(Invalid):
    """A patch that parses and does not fit the object. Upstream's client message, without the cause."""

    def __init__(self, cause: str) -> None:
        super().__init__("the server rejected our request due to an error in our request", details={})
        self.cause = cause


class BadPatch(BadRequest):
    """A body that is no patch at all."""


class UnmergeablePatch(PlainInternal):
    """A strategic merge patch that asks for the impossible; upstream answers 500 with these words."""


def go_text(value: Any) -> str:
    """A value as Go's `%v` prints it: `map[name:x ports:[80]]`."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(go_text(item) for item in value) + "]"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
