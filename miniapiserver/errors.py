"""What can go wrong with a request, as types.

My job: one class per Kubernetes `Status` reason, each able to say its own Status (apimachinery `pkg/api/errors`).
I own no I/O. Everything below the filters raises these; `filters` is the one place that turns them into HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One cause of an Invalid (apimachinery `field.Error`).

    `reason` is a StatusCause type (FieldValueRequired, FieldValueInvalid, …); `message` is the text after
    the field path, e.g. `Required value: name is required`.
    """

    field: str
    reason: str
    message: str

    def as_cause(self) -> JSON:
        return {"reason": self.reason, "message": self.message, "field": self.field}

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def required(field: str, detail: str = "") -> FieldError:
    return FieldError(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def invalid(field: str, value: object, detail: str) -> FieldError:
    return FieldError(field, "FieldValueInvalid", f"Invalid value: {quote(value)}: {detail}")


def not_supported(field: str, value: object, supported: Sequence[str]) -> FieldError:
    words = ", ".join(quote(word) for word in supported)
    return FieldError(field, "FieldValueNotSupported", f"Unsupported value: {quote(value)}: supported values: {words}")


def duplicate(field: str, value: object) -> FieldError:
    return FieldError(field, "FieldValueDuplicate", f"Duplicate value: {quote(value)}")


def forbidden_field(field: str, detail: str) -> FieldError:
    return FieldError(field, "FieldValueForbidden", f"Forbidden: {detail}")


def too_long(field: str, limit: int) -> FieldError:
    return FieldError(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def not_found_field(field: str, value: object) -> FieldError:
    return FieldError(field, "FieldValueNotFound", f"Not found: {quote(value)}")


def too_many(field: str, actual: int, limit: int) -> FieldError:
    items = "item" if limit == 1 else "items"
    return FieldError(field, "FieldValueTooMany", f"Too many: {actual}: must have at most {limit} {items}")


def quote(value: object) -> str:
    """A value as Go's field errors print it: strings in double quotes, null, numbers and booleans plain."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        if value.isprintable():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return '"' + "".join(_quoted(char) for char in value) + '"'
    import orjson

    text = orjson.dumps(_ordered(value)).decode()
    for char in "<>&":  # Go's encoder keeps HTML out of strings
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f",
            "\v": "\\v"}


def _quoted(char: str) -> str:
    if char in _ESCAPED:
        return _ESCAPED[char]
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _ordered(value: object) -> object:
    """Maps in the order of their keys, as Go prints them. What has only texts in it is a map."""
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if not isinstance(value, dict):
        return value
    is_map = all(isinstance(item, str) for item in value.values())
    return {key: _ordered(item) for key, item in (sorted(value.items()) if is_map else value.items())}


class APIError(Exception):
    """A request that fails with a Kubernetes Status. `details` is `Status.details` or None."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None, retry_after: int | None = None,
                 metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details) if details is not None else None
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        if retry_after is not None:
            self.details = (self.details or {}) | {"retryAfterSeconds": retry_after}

    def status(self) -> JSON:
        """The `v1.Status` a client reads."""
        body: JSON = {"kind": "Status", "apiVersion": "v1", "metadata": self.metadata, "status": "Failure",
                      "message": self.message}
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


def qualified(resource: str, group: str) -> str:
    """`pods`, or `leases.coordination.k8s.io`."""
    return f"{resource}.{group}" if group else resource


def _details(name: str, group: str, kind: str) -> JSON:
    return {key: value for key, value in (("name", name), ("group", group), ("kind", kind)) if value}


class BadRequest(APIError):
    code, reason = 400, "BadRequest"


class Unauthorized(APIError):
    code, reason = 401, "Unauthorized"

    def __init__(self, message: str = "Unauthorized") -> None:
        super().__init__(message)


class Forbidden(APIError):
    code, reason = 403, "Forbidden"

    @classmethod
    def resource(cls, resource: str, group: str, name: str, why: str, **more: Any) -> "Forbidden":
        subject = f'{qualified(resource, group)} "{name}"' if name else qualified(resource, group)
        return cls(f"{subject} is forbidden: {why}", details=_details(name, group, resource) | more)


class NotFound(APIError):
    code, reason = 404, "NotFound"

    @classmethod
    def resource(cls, resource: str, group: str, name: str) -> "NotFound":
        return cls(f'{qualified(resource, group)} "{name}" not found', details=_details(name, group, resource))

    @classmethod
    def path(cls) -> "NotFound":
        return cls("the server could not find the requested resource", details={})


class MethodNotAllowed(APIError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(APIError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(APIError):
    code, reason = 409, "AlreadyExists"

    @classmethod
    def resource(cls, resource: str, group: str, name: str) -> "AlreadyExists":
        return cls(f'{qualified(resource, group)} "{name}" already exists', details=_details(name, group, resource))


class Conflict(APIError):
    code, reason = 409, "Conflict"

    @classmethod
    def resource(cls, resource: str, group: str, name: str, why: str) -> "Conflict":
        return cls(f'Operation cannot be fulfilled on {qualified(resource, group)} "{name}": {why}',
                   details=_details(name, group, resource))


class Gone(APIError):
    code, reason = 410, "Gone"


class Expired(APIError):
    code, reason = 410, "Expired"


class RequestEntityTooLarge(APIError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(APIError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(APIError):
    code, reason = 422, "Invalid"

    @classmethod
    def fields(cls, kind: str, group: str, name: str, errors: Sequence[FieldError]) -> "Invalid":
        texts = list(dict.fromkeys(str(error) for error in errors))  # upstream's aggregate says nothing twice
        joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
        details = _details(name, group, kind) | {"causes": [error.as_cause() for error in errors]}
        return cls(f'{qualified(kind, group)} "{name}" is invalid: {joined}', details=details)


class TooManyRequests(APIError):
    code, reason = 429, "TooManyRequests"


class InternalError(APIError):
    code, reason = 500, "InternalError"

    @classmethod
    def because(cls, cause: str) -> "InternalError":
        return cls(f"Internal error occurred: {cause}", details={"causes": [{"message": cause}]})


class PlainInternal(APIError):
    """500 without a reason: what upstream answers for transport errors towards a kubelet."""

    code, reason = 500, ""


class ServiceUnavailable(APIError):
    code, reason = 503, "ServiceUnavailable"


class Timeout(APIError):
    code, reason = 504, "Timeout"
