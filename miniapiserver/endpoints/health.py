"""`/healthz`, `/livez`, `/readyz` and their single checks (apiserver `server/healthz`).

My job: named checks → a page in upstream's form. I own the list of checks; whoever can fail registers one.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from miniapiserver.endpoints.responses import not_found_page, text
from miniapiserver.request import Request


@dataclass(frozen=True, slots=True)
class Check:
    """`run()` returns "" when healthy, else the reason (which goes to the log, not to the client). It may have to
    wait."""

    name: str
    run: Callable[[], str | Awaitable[str]]

    async def problem(self) -> str:
        found = self.run()
        return found if isinstance(found, str) else await found


log = logging.getLogger("health")

PING = Check("ping", lambda: "")


class Health:
    """`live` checks answer all three endpoints, `ready` ones only `/readyz`."""

    def __init__(self, live: tuple[Check, ...] = (), ready: tuple[Check, ...] = ()) -> None:
        self._live: list[Check] = [PING, *live]
        self._ready: list[Check] = list(ready)

    def add(self, check: Check, *, ready_only: bool = False) -> None:
        (self._ready if ready_only else self._live).append(check)

    def checks(self, endpoint: str) -> list[Check]:
        return self._live + self._ready if endpoint == "readyz" else self._live

    async def answer(self, request: Request) -> web.Response:
        endpoint, _, name = request.info.path.strip("/").partition("/")
        checks = self.checks(endpoint)
        if name:
            checks = [check for check in checks if check.name == name]
            if not checks:
                return not_found_page(request)
        return await _page(request, f"{endpoint}/{name}" if name else endpoint, checks)


async def _page(request: Request, endpoint: str, checks: list[Check]) -> web.Response:
    excluded = {name for value in request.all("exclude") for name in value.split(",")}
    lines, failed = [], False
    for check in checks:
        if check.name in excluded:
            excluded.discard(check.name)
            lines.append(f"[+]{check.name} excluded: ok")
        elif problem := await check.problem():
            failed = True
            log.warning('health.failed endpoint=%s check=%s reason="%s"', endpoint, check.name, problem)
            lines.append(f"[-]{check.name} failed: reason withheld")
        else:
            lines.append(f"[+]{check.name} ok")
    if excluded:
        quoted = ", ".join(f'"{name}"' for name in sorted(excluded))
        lines.append(f"warn: some health checks cannot be excluded: no matches for {quoted}")
    if failed:
        return text(request, "\n".join([*lines, f"{endpoint} check failed", ""]), 500)
    if not request.flag("verbose"):
        return text(request, "ok")
    return text(request, "\n".join([*lines, f"{endpoint} check passed", ""]))
