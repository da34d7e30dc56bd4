"""Lifecycle hooks: postStart and preStop.

My job: run one hook and say why it failed, if it did (upstream lifecycle/handlers.go). Neighbours: `handlers` does
it, `containers` decides what a failure means.
"""

from typing import Any

from minikubelet.clock import Clock
from minikubelet.pods import handlers
from minikubelet.pods.handlers import Target, UnknownPort

JSON = dict[str, Any]

FOREVER = 24 * 3600.0


async def run_hook(hook: JSON, target: Target, clock: Clock, timeout: float = FOREVER) -> str:
    """Empty if it went well, else what went wrong."""
    if sleep := hook.get("sleep"):
        await clock.sleep(min(float(sleep.get("seconds", 0)), timeout))
        return ""
    name = target.spec["name"]
    try:
        if action := hook.get("exec"):
            command = tuple(action.get("command") or ())
            outcome = await handlers.execute(command, target.container, timeout)
            return "" if outcome.ok else (f"Exec lifecycle hook ([{' '.join(command)}]) for Container \"{name}\" "
                                          f"failed - error: command failed, message: {outcome.output!r}")
        if action := hook.get("httpGet"):
            outcome = await handlers.http_get(action, target, timeout)
            return "" if outcome.ok else (f"HTTP lifecycle hook ({action.get('path', '/')}) for Container \"{name}\" "
                                          f"failed - error: {outcome.output}")
        if action := hook.get("tcpSocket"):
            outcome = await handlers.tcp_connect(action, target, timeout)
            return "" if outcome.ok else outcome.output
    except UnknownPort as error:
        return str(error)
    return f"invalid handler: {sorted(hook)}"
