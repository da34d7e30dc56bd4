"""Which handler answers which path.

My job: path and method to a `Match`, as go-restful decides it: unknown paths 404, known paths with another method
405. Pure. Neighbours: `endpoint` calls what is found.
"""

import enum
from dataclasses import dataclass
from urllib.parse import unquote

from minikubelet.server.answers import HTTPError, method_not_allowed, not_found


class Page(enum.Enum):
    HEALTHZ = "healthz"
    PODS = "pods"
    RUNNING_PODS = "runningpods"
    CONFIGZ = "configz"
    STATS = "stats"
    METRICS = "metrics"
    METRICS_CADVISOR = "metrics/cadvisor"
    METRICS_RESOURCE = "metrics/resource"
    METRICS_PROBES = "metrics/probes"
    LOGS = "logs"
    CONTAINER_LOGS = "containerLogs"
    EXEC = "exec"
    ATTACH = "attach"
    PORT_FORWARD = "portForward"
    RUN = "run"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Match:
    page: Page
    namespace: str = ""
    pod: str = ""
    uid: str | None = None
    container: str = ""


GET, POST = frozenset({"GET"}), frozenset({"POST"})
GET_POST = GET | POST
ANY: frozenset[str] = frozenset()

EXACT: dict[str, tuple[Page, frozenset[str]]] = {
    "/pods": (Page.PODS, GET),
    "/runningpods": (Page.RUNNING_PODS, GET),
    "/configz": (Page.CONFIGZ, ANY),
    "/stats/summary": (Page.STATS, GET_POST),
    "/metrics": (Page.METRICS, ANY),
    "/metrics/cadvisor": (Page.METRICS_CADVISOR, ANY),
    "/metrics/resource": (Page.METRICS_RESOURCE, ANY),
    "/metrics/probes": (Page.METRICS_PROBES, ANY),
}
# Path words after the first: how many, and whether a uid may stand among them.
CONTAINERS: dict[str, tuple[Page, frozenset[str], bool]] = {
    "containerLogs": (Page.CONTAINER_LOGS, GET, False),
    "exec": (Page.EXEC, GET_POST, True),
    "attach": (Page.ATTACH, GET_POST, True),
    "run": (Page.RUN, POST, True),
    "checkpoint": (Page.CHECKPOINT, POST, False),
}
DEBUGGING = frozenset({Page.CONTAINER_LOGS, Page.EXEC, Page.ATTACH, Page.PORT_FORWARD, Page.RUN, Page.RUNNING_PODS,
                       Page.LOGS})
READ_ONLY = frozenset({Page.HEALTHZ, Page.PODS, Page.STATS, Page.METRICS, Page.METRICS_CADVISOR,
                       Page.METRICS_RESOURCE, Page.METRICS_PROBES})


def match(method: str, raw_path: str) -> Match:
    """Raises HTTPError 404 or 405."""
    path = raw_path.partition("?")[0]
    if path == "/healthz" or path.startswith("/healthz/"):
        return Match(Page.HEALTHZ)
    if (exact := EXACT.get(path.rstrip("/") or "/")) is not None:
        return _allowed(method, exact[1], Match(exact[0]))
    # Empty words stay: `//exec` is no other way to write `/exec`, whose authorization goes by the path's first word.
    words = [unquote(word) for word in path.removeprefix("/").removesuffix("/").split("/")]
    if words[0] == "logs":
        return _allowed(method, GET, Match(Page.LOGS))
    if words[0] == "portForward" and len(words) in (3, 4):
        uid = words[3] if len(words) == 4 else None
        return _allowed(method, GET_POST, Match(Page.PORT_FORWARD, words[1], words[2], uid))
    if words[0] in CONTAINERS:
        page, methods, may_have_uid = CONTAINERS[words[0]]
        if len(words) == 4:
            return _allowed(method, methods, Match(page, words[1], words[2], None, words[3]))
        if len(words) == 5 and may_have_uid:
            return _allowed(method, methods, Match(page, words[1], words[2], words[3], words[4]))
    raise not_found()


def _allowed(method: str, methods: frozenset[str], found: Match) -> Match:
    if methods and method not in methods:
        raise method_not_allowed()
    return found


def refuse_debugging(page: Page) -> None:
    """Raises HTTPError 405 for what needs debugging handlers."""
    if page in DEBUGGING:
        raise HTTPError(405, "Debug endpoints are disabled.")
