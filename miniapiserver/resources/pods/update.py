"""What may change in a pod that exists.

My job: the rules of updates, of `/status`, `/resize` and `/ephemeralcontainers`, in upstream's words. I own no pod.
"""

from typing import Any

from miniapiserver.errors import FieldError, forbidden_field, invalid, required
from miniapiserver.resources.names import range_words
from miniapiserver.resources.pods.gates import gate_errors_on_update
from miniapiserver.resources.pods.resources import qos_class
from miniapiserver.resources.pods.scheduling import toleration_errors
from miniapiserver.resources.pods.spec import IP_WORDS, is_ip
from miniapiserver.resources.pods.specdiff import internal_spec, spec_diff
from miniapiserver.resources.pods.values import objects

JSON = dict[str, Any]

_MAX_INT32 = 2**31 - 1
_ALLOWED = ("`spec.containers[*].image`", "`spec.initContainers[*].image`", "`spec.activeDeadlineSeconds`",
            "`spec.tolerations` (only additions to existing tolerations)",
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)")


def semantic(value: Any) -> Any:
    """A value with its empty lists and maps taken for missing ones, as upstream compares."""
    if isinstance(value, dict):
        return {key: semantic(item) for key, item in value.items()} or None
    if isinstance(value, list):
        return [semantic(item) for item in value] or None
    return value


def specs_equal(one: JSON, other: JSON) -> bool:
    return one == other or semantic(internal_spec(one)) == semantic(internal_spec(other))


def pod_update_errors(spec: JSON, old: JSON) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("containers", "initContainers"):
        new_listed, old_listed = objects(spec.get(key)), objects(old.get(key))
        if len(new_listed) != len(old_listed):
            return [*errors, forbidden_field(f"spec.{key}", "pod updates may not add or remove containers")]
        errors += _image_errors(new_listed, f"spec.{key}")
    deadline, stop = _deadline_errors(spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds"))
    errors += deadline
    if stop:
        return errors
    errors += _added_toleration_errors(spec.get("tolerations"), old.get("tolerations"))
    errors += gate_errors_on_update(spec, old)
    if spec == old:
        return errors
    munged = _with_allowed_changes_undone(spec, old)
    if not specs_equal(munged, old):
        errors.append(forbidden_field("spec", f"pod updates may not change fields other than {','.join(_ALLOWED)}\n"
                                              f"{spec_diff(old, munged)}"))
    return errors


def _image_errors(containers: list[JSON], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, container in enumerate(containers):
        image = container.get("image") or ""
        if not image:
            errors.append(required(f"{path}[{index}].image"))
        if image != image.strip():
            errors.append(invalid(f"{path}[{index}].image", image, "must not have leading or trailing whitespace"))
    return errors


def _deadline_errors(new: Any, old: Any) -> tuple[list[FieldError], bool]:
    """A deadline may appear or shrink. The second answer: whether upstream stops looking here."""
    path = "spec.activeDeadlineSeconds"
    if new is None:
        return (
            [] if old is None else [invalid(path, None, "must not update from a positive integer to nil value")]
        ), False
    if not 0 <= new <= _MAX_INT32:
        return [invalid(path, new, range_words(0, _MAX_INT32))], True
    if old is not None and old < new:
        return [invalid(path, new, "must be less than or equal to previous value")], True
    return [], False


def _added_toleration_errors(new: Any, old: Any) -> list[FieldError]:
    if new == old:
        return []
    kept = [_without_seconds(toleration) for toleration in objects(new)]
    if any(_without_seconds(toleration) not in kept for toleration in objects(old)):
        return [
            forbidden_field("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
        ]
    return toleration_errors(new, "spec.tolerations")


def _without_seconds(toleration: JSON) -> JSON:
    return {key: value for key, value in toleration.items() if key != "tolerationSeconds" and value}


def _with_allowed_changes_undone(spec: JSON, old: JSON) -> JSON:
    munged = dict(spec)
    for key in ("containers", "initContainers"):
        if munged.get(key) is not None:
            munged[key] = [item | {"image": before.get("image")} for item, before
                           in zip(objects(munged[key]), objects(old.get(key)), strict=False)]
    kept = ["activeDeadlineSeconds", "tolerations", "schedulingGates"]
    if (old.get("terminationGracePeriodSeconds") or 0) < 0 and munged.get("terminationGracePeriodSeconds") == 1:
        kept.append("terminationGracePeriodSeconds")
    if old.get("schedulingGates"):
        kept += ["nodeSelector", "affinity"]  # a gated pod may be narrowed down; `gates` has looked at it
    for key in kept:
        munged[key] = old.get(key)
    return munged


def pod_status_update_errors(pod: JSON, old: JSON) -> list[FieldError]:
    errors: list[FieldError] = []
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    for index, address in enumerate(objects(status.get("podIPs"))):
        if not is_ip(address.get("ip")):
            errors.append(invalid(f"status.podIPs[{index}]", address.get("ip") or "", IP_WORDS))
    if spec.get("restartPolicy") == "Always":
        return errors
    for key in ("containerStatuses", "initContainerStatuses"):
        errors += _restart_errors(status.get(key), (old.get("status") or {}).get(key), spec, f"status.{key}")
    return errors


def _restart_errors(new: Any, old: Any, spec: JSON, path: str) -> list[FieldError]:
    """A container that ended for good stays ended."""
    errors: list[FieldError] = []
    now = {status.get("name"): (index, status) for index, status in enumerate(objects(new))}
    sidecars = {
        item.get("name") for item in objects(spec.get("initContainers")) if item.get("restartPolicy") == "Always"
    }
    for before in objects(old):
        ended = (before.get("state") or {}).get("terminated")
        if ended is None or before.get("name") in sidecars:
            continue
        if ended.get("exitCode") and spec.get("restartPolicy") == "OnFailure":
            continue
        index, after = now.get(before.get("name"), (0, {"state": {"terminated": {}}}))
        if (after.get("state") or {}).get("terminated") is None:
            errors.append(forbidden_field(f"{path}[{index}].state", "may not be transitioned to non-terminated state"))
    return errors


def ephemeral_update_errors(pod: JSON, old: JSON) -> list[FieldError]:
    """Ephemeral containers may be added; what is there stays as it is."""
    errors: list[FieldError] = []
    if "kubernetes.io/config.mirror" in ((pod.get("metadata") or {}).get("annotations") or {}):
        return [forbidden_field("[]", "static pods do not support ephemeral containers")]
    key, spec, old_spec = "ephemeralContainers", pod.get("spec") or {}, old.get("spec") or {}
    now = {container.get("name"): container for container in objects(spec.get(key))}
    for before in objects(old_spec.get(key)):
        name = before.get("name") or ""
        if name not in now:
            errors.append(
                forbidden_field(f"spec.{key}", f'existing ephemeral containers "{name}" may not be removed\n')
            )
        elif not specs_equal({key: [now[name]]}, {key: [before]}):
            errors.append(forbidden_field(f"spec.{key}", f'existing ephemeral containers "{name}" may not be changed\n'
                                                         f"{spec_diff({key: [before]}, {key: [now[name]]})}"))
    return errors


def resize_errors(pod: JSON, old: JSON) -> list[FieldError]:
    """Only cpu and memory of containers may change, and not so far that the quality of service changes."""
    spec, old_spec = pod.get("spec") or {}, old.get("spec") or {}
    if qos_class(spec) != qos_class(old_spec):
        return [invalid("spec", qos_class(spec), "Pod QOS Class may not change as a result of resizing")]
    munged = dict(spec)
    for key in ("containers", "initContainers"):
        if len(objects(munged.get(key))) != len(objects(old_spec.get(key))):
            return [forbidden_field(f"spec.{key}", "containers may not be added or removed on resize")]
        if munged.get(key) is not None:
            munged[key] = [item | {"resources": before.get("resources"), "resizePolicy": before.get("resizePolicy")}
                           for item, before in zip(objects(munged[key]), objects(old_spec.get(key)), strict=True)]
    if specs_equal(munged, old_spec):
        return []
    return [forbidden_field("spec", f"only cpu and memory resources are mutable\n{spec_diff(old_spec, munged)}")]
