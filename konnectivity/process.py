"""What both programs do around their work: logs, the event loop, signals, exit codes.

A first SIGTERM or SIGINT asks to end (drain), a second one ends at once. Exit 0 after a signal, 1 with one line on a
bad configuration.
"""

import asyncio
import ctypes
import gc
import logging
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from konnectivity.flags import BadConfiguration

try:
    from uvloop import run as run_loop
except ImportError:  # uvloop has no Windows; it is speed, not function
    from asyncio import run as run_loop  # type: ignore[assignment]


class Signals:
    """`asked` is set by the first signal, `insisted` by the second."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._receive)

    def _receive(self) -> None:
        (self.insisted if self.asked.is_set() else self.asked).set()


KEPT_MEMORY = 16 << 20  # freed and not given back, at most

Main = Callable[[Sequence[str] | None], Coroutine[Any, Any, None]]


def run(main: Main, arguments: Sequence[str] | None = None) -> int:
    """Run a program to its end; its exit code."""
    set_up_logs(arguments if arguments is not None else sys.argv[1:])
    # What was imported lives for ever, and a connection's objects mostly die by reference count: look less often.
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    keep_freed_memory()
    # libuv would enter its ring once per new socket; epoll_ctl alone costs a tenth less CPU per connection. uvloop 0.23
    # brought a libuv that no longer asks.
    os.environ.setdefault("UV_USE_IO_URING", "0")
    try:
        run_loop(main(arguments))
    except BadConfiguration as error:
        print(f"konnectivity: {error}", file=sys.stderr)
        return 1
    except (OSError, ssl.SSLError) as error:
        print(f"konnectivity: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def keep_freed_memory() -> None:
    """Each piece of a bulk stream is a new object of a quarter of a mebibyte. glibc gives the end of the heap back when
    it dies and asks for it again, page by page, for the next one: a tenth of all CPU time. See mallopt(3)."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # not glibc
    mallopt(trim_threshold, KEPT_MEMORY)
    mallopt(top_pad, 1 << 20)
    mallopt(mmap_threshold, 4 << 20)


def set_up_logs(arguments: Sequence[str]) -> None:
    """`level time room event key=value` on stderr; -v 4 and above (klog's) is debug."""
    loud = any(part in ("--v=4", "-v=4", "--v=5", "-v=5", "--v=6", "--v=9") for part in arguments)
    logging.Formatter.converter = time.gmtime
    # hpack logs header values, tokens among them.
    logging.getLogger("hpack").setLevel(logging.WARNING)
    logging.basicConfig(
        level=logging.DEBUG if loud else logging.INFO,
        format="%(levelname)s %(asctime)s %(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%SZ",
        stream=sys.stderr,
    )
