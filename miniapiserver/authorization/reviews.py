"""What the access reviews mean.

My job: from a review object (and the caller) to Attributes, with upstream's validation; from a verdict to its status.
Pure but for the question itself. Rules: `pkg/apis/authorization/validation`, `pkg/registry/authorization`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization.interface import Attributes, Authorizer, Decision
from miniapiserver.errors import BadRequest, FieldError, Invalid, invalid

JSON = dict[str, Any]

GROUP = "authorization.k8s.io"
EITHER = "exactly one of nonResourceAttributes or resourceAttributes must be specified"


def attributes_of_subject(review: JSON) -> Attributes:
    """Raises Invalid."""
    spec = review.get("spec") or {}
    _refuse(review, [*_spec_errors(spec), *_user_errors(spec), *_metadata_errors(review)])
    return _attributes(spec, _user(spec))


def attributes_of_local_subject(review: JSON, namespace: str) -> Attributes:
    """Raises Invalid, BadRequest."""
    spec = review.get("spec") or {}
    metadata = review.setdefault("metadata", {})
    metadata.setdefault("namespace", namespace)
    errors = [*_spec_errors(spec), *_user_errors(spec), *_metadata_errors(review, local=True)]
    resource = spec.get("resourceAttributes")
    if resource is not None and resource.get("namespace", "") != metadata["namespace"]:
        errors.append(invalid("spec.resourceAttributes.namespace", resource.get("namespace", ""),
                              "must match metadata.namespace"))
    if spec.get("nonResourceAttributes") is not None:
        errors.append(invalid("spec.nonResourceAttributes", _internal(spec["nonResourceAttributes"]),
                              "disallowed on this kind of request"))
    _refuse(review, errors)
    if metadata["namespace"] != namespace:
        raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
    return _attributes(spec, _user(spec))


def attributes_of_self(review: JSON, user: UserInfo) -> Attributes:
    """Raises Invalid."""
    spec = review.get("spec") or {}
    _refuse(review, [*_spec_errors(spec), *_metadata_errors(review)])
    return _attributes(spec, user)


async def answer(authorizer: Authorizer, attributes: Attributes, review: JSON) -> JSON:
    verdict = await authorizer.authorize(attributes)
    status: JSON = {"allowed": verdict.decision is Decision.ALLOW}
    if verdict.decision is Decision.DENY:
        status["denied"] = True
    if verdict.reason:
        status["reason"] = verdict.reason
    if verdict.error:
        status["evaluationError"] = verdict.error
    return review | {"status": status}


async def rules(authorizer: Authorizer, review: JSON, user: UserInfo) -> JSON:
    """A SelfSubjectRulesReview's answer. As upstream's it does not repeat the question's spec. Raises BadRequest."""
    namespace = (review.get("spec") or {}).get("namespace", "")
    if not namespace:
        raise BadRequest("no namespace on request")
    found = authorizer.rules_for(user, namespace)
    status: JSON = {"resourceRules": found.resources, "nonResourceRules": found.urls, "incomplete": found.incomplete}
    if found.error:
        status["evaluationError"] = found.error
    return {"kind": review.get("kind", "SelfSubjectRulesReview"), "apiVersion": review.get("apiVersion", f"{GROUP}/v1"),
            "metadata": {}, "spec": {}, "status": status}


# --- spec → attributes


def _attributes(spec: Mapping[str, Any], user: UserInfo) -> Attributes:
    resource = spec.get("resourceAttributes")
    if resource is None:
        other = spec["nonResourceAttributes"]
        return Attributes(user, other.get("verb", ""), is_resource=False, path=other.get("path", ""))
    return Attributes(
        user, resource.get("verb", ""), True, resource.get("namespace", ""), resource.get("group", ""),
        resource.get("version", "") or "*", resource.get("resource", ""), resource.get("subresource", ""),
        resource.get("name", ""), "", _selector(resource.get("fieldSelector")),
        _selector(resource.get("labelSelector")))


def _user(spec: Mapping[str, Any]) -> UserInfo:
    extra = {key.lower(): tuple(values) for key, values in (spec.get("extra") or {}).items()}
    return UserInfo(spec.get("user", ""), spec.get("uid", ""), tuple(spec.get("groups") or ()), extra)


def _selector(selector: Mapping[str, Any] | None) -> str:
    """`rawSelector`, or the requirements as text. One that has no text is left out: asking for more than is meant
    can only be refused, never allowed, by those who look at selectors."""
    if not selector:
        return ""
    if raw := selector.get("rawSelector"):
        return str(raw)
    return ",".join(filter(None, map(_requirement, selector.get("requirements") or ())))


def _requirement(requirement: Mapping[str, Any]) -> str:
    key, values = requirement.get("key", ""), requirement.get("values") or []
    operator = requirement.get("operator", "")
    if operator in ("In", "NotIn") and len(values) == 1:
        return f"{key}{'=' if operator == 'In' else '!='}{values[0]}"
    if operator in ("In", "NotIn"):
        return f"{key} {operator.lower()} ({','.join(values)})"
    return {"Exists": str(key), "DoesNotExist": f"!{key}"}.get(operator, "")


# --- validation


def _refuse(review: JSON, errors: Sequence[FieldError]) -> None:
    if errors:
        # Upstream names no kind here.
        raise Invalid.fields("", GROUP, (review.get("metadata") or {}).get("name", ""), errors)


def _internal(other: Mapping[str, Any]) -> JSON:
    """NonResourceAttributes as upstream's internal struct prints."""
    return {"Path": other.get("path") or "", "Verb": other.get("verb") or ""}


def _spec_errors(spec: Mapping[str, Any]) -> list[FieldError]:
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and other is not None:
        return [invalid("spec.nonResourceAttributes", _internal(other),
                        "cannot be specified in combination with resourceAttributes")]
    if resource is None and other is None:
        return [invalid("spec.resourceAttributes", None, EITHER)]
    errors = []
    for field in ("fieldSelector", "labelSelector"):
        selector = (resource or {}).get(field)
        if selector is not None:
            errors += _selector_errors(f"spec.resourceAttributes.{field}", selector)
    return errors


def _selector_errors(path: str, selector: Mapping[str, Any]) -> list[FieldError]:
    raw, requirements = selector.get("rawSelector"), selector.get("requirements")
    if raw and requirements:
        return [invalid(f"{path}.rawSelector", raw, "may not specified at the same time as requirements")]
    if not raw and not requirements:
        return [FieldError(f"{path}.requirements", "FieldValueRequired",
                           f"Required value: when {path} is specified, requirements or rawSelector is required")]
    return []


def _user_errors(spec: Mapping[str, Any]) -> list[FieldError]:
    if spec.get("user") or spec.get("groups"):
        return []
    return [invalid("spec.user", "", "at least one of user or group must be specified")]


def _metadata_errors(review: JSON, *, local: bool = False) -> list[FieldError]:
    tolerated = {"managedFields", "creationTimestamp"} | ({"namespace"} if local else set())
    metadata = review.get("metadata") or {}
    if any(value for key, value in metadata.items() if key not in tolerated):
        return [invalid("metadata", metadata, "must be empty except for namespace" if local else "must be empty")]
    return []
