"""The guardian: a process that does nothing until the supervisor ends, and then ends whatever is left.

My job: be the parent to which every orphan of a cluster falls, and outlive a supervisor that is killed. A program's
children may have sessions, groups and environments of their own; that they have an ancestor is the one thing they
cannot change. I own nothing else, and stay as small as a fork is.
"""

import contextlib
import os
import signal
import time
from typing import NoReturn

from miniplane.processes import adopt_orphans, children, die_with_parent


def guard() -> None:
    """Returns in a child, which is the supervisor from then on; the caller stays behind as its guardian."""
    adopt_orphans()
    guardian = os.getpid()
    supervisor = os.fork()
    if supervisor != 0:
        _keep_watch(supervisor)
    die_with_parent(guardian, signal.SIGTERM)  # an orderly end, if it is the guardian that is killed


def _keep_watch(supervisor: int) -> NoReturn:
    """SIGTERM is for the supervisor; everything else is waited out."""
    signal.signal(signal.SIGTERM, lambda *_: _send(supervisor, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _close_streams()
    code = 1
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == supervisor:
            code = os.waitstatus_to_exitcode(status)
            break
    _bury_orphans()
    os._exit(code if code >= 0 else 1)


def _close_streams() -> None:
    """The launcher waits for the end of our standard output; the supervisor's copy is the one that speaks."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _bury_orphans() -> None:
    """A killed orphan's children become ours in turn, so: until there is nobody."""
    while True:
        for pid in children(os.getpid()):
            _send(pid, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.005)  # they are dying; nothing tells when
        except ChildProcessError:
            return


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
