"""How pods are written.

My job: `PodStrategy`, which dispatches defaults and rules by endpoint: the pod itself, `/status`, `/resize`,
`/ephemeralcontainers`. The rules are in `spec` and `update`.
"""

from typing import Any

from miniapiserver.errors import FieldError, forbidden_field
from miniapiserver.resources.metadata import common_update_errors, metadata_of, metadata_update_errors
from miniapiserver.resources.pods.defaults import default_pod
from miniapiserver.resources.pods.gates import gated_condition
from miniapiserver.resources.pods.resources import qos_class
from miniapiserver.resources.pods.spec import pod_errors
from miniapiserver.resources.pods.update import (
    ephemeral_update_errors,
    pod_status_update_errors,
    pod_update_errors,
    resize_errors,
    specs_equal,
)
from miniapiserver.resources.pods.warnings import pod_warnings
from miniapiserver.resources.resource import WriteContext
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

_CONTAINERS = ("containers", "initContainers")


class PodStrategy(ObjectStrategy):
    def __init__(self) -> None:
        super().__init__(status=True, generation=True, returns_deleted_object=True)

    def default(self, obj: JSON) -> None:
        spec = obj.get("spec")
        if spec is None:
            spec = obj["spec"] = {"containers": None}
        default_pod(spec)
        for condition in (obj.get("status") or {}).get("conditions") or ():
            if condition is not None:
                condition.setdefault("lastProbeTime", None)
                condition.setdefault("lastTransitionTime", None)

    def prepare_for_create(self, obj: JSON, context: WriteContext) -> None:
        spec = obj.get("spec") or {}
        if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
            spec["terminationGracePeriodSeconds"] = 1
        status: JSON = {"phase": "Pending", "qosClass": qos_class(spec)}
        if spec.get("schedulingGates"):
            status["conditions"] = [gated_condition(context.now)]
        obj["status"] = status
        obj["metadata"]["generation"] = 1

    def validate(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = self.metadata_rules(metadata_of(obj)) + pod_errors(spec)
        if spec.get("ephemeralContainers"):
            errors.append(forbidden_field("spec.ephemeralContainers", "cannot be set on create"))
        if spec.get("nodeName") and spec.get("schedulingGates"):
            errors.append(forbidden_field("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))
        return errors

    def content_changed(self, obj: JSON, old: JSON) -> bool:
        return not specs_equal(obj.get("spec") or {}, old.get("spec") or {})

    def check(self, obj: JSON) -> list[FieldError]:
        return pod_errors(obj.get("spec") or {})

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
        unchanged = spec == old_spec
        return [] if unchanged else pod_errors(spec) + pod_update_errors(spec, old_spec)

    def prepare_for_status_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        """Also for the other endpoints that write a part of the pod: what they may not touch is put back."""
        if context.subresource in ("resize", "ephemeralcontainers"):
            self._prepare_for_part(obj, old, context)
            return
        super().prepare_for_status_update(obj, old, context)
        meta, old_meta = obj["metadata"], metadata_of(old)
        if "ownerReferences" in old_meta:
            meta["ownerReferences"] = old_meta["ownerReferences"]
        else:
            meta.pop("ownerReferences", None)
        status = obj["status"] = obj.get("status") or {}
        if qos := (old.get("status") or {}).get("qosClass"):
            status["qosClass"] = qos

    def _prepare_for_part(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
        if context.subresource == "resize":
            obj["spec"] = _resized(spec, old_spec)
        else:
            obj["spec"] = {key: value for key, value in old_spec.items() if key != "ephemeralContainers"}
            if spec.get("ephemeralContainers"):
                obj["spec"]["ephemeralContainers"] = spec["ephemeralContainers"]
        obj["metadata"] = dict(metadata_of(old)) | {key: value for key, value in metadata_of(obj).items()
                                                    if key in ("resourceVersion", "uid", "managedFields")}
        self.prepare_for_update(obj, old, context)

    def validate_status_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        meta, old_meta = metadata_of(obj), metadata_of(old)
        errors = common_update_errors(meta, old_meta, True) + metadata_update_errors(meta, old_meta)
        spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
        if spec == old_spec:
            return errors + pod_status_update_errors(obj, old)
        errors += pod_errors(spec)
        if (spec.get("ephemeralContainers") or []) != (old_spec.get("ephemeralContainers") or []):
            return errors + ephemeral_update_errors(obj, old)
        return errors + resize_errors(obj, old)

    def warnings(self, obj: JSON) -> list[str]:
        return pod_warnings(obj.get("spec") or {}, "spec")


def _resized(spec: JSON, old: JSON) -> JSON:
    """The old spec with the new one's container resources, so that nothing else can change."""
    resized = dict(old)
    for key in _CONTAINERS:
        wanted = {item.get("name"): item for item in spec.get(key) or () if item}
        if old.get(key):
            resized[key] = [item | {part: wanted[item.get("name")][part] for part in ("resources", "resizePolicy")
                                    if item.get("name") in wanted and part in wanted[item.get("name")]}
                            for item in old[key] if item]
    return resized
