"""`metav1.Status` as plain dicts: how Kubernetes says what came of it.

I only build them; who sends them decides when. Shapes: apimachinery `meta/v1` and `kubelet remotecommand`.
"""

from collections.abc import Mapping
from typing import Any

JSON = dict[str, Any]

NON_ZERO_EXIT_CODE = "NonZeroExitCode"
EXIT_CODE_CAUSE = "ExitCode"


def failure(code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> JSON:
    """A whole Status object for an HTTP answer."""
    body: JSON = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    if reason:
        body["reason"] = reason
    if details is not None:
        body["details"] = dict(details)
    body["code"] = code
    return body


def success(details: Mapping[str, Any] | None = None) -> JSON:
    """A whole Status object saying Success, as DELETE answers it."""
    body: JSON = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details is not None:
        body["details"] = dict(details)
    return body


def session_success() -> JSON:
    """What a finished exec or attach says on its error channel (v4 and later)."""
    return {"metadata": {}, "status": "Success"}


def exit_status(code: int, cause: str = "") -> JSON:
    """How a process ended. kubectl reads the exit code out of `causes`; it must be 0..255."""
    if code == 0:
        return session_success()
    if not 0 <= code <= 255:
        raise ValueError(f"exit code {code} is not 0..255")
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {cause or f'exit status {code}'}",
        "reason": NON_ZERO_EXIT_CODE,
        "details": {"causes": [{"reason": EXIT_CODE_CAUSE, "message": str(code)}]},
    }


def session_error(cause: str) -> JSON:
    """A session that failed for another reason than the process' exit code."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {cause}",
        "reason": "InternalError",
        "details": {"causes": [{"message": cause}]},
        "code": 500,
    }
