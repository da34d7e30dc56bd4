"""Rules that kinds with a pod template share.

My job: selectors that must match their template, counts that may not be negative, and numbers that may be percentages.
"""

from typing import Any

from miniapiserver.errors import FieldError, invalid, required
from miniapiserver.resources.names import percent
from miniapiserver.resources.pods.template import deadline_errors, restart_policy_errors, template_errors
from miniapiserver.resources.selectors import is_empty, label_selector_errors, matches

JSON = dict[str, Any]

IMMUTABLE = "field is immutable"
NOT_NEGATIVE = "must be greater than or equal to 0"
MISMATCH = "`selector` does not match template `labels`"


def count_errors(spec: JSON, keys: tuple[str, ...], path: str = "spec") -> list[FieldError]:
    return [invalid(f"{path}.{key}", spec[key], NOT_NEGATIVE) for key in keys if (spec.get(key) or 0) < 0]


def template_labels(spec: JSON) -> JSON | None:
    """The template's labels as Go prints a map: sorted, null when there is none."""
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    return dict(sorted(labels.items())) if labels else None


def selector_errors(spec: JSON, kind: str) -> list[FieldError]:
    selector = spec.get("selector")
    if selector is None:
        return [required("spec.selector")]
    errors = label_selector_errors(selector, "spec.selector")
    if is_empty(selector):
        errors.append(invalid("spec.selector", selector, f"empty selector is invalid for {kind}"))
    return errors


def match_errors(spec: JSON) -> list[FieldError]:
    labels = template_labels(spec)
    selector = spec.get("selector")
    if selector is not None and is_empty(selector):
        return []
    return [] if matches(selector, labels) else [invalid("spec.template.metadata.labels", labels, MISMATCH)]


def running_template_errors(spec: JSON, kind: str = "ReplicaSet") -> list[FieldError]:
    """A template whose pods are to run for ever."""
    template = spec.get("template") or {}
    errors = match_errors(spec) + template_errors(template, "spec.template")
    errors += restart_policy_errors(template, "spec.template")
    return errors + deadline_errors(template, "spec.template", kind)


def immutable_errors(spec: JSON, old: JSON, key: str, path: str = "spec") -> list[FieldError]:
    return (
        []
        if (spec.get(key) or None) == (old.get(key) or None)
        else [invalid(f"{path}.{key}", spec.get(key), IMMUTABLE)]
    )


def amount_or_percent_errors(value: Any, path: str) -> list[FieldError]:
    if isinstance(value, str):
        return [invalid(path, value, words) for words in percent(value)]
    return [invalid(path, value or 0, NOT_NEGATIVE)] if (value or 0) < 0 else []


def at_most_all_errors(value: Any, path: str) -> list[FieldError]:
    if isinstance(value, str) and not percent(value) and int(value[:-1]) > 100:
        return [invalid(path, value, "must not be greater than 100%")]
    return []


def is_zero(value: Any) -> bool:
    return value in (0, None) or (isinstance(value, str) and value.rstrip("%").strip("0") == "")


def default_template_of(spec: JSON) -> JSON:
    template = spec.get("template")
    if template is None:
        template = spec["template"] = {}
    return template
