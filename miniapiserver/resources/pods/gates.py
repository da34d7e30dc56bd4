"""Scheduling gates: pods that may not be scheduled yet.

My job: what may change while a pod is gated, and the condition that says so. Words as upstream's.
"""

from typing import Any

from miniapiserver.errors import FieldError, forbidden_field, invalid
from miniapiserver.resources.pods.values import objects

JSON = dict[str, Any]

_NODES = "requiredDuringSchedulingIgnoredDuringExecution"
GATED = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": None,
         "message": "Scheduling is blocked due to non-empty scheduling gates"}


def gated_condition(now: str) -> JSON:
    return GATED | {"lastTransitionTime": now}


def gate_errors_on_update(spec: JSON, old: JSON) -> list[FieldError]:
    """Gates may only go; while there are any, the pod's choice of nodes may only be narrowed."""
    gates, old_gates = objects(spec.get("schedulingGates")), objects(old.get("schedulingGates"))
    known = {gate.get("name") for gate in old_gates}
    errors = [forbidden_field("spec.schedulingGates", "only deletion is allowed, but found new scheduling gate "
                                                      f"'{gate.get('name') or ''}'")
              for gate in gates if gate.get("name") not in known][:1]
    return errors + _narrowing_errors(spec, old) if old_gates else errors


def _narrowing_errors(spec: JSON, old: JSON) -> list[FieldError]:
    errors: list[FieldError] = []
    selector, before = spec.get("nodeSelector") or {}, old.get("nodeSelector") or {}
    if any(selector.get(key) != value for key, value in before.items()):
        errors.append(
            invalid(
                "spec.nodeSelector",
                selector,
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            )
        )
    wanted, had = spec.get("affinity") or {}, old.get("affinity") or {}
    for key in ("podAffinity", "podAntiAffinity"):
        if wanted.get(key) != had.get(key):
            errors.append(invalid(f"spec.affinity.{key}", wanted.get(key), "field is immutable"))
    terms, old_terms = _terms(wanted), _terms(had)
    if not old_terms:
        return errors
    if len(terms) != len(old_terms):
        return [
            *errors,
            invalid(
                f"spec.affinity.nodeAffinity.{_NODES}.nodeSelectorTerms",
                terms,
                "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
            ),
        ]
    for index, (term, old_term) in enumerate(zip(terms, old_terms, strict=True)):
        for key in ("matchExpressions", "matchFields"):
            if not all(item in (term.get(key) or ()) for item in old_term.get(key) or ()):
                errors.append(invalid(f"spec.affinity.nodeAffinity.{_NODES}.nodeSelectorTerms[{index}]", term,
                                      "only additions are allowed (no mutations or deletions)"))
                break
    return errors


def _terms(affinity: JSON) -> list[JSON]:
    return objects(((affinity.get("nodeAffinity") or {}).get(_NODES) or {}).get("nodeSelectorTerms"))
