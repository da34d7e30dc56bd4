"""One request on its way through the filters.

My job: carry what the filters found out (RequestInfo, user, audit annotations) to the endpoint. Lives for one request.
"""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from aiohttp import web

from miniapiserver.auditevent import AuditEvent
from miniapiserver.authentication.interface import ANONYMOUS_USER, UserInfo
from miniapiserver.requestinfo import RequestInfo, is_true, parse

BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")


def _origin_form(target: str) -> str:
    """The path of a target that is a whole URL (RFC 9112 section 3.2.2); `*` and `host:port` stay what they are."""
    scheme, separator, rest = target.partition("://")
    return "/" + rest.partition("/")[2] if separator and scheme.lower() in ("http", "https") else target


class Request:
    """`query` holds the first value of each parameter, `query_list` all of them in order.

    `warnings` become `Warning: 299` headers. `audit` is None when the audit log is off for this request.
    """

    __slots__ = ("annotations", "audit", "audit_id", "http", "impersonator", "info", "query", "query_list", "started",
                 "user", "warnings")

    def __init__(self, http: web.BaseRequest, audit_id: str, started: float) -> None:
        self.http = http
        self.audit_id = audit_id
        self.started = started
        path, _, query = http.raw_path.partition("?")
        if not path.startswith("/"):
            path = _origin_form(path)
        self.query_list: list[tuple[str, str]] = parse_qsl(query, keep_blank_values=True) if query else []
        self.query: Mapping[str, str] = dict(reversed(self.query_list)) if query else {}
        self.info: RequestInfo = parse(http.method, path, self.query)
        self.user: UserInfo = ANONYMOUS_USER
        self.impersonator: UserInfo | None = None
        self.annotations: dict[str, str] = {}
        self.warnings: list[str] = []
        self.audit: AuditEvent | None = None

    @property
    def user_agent(self) -> str:
        """Whatever bytes a client sent, this is text that can be written."""
        return self.http.headers.get("User-Agent", "").encode("utf-8", "replace").decode()

    @property
    def malformed_escape(self) -> str:
        """The first `%` of the path that no two hexadecimal digits follow, as Go shows it; "" in a proper path."""
        found = BAD_ESCAPE.search(self.info.path) if "%" in self.info.path else None
        return found.group() if found else ""

    @property
    def is_dry_run(self) -> bool:
        return "dryRun" in self.query

    def flag(self, name: str) -> bool:
        return is_true(self.query.get(name))

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.query_list if key == name]
