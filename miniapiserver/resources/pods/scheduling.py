"""Where a pod may run: affinity, tolerations, topology spread.

My job: validation of those parts of a pod spec, and of node selectors wherever else they stand. Words as upstream's.
"""

from typing import Any

from miniapiserver.errors import FieldError, forbidden_field, invalid, not_supported, required
from miniapiserver.resources.names import label_key, label_value
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.selectors import label_selector_errors

JSON = dict[str, Any]

TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_LISTED = ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution")
_EMPTY_KEY_WORDS = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'


def taint_effect_errors(effect: Any, path: str, *, optional: bool = False) -> list[FieldError]:
    if not effect and not optional:
        return [required(path)]
    return [] if not effect or effect in TAINT_EFFECTS else [not_supported(path, effect, TAINT_EFFECTS)]


def toleration_errors(tolerations: Any, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, toleration in enumerate(objects(tolerations)):
        errors += _toleration_errors(toleration, f"{path}[{index}]")
    return errors


def _toleration_errors(toleration: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    key, operator, value = (toleration.get(name) or "" for name in ("key", "operator", "value"))
    effect = toleration.get("effect") or ""
    if key:
        errors += [invalid(f"{path}.key", key, words) for words in label_key(key)]
    elif operator != "Exists":
        errors.append(invalid(f"{path}.operator", operator, _EMPTY_KEY_WORDS))
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        errors.append(invalid(f"{path}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
    if operator in ("Equal", ""):
        if wrong := label_value(value):
            errors.append(invalid(f"{path}.operator", value, ";".join(wrong)))
    elif operator == "Exists":
        if value:
            errors.append(invalid(f"{path}.operator", value, "value must be empty when `operator` is 'Exists'"))
    else:
        errors.append(not_supported(f"{path}.operator", operator, ("Equal", "Exists")))
    return errors + taint_effect_errors(effect, f"{path}.effect", optional=True)


def _requirement_errors(requirement: JSON, path: str) -> list[FieldError]:
    """One match expression of a node selector."""
    key, operator = requirement.get("key") or "", requirement.get("operator") or ""
    values = requirement.get("values") or ()
    errors: list[FieldError] = []
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            errors.append(
                forbidden_field(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
            )
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            errors.append(required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'"))
    else:
        errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    return errors + [invalid(f"{path}.key", key, words) for words in label_key(key)]


def _field_requirement_errors(requirement: JSON, path: str) -> list[FieldError]:
    key, operator, values = (
        requirement.get("key") or "",
        requirement.get("operator") or "",
        requirement.get("values") or (),
    )
    errors: list[FieldError] = []
    if operator not in ("In", "NotIn"):
        errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    elif len(values) != 1:
        errors.append(
            required(
                f"{path}.values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            )
        )
    if key != "metadata.name":
        errors.append(invalid(f"{path}.key", key, "not a valid field selector key"))
    return errors


def node_term_errors(term: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, requirement in enumerate(objects(term.get("matchExpressions"))):
        errors += _requirement_errors(requirement, f"{path}.matchExpressions[{index}]")
    for index, requirement in enumerate(objects(term.get("matchFields"))):
        errors += _field_requirement_errors(requirement, f"{path}.matchFields[{index}]")
    return errors


def node_selector_errors(selector: JSON, path: str) -> list[FieldError]:
    terms = objects(selector.get("nodeSelectorTerms"))
    if not terms:
        return [required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")]
    return [
        error
        for index, term in enumerate(terms)
        for error in node_term_errors(term, f"{path}.nodeSelectorTerms[{index}]")
    ]


def _weight_errors(term: JSON, path: str) -> list[FieldError]:
    weight = term.get("weight") or 0
    return [] if 1 <= weight <= 100 else [invalid(f"{path}.weight", weight, "must be in the range 1-100")]


def _pod_term_errors(term: JSON, path: str) -> list[FieldError]:
    errors = label_selector_errors(term.get("labelSelector"), f"{path}.labelSelector")
    errors += label_selector_errors(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    key = term.get("topologyKey") or ""
    if not key:
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    return errors + [invalid(f"{path}.topologyKey", key, words) for words in label_key(key)]


def affinity_errors(affinity: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    hard, soft = _LISTED
    if node := affinity.get("nodeAffinity"):
        if (selector := node.get(hard)) is not None:
            errors += node_selector_errors(selector, f"{path}.nodeAffinity.{hard}")
        for index, term in enumerate(objects(node.get(soft))):
            where = f"{path}.nodeAffinity.{soft}[{index}]"
            errors += _weight_errors(term, where) + node_term_errors(
                term.get("preference") or {}, f"{where}.preference"
            )
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        for index, term in enumerate(objects(rules.get(hard))):
            errors += _pod_term_errors(term, f"{path}.{kind}.{hard}[{index}]")
        for index, term in enumerate(objects(rules.get(soft))):
            where = f"{path}.{kind}.{soft}[{index}]"
            errors += _weight_errors(term, where) + _pod_term_errors(
                term.get("podAffinityTerm") or {}, f"{where}.podAffinityTerm"
            )
    return errors


def spread_errors(constraints: Any, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(objects(constraints)):
        where, skew = f"{path}[{index}]", constraint.get("maxSkew") or 0
        key, action = constraint.get("topologyKey") or "", constraint.get("whenUnsatisfiable") or ""
        if skew <= 0:
            errors.append(invalid(f"{where}.maxSkew", skew, "must be greater than zero"))
        if not key:
            errors.append(required(f"{where}.topologyKey", "can not be empty"))
        else:
            errors += [invalid(f"{where}.topologyKey", key, words) for words in label_key(key)]
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            errors.append(not_supported(f"{where}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway")))
        if (key, action) in seen:
            pair = "{" + f"{key}, {action}" + "}"
            errors.append(FieldError(f"{where}.{{topologyKey, whenUnsatisfiable}}", "FieldValueDuplicate",
                                     f'Duplicate value: "{pair}"'))
        seen.add((key, action))
        if (domains := constraint.get("minDomains")) is not None and domains <= 0:
            errors.append(invalid(f"{where}.minDomains", domains, "must be greater than zero"))
        errors += label_selector_errors(constraint.get("labelSelector"), f"{where}.labelSelector")
    return errors
