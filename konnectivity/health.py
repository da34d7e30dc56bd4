"""The health and admin ports: /healthz, /ready, /readyz, /metrics.

Job: answer probes. Neighbours: server and agent say whether they are ready, by name of check. Rule: alive is not ready;
/healthz answers ok as long as the loop turns.
"""

from collections.abc import Callable, Mapping

from aiohttp import web

from wire.http import Handler

Checks = Callable[[], Mapping[str, str]]  # check name → "" if it passes, else why not
METRICS_TYPE = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


def health_handler(checks: Checks, metrics: Callable[[], str], failure_status: int) -> Handler:
    """A handler for both ports. `failure_status`: upstream's server says 500, its agent 503."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="only GET\n")
        match request.path:
            case "/healthz":
                return web.Response(text="ok")
            case "/ready" | "/readyz":
                return _ready(checks(), "verbose" in request.query, failure_status)
            case "/metrics":
                return web.Response(text=metrics(), headers=METRICS_TYPE)
        return web.Response(status=404, text="404 page not found\n")

    return handle


def _ready(results: Mapping[str, str], is_verbose: bool, failure_status: int) -> web.Response:
    failed = {name: why for name, why in results.items() if why}
    if not failed and not is_verbose:
        return web.Response(text="ok")
    lines = [f"[-]{name} failed: {why}" if why else f"[+]{name} ok" for name, why in results.items()]
    if not failed:
        return web.Response(text="\n".join([*lines, "ready check passed\n"]))
    return web.Response(status=failure_status, text="\n".join([*lines, "ready check failed\n"]))
