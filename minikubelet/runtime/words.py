"""Start failures in the words kubectl users know from runc.

My job: init's step and errno into one exception. Pure.
"""

import errno
import os

from minikubelet.runtime.interface import ExecutableNotFound, StartFailure
from minikubelet.runtime.launching import LaunchFailed

NOT_EXECUTABLE = {errno.EACCES, errno.EISDIR, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP, errno.EPERM}


def start_failure(failed: LaunchFailed, program: str, directory: str) -> StartFailure:
    """What to raise for `failed`. 127: no such program; 126: it is there and cannot be run."""
    number = failed.number
    reason = os.strerror(number).lower() if number else ""
    if failed.step == "exec" and number == errno.ENOENT:
        where = "executable file not found in $PATH" if "/" not in program else f"stat {program}: {reason}"
        return ExecutableNotFound(f'exec: "{program}": {where}', number, 127)
    if failed.step == "exec" and number in NOT_EXECUTABLE:
        return ExecutableNotFound(f'exec: "{program}": {reason}', number, 126)
    if failed.step == "chdir":
        return StartFailure(f'chdir to working directory "{directory}": {reason}', number)
    return StartFailure(str(failed), number)
