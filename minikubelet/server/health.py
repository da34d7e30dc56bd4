"""/healthz: is the kubelet itself well.

My job: named checks and their answers in upstream's form. I own the list of checks. Neighbours: `endpoint` serves
them on the main port, `localhealth` on the loopback one.
"""

from collections.abc import Callable, Mapping

from aiohttp import web

from minikubelet.server.answers import not_found, text

Check = Callable[[], str]
"""Empty if well, else what is wrong (logged, not shown)."""


class Health:
    """Lives as long as the server."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)

    def answer(self, request: web.BaseRequest) -> web.Response:
        name = request.path.removeprefix("/healthz").strip("/")
        if name:
            return self._one(name)
        excluded = set(request.query.getall("exclude", []))
        lines, failed = [], False
        for check, run in self._checks.items():
            if check in excluded:
                lines.append(f"[+]{check} excluded: ok")
            elif run():
                failed = True
                lines.append(f"[-]{check} failed: reason withheld")
            else:
                lines.append(f"[+]{check} ok")
        if failed:
            return text("\n".join([*lines, "healthz check failed"]) + "\n", 500)
        return text("\n".join([*lines, "healthz check passed"]) + "\n" if "verbose" in request.query else "ok")

    def _one(self, name: str) -> web.Response:
        check = self._checks.get(name)
        if check is None:
            raise not_found()
        if check():
            return text("internal server error: reason withheld\n", 500)
        return text("ok")


async def local_health(request: web.BaseRequest, health: Health) -> web.StreamResponse:
    """The loopback port serves nothing else."""
    if request.path != "/healthz":
        return text("404 page not found\n", 404)
    return health.answer(request)
