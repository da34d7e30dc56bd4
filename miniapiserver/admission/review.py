"""AdmissionReview v1: the question to a webhook and its answer.

My job: attributes of a write → the request; the response → allowed, patch and warnings, or why it is no answer.
Pure (`k8s.io/api/admission/v1`, apiserver `admission/plugin/webhook/request`).
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from miniapiserver.admission.interface import Attributes, Operation
from miniapiserver.errors import APIError
from miniapiserver.resources.resource import Resource

JSON = dict[str, Any]

API_VERSION = "admission.k8s.io/v1"
OPTIONS = {Operation.CREATE: "CreateOptions", Operation.UPDATE: "UpdateOptions", Operation.DELETE: "DeleteOptions"}


class InvalidReview(ValueError):
    """A webhook answered something that is no AdmissionReview for our question."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is the webhook's own Status for a refusal; `patch` a JSON patch, None if it wants no change."""

    allowed: bool
    status: Mapping[str, Any]
    patch: list[Any] | None
    warnings: tuple[str, ...]


def question(asked: Attributes, row: Resource, uid: str) -> JSON:
    """`row` is the version the webhook is shown, which may differ from the one the client wrote."""
    request: JSON = {
        "uid": uid, "kind": _kind(row, asked.subresource), "resource": _resource(row),
        "requestKind": _kind(asked.row, asked.subresource), "requestResource": _resource(asked.row),
        "operation": asked.operation.value, "userInfo": asked.user.as_json(),
        "object": _shown(asked.obj, asked.row, row), "oldObject": _shown(asked.old, asked.row, row),
        "dryRun": asked.dry_run, "options": _options(asked)}
    if asked.subresource:
        request |= {"subResource": asked.subresource, "requestSubResource": asked.subresource}
    name = asked.name or ((asked.obj or {}).get("metadata") or {}).get("name")
    request |= {"name": name} if name else {}
    request |= {"namespace": asked.namespace} if asked.namespace else {}
    return {"kind": "AdmissionReview", "apiVersion": API_VERSION, "request": request}


def _kind(row: Resource, subresource: str) -> JSON:
    known = row.subresource(subresource) if subresource else None
    if known is None:
        return {"group": row.group, "version": row.version, "kind": row.kind}
    return {"group": row.group if known.group is None else known.group,
            "version": known.version or row.version, "kind": known.kind}


def _resource(row: Resource) -> JSON:
    return {"group": row.group, "version": row.version, "resource": row.plural}


def _options(asked: Attributes) -> JSON | None:
    kind = OPTIONS.get(asked.operation)
    if kind is None:
        return None
    return {"kind": kind, "apiVersion": "meta.k8s.io/v1"} | ({"dryRun": ["All"]} if asked.dry_run else {})


def _shown(obj: JSON | None, written: Resource, wanted: Resource) -> JSON | None:
    """The object in the webhook's version. What is stored is the meeting point of all versions."""
    if obj is None or written is wanted:
        return obj
    stored = written.conversion.to_storage(obj) if written.conversion is not None else obj
    shown = wanted.conversion.from_storage(stored) if wanted.conversion is not None else stored
    return shown | {"kind": wanted.kind, "apiVersion": wanted.api_version}


def patched(asked: Attributes, row: Resource, changed: JSON) -> JSON:
    """The object after a patch, back in the version the client wrote."""
    found = _shown(changed, row, asked.row)
    assert found is not None
    return found


def answer(body: bytes, uid: str) -> Answer:
    """Raises InvalidReview."""
    try:
        review = orjson.loads(body)
    except ValueError as error:
        raise InvalidReview(f"could not decode response: {error}") from error
    if not isinstance(review, dict) or review.get("kind") != "AdmissionReview" \
            or review.get("apiVersion") != API_VERSION:
        raise InvalidReview(f"expected {API_VERSION}, Kind=AdmissionReview")
    response = review.get("response")
    if not isinstance(response, dict):
        raise InvalidReview("webhook response was absent")
    if response.get("uid") != uid:
        raise InvalidReview(f"expected response.uid={uid!r}, got {response.get('uid')!r}")
    return Answer(response.get("allowed") is True, _status(response), _patch(response),
                  tuple(str(text) for text in response.get("warnings") or ()))


def _status(response: JSON) -> JSON:
    status = response.get("status")
    return status if isinstance(status, dict) else {}


def _patch(response: JSON) -> list[Any] | None:
    text, kind = response.get("patch"), response.get("patchType")
    if not text:
        if kind:
            raise InvalidReview("webhook returned response.patchType but not response.patch")
        return None
    if kind != "JSONPatch":
        raise InvalidReview(f'webhook returned invalid response.patchType of "{kind or ""}"')
    try:
        patch = orjson.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidReview(f"invalid patch: {error}") from error
    if not isinstance(patch, list):
        raise InvalidReview("invalid patch: not a list of operations")
    return patch


class Denied(APIError):
    """What the client gets for a refusal: the webhook's own code and reason, never less than 400."""

    def __init__(self, webhook: str, status: Mapping[str, Any]) -> None:
        begin = f'admission webhook "{webhook}" denied the request'
        why = status.get("message") or status.get("reason")
        super().__init__(f"{begin}: {why}" if why else f"{begin} without explanation",
                         details=status.get("details") or None)
        code = status.get("code")
        self.code = code if isinstance(code, int) and 400 <= code < 600 else 400  # type: ignore[misc]
        self.reason = str(status.get("reason") or "")  # type: ignore[misc]
