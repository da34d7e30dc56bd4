"""Probes and lifecycle hooks: what a handler may be.

My job: validation of `exec`, `httpGet`, `tcpSocket`, `grpc` and `sleep` wherever they stand. Words as upstream's.
"""

from typing import Any

from miniapiserver.errors import FieldError, forbidden_field, invalid, required
from miniapiserver.resources.names import http_header, port_number
from miniapiserver.resources.pods.values import choice_errors, negative_errors, objects, port_or_name_errors

JSON = dict[str, Any]

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_COUNTS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def _handler_errors(handler: JSON, grace: int | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    present = [key for key in _HANDLERS if handler.get(key) is not None]
    if not present:
        return [required(path, "must specify a handler type")]
    for position, key in enumerate(present):
        if position:
            errors.append(forbidden_field(f"{path}.{key}", "may not specify more than 1 handler type"))
        else:
            errors += _one_handler_errors(key, handler[key], grace, f"{path}.{key}")
    return errors


def _one_handler_errors(key: str, action: JSON, grace: int | None, path: str) -> list[FieldError]:
    if key == "exec":
        return [] if action.get("command") else [required(f"{path}.command")]
    if key == "httpGet":
        return _http_errors(action, path)
    if key == "tcpSocket":
        return port_or_name_errors(f"{path}.port", action.get("port"))
    if key == "grpc":
        return [
            invalid(f"{path}.port", action.get("port") or 0, words) for words in port_number(action.get("port") or 0)
        ]
    seconds = action.get("seconds") or 0
    if seconds < 0 or (grace is not None and seconds > grace):
        return [
            invalid(
                path,
                seconds,
                f"must be non-negative and less than terminationGracePeriodSeconds ({grace}). Note "
                "container termination will happen after the terminationGracePeriodSeconds has elapsed.",
            )
        ]
    return []


def _http_errors(action: JSON, path: str) -> list[FieldError]:
    errors = [] if action.get("path") else [required(f"{path}.path")]
    errors += port_or_name_errors(f"{path}.port", action.get("port"))
    errors += choice_errors(f"{path}.scheme", action.get("scheme"), ("HTTP", "HTTPS"))
    for header in objects(action.get("httpHeaders")):
        name = header.get("name") or ""
        errors += [invalid(f"{path}.httpHeaders", name, words) for words in http_header(name)]
    return errors


def lifecycle_errors(lifecycle: JSON, grace: int, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("postStart", "preStop"):
        if (handler := lifecycle.get(key)) is not None:
            errors += _handler_errors(handler, grace, f"{path}.{key}")
    return errors


def _probe_errors(probe: JSON, path: str) -> list[FieldError]:
    errors = _handler_errors(probe, None, path)
    for key in _COUNTS:
        errors += negative_errors(f"{path}.{key}", probe.get(key))
    if (grace := probe.get("terminationGracePeriodSeconds")) is not None and grace <= 0:
        errors.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
    return errors


def liveness_errors(probe: JSON, path: str) -> list[FieldError]:
    errors = _probe_errors(probe, path)
    if (threshold := probe.get("successThreshold")) != 1:
        errors.append(invalid(f"{path}.successThreshold", threshold or 0, "must be 1"))
    return errors


startup_errors = liveness_errors


def readiness_errors(probe: JSON, path: str) -> list[FieldError]:
    errors = _probe_errors(probe, path)
    if (grace := probe.get("terminationGracePeriodSeconds")) is not None:
        errors.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, "must not be set for readinessProbes"))
    return errors
