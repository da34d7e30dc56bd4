"""Whether a pod may be on a node, as far as the two say so themselves.

My job: node selector, node affinity, taints and tolerations (`component-helpers/scheduling/corev1`). The scheduler and
the daemon sets ask before, the kubelet and the node lifecycle once more; they must agree. Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

JSON = Mapping[str, Any]


def is_selected(spec: JSON, node: JSON) -> bool:
    """Whether the node has what the pod's nodeSelector and its required node affinity want."""
    labels = _labels(node)
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(term_holds(term, node) for term in required.get("nodeSelectorTerms") or ())


def term_holds(term: JSON, node: JSON) -> bool:
    """A node selector term; an empty one holds for nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    own = {"metadata.name": node["metadata"]["name"]}
    return all(requirement_holds(item, _labels(node)) for item in expressions) and all(
        requirement_holds(item, own) for item in fields
    )


def requirement_holds(requirement: JSON, labels: Mapping[str, str]) -> bool:
    """One of matchExpressions: of a node selector, or of a label selector, which knows no Gt and Lt."""
    value, values = labels.get(requirement["key"]), requirement.get("values") or ()
    match requirement.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            return _compares(value, values, operator)
    return False


def _compares(value: str | None, values: Sequence[str], operator: str) -> bool:
    """What is no number is neither more nor less."""
    try:
        left, right = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right


def tolerates(toleration: JSON, taint: JSON) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if (toleration.get("operator") or "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def untolerated(spec: JSON, node: JSON, effects: Sequence[str]) -> JSON | None:
    """The first taint of these effects that the pod does not tolerate."""
    tolerations = spec.get("tolerations") or ()
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") in effects and not any(tolerates(item, taint) for item in tolerations):
            return dict(taint)
    return None


def _labels(node: JSON) -> Mapping[str, str]:
    found: Mapping[str, str] = node["metadata"].get("labels") or {}
    return found
