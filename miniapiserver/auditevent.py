"""What is noted of one request for the audit log.

My job: the level the policy chose and the objects seen on the way. `request` carries me, filters and endpoints fill
me in, `audit` writes me down.
"""

import enum
from typing import Any

JSON = dict[str, Any]


class Level(enum.Enum):
    NONE = "None"
    METADATA = "Metadata"
    REQUEST = "Request"
    REQUEST_RESPONSE = "RequestResponse"


class AuditEvent:
    """One request's entry, filled in by the filters. Lives as long as the request."""

    __slots__ = ("level", "request_object", "response_object")

    def __init__(self, level: Level) -> None:
        self.level = level
        self.request_object: JSON | None = None
        self.response_object: JSON | None = None
