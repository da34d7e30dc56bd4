"""Label selectors inside objects.

My job: what may stand in one, and whether one matches a set of labels (`metav1.LabelSelector`). Query strings are
parsed elsewhere.
"""

from collections.abc import Mapping
from typing import Any

from miniapiserver.errors import FieldError, forbidden_field, invalid, required
from miniapiserver.resources.metadata import label_errors
from miniapiserver.resources.names import label_key, label_value

JSON = dict[str, Any]


def label_selector_errors(selector: Any, path: str) -> list[FieldError]:
    if not selector:
        return []
    errors = label_errors(selector.get("matchLabels"), f"{path}.matchLabels")
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        errors += _expression_errors(expression or {}, f"{path}.matchExpressions[{index}]")
    return errors


def _expression_errors(expression: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values, key = (
        expression.get("operator") or "",
        expression.get("values") or (),
        expression.get("key") or "",
    )
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            errors.append(
                forbidden_field(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
            )
    else:
        errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    errors += [invalid(f"{path}.key", key, words) for words in label_key(key)]
    for index, value in enumerate(values):
        errors += [invalid(f"{path}.values[{index}]", value or "", words) for words in label_value(value or "")]
    return errors


def is_empty(selector: Any) -> bool:
    return not selector or not (selector.get("matchLabels") or selector.get("matchExpressions"))


def matches(selector: Any, labels: Mapping[str, Any] | None) -> bool:
    """Whether `labels` are selected. None selects nothing, an empty selector everything."""
    if selector is None:
        return False
    have = labels or {}
    if any(
        key not in have or (have[key] or "") != (value or "")
        for key, value in (selector.get("matchLabels") or {}).items()
    ):
        return False
    return all(_expression_matches(expression or {}, have) for expression in selector.get("matchExpressions") or ())


def _expression_matches(expression: JSON, labels: Mapping[str, Any]) -> bool:
    key, operator, values = expression.get("key") or "", expression.get("operator"), expression.get("values") or ()
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        return key not in labels or labels[key] not in values
    return key in labels if operator == "Exists" else key not in labels
