"""What an event loop reports that nobody can act on.

My job: keep uvloop's complaints about connections that ended under it out of the error log. TLS reading that was
resumed is done one turn later; if the socket has closed by then, uvloop reports a fatal error of a connection that
is over anyway, with a traceback. Everything else goes where it went.
"""

import asyncio
import logging
from typing import Any

_log = logging.getLogger("wire.loop")

#: The end of uvloop's message about a handle that is closed (uvloop `UVHandle._ensure_alive`).
CLOSED_HANDLE = "the handler is closed"


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception handler for `loop.set_exception_handler`."""
    error = context.get("exception")
    if isinstance(error, RuntimeError) and CLOSED_HANDLE in str(error):
        _log.debug('connection.over reason="%s"', context.get("message", ""))
        return
    loop.default_exception_handler(context)
