"""Pod templates inside other objects.

My job: `ValidatePodTemplateSpec` and what controllers ask of their templates beyond it.
"""

from collections.abc import Sequence
from typing import Any

from miniapiserver.errors import FieldError, forbidden_field, not_supported
from miniapiserver.resources.metadata import annotation_errors, label_errors
from miniapiserver.resources.pods.spec import pod_spec_errors

JSON = dict[str, Any]


def template_errors(template: JSON, path: str) -> list[FieldError]:
    meta, spec = template.get("metadata") or {}, template.get("spec") or {}
    errors = label_errors(meta.get("labels"), f"{path}.labels")
    errors += annotation_errors(meta.get("annotations"), f"{path}.annotations")
    errors += pod_spec_errors(spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        errors.append(
            forbidden_field(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")
        )
    return errors


def restart_policy_errors(template: JSON, path: str, allowed: Sequence[str] = ("Always",)) -> list[FieldError]:
    """Most controllers only run pods that restart for ever."""
    policy = (template.get("spec") or {}).get("restartPolicy") or ""
    return [] if policy in allowed else [not_supported(f"{path}.spec.restartPolicy", policy, allowed)]


def deadline_errors(template: JSON, path: str, kind: str) -> list[FieldError]:
    if (template.get("spec") or {}).get("activeDeadlineSeconds") is None:
        return []
    return [forbidden_field(f"{path}.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {kind} is not Supported")]


