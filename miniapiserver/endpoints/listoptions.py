"""Options of lists and watches, checked in upstream's words.

My job: query → ListOptions (apimachinery `internalversion/validation`, apiserver `handlers/get.go`). Pure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from miniapiserver.errors import APIError, BadRequest, FieldError, Invalid, forbidden_field, not_supported, quote
from miniapiserver.requestinfo import is_true

#: Digits beyond which no 64 bit number is written, however many zeros lead it; longer ones are not worth converting.
LONGEST_NUMBER = 64
MATCHES = ("Exact", "NotOlderThan")


class BadResourceVersion(APIError):
    """A get or watch from a version that is no number: 500 without a reason, as upstream."""

    code, reason = 500, ""


@dataclass(frozen=True, slots=True)
class ListOptions:
    """`resource_version` "" = unset. `timeout` in seconds, None when not asked for."""

    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    timeout: int | None = None
    bookmarks: bool = False
    send_initial_events: bool | None = None
    label_selector: str = ""
    field_selector: str = ""

    @property
    def revision(self) -> int:
        """The asked revision; 0 also when none was asked for. Raises BadRequest."""
        if not self.resource_version:
            return 0
        value, problem = parse_unsigned(self.resource_version)
        if problem:
            text = f"resourceVersion: Invalid value: {quote(self.resource_version)}: {problem}"
            raise BadRequest(f"invalid resource version: {text}")
        return value


def parse(query: Mapping[str, str], *, watching: bool) -> ListOptions:
    """Raises BadRequest, Invalid."""
    options = ListOptions(
        limit=max(_integer(query, "limit") or 0, 0), continue_token=query.get("continue", ""),
        resource_version=query.get("resourceVersion", ""), resource_version_match=query.get("resourceVersionMatch", ""),
        timeout=_integer(query, "timeoutSeconds"), bookmarks=is_true(query.get("allowWatchBookmarks")),
        send_initial_events=is_true(query["sendInitialEvents"]) if "sendInitialEvents" in query else None,
        label_selector=query.get("labelSelector", ""), field_selector=query.get("fieldSelector", ""))
    problems = _watch_problems(options) if watching else _list_problems(options)
    if problems:
        raise Invalid.fields("ListOptions", "meta.k8s.io", "", problems)
    return options


def _integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None or text == "":
        return None
    return parse_integer(text)


def parse_integer(text: str) -> int:
    """An int64 as Go's strconv reads it. Raises BadRequest in its words."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise BadRequest(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    if len(text) > LONGEST_NUMBER or not -1 << 63 <= int(text) < 1 << 63:
        raise BadRequest(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return int(text)


def parse_unsigned(text: str) -> tuple[int, str]:
    """A uint64 (a resourceVersion) and "", or 0 and strconv's complaint."""
    if not re.fullmatch(r"[0-9]+", text):
        return 0, f"strconv.ParseUint: parsing {quote(text)}: invalid syntax"
    if len(text) > LONGEST_NUMBER or int(text) >= 1 << 64:
        return 0, f"strconv.ParseUint: parsing {quote(text)}: value out of range"
    return int(text), ""


def _match_problems(options: ListOptions) -> list[FieldError]:
    match = options.resource_version_match
    if not match:
        return []
    problems = []
    if not options.resource_version:
        problems.append(forbidden_field("resourceVersionMatch",
                                        "resourceVersionMatch is forbidden unless resourceVersion is provided"))
    if options.continue_token:
        problems.append(forbidden_field("resourceVersionMatch",
                                        "resourceVersionMatch is forbidden when continue is provided"))
    if match not in MATCHES:
        problems.append(not_supported("resourceVersionMatch", match, (*MATCHES, "")))
    if match == "Exact" and options.resource_version == "0":
        problems.append(forbidden_field("resourceVersionMatch",
                                        'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    return problems


def _list_problems(options: ListOptions) -> list[FieldError]:
    problems = _match_problems(options)
    if options.send_initial_events is not None:
        problems.append(forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return problems


def _watch_problems(options: ListOptions) -> list[FieldError]:
    problems = []
    match = options.resource_version_match
    if options.send_initial_events is not None and match != "NotOlderThan":
        problems.append(forbidden_field("resourceVersionMatch", "sendInitialEvents requires setting "
                                        "resourceVersionMatch to NotOlderThan"))
    if options.send_initial_events is None and match:
        problems.append(forbidden_field("resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless "
                                        "sendInitialEvents is provided"))
    if match and match not in MATCHES:
        problems.append(not_supported("resourceVersionMatch", match, MATCHES))
    return problems
