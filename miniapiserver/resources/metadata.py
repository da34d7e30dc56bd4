"""ObjectMeta rules (apimachinery `pkg/api/validation/objectmeta.go`).

My job: what may stand in `metadata`, on create and on update, in upstream's words. I own no kind: a strategy gives
its name rule. `managedFields` belong to the field manager and are not looked at here.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from miniapiserver.errors import FieldError, forbidden_field, invalid, required, too_long
from miniapiserver.resources.names import NameRule, byte_length, label_key, label_name, label_value, path_segment_name

JSON = dict[str, Any]

ANNOTATIONS_LIMIT = 256 * 1024
IMMUTABLE = "field is immutable"
NOT_NEGATIVE = "must be greater than or equal to 0"
_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"
_STANDARD_FINALIZERS = frozenset({"kubernetes", _ORPHAN, _FOREGROUND})


def metadata_of(obj: Mapping[str, Any]) -> JSON:
    return obj.get("metadata") or {}


def label_errors(labels: Mapping[str, Any] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, value in (labels or {}).items():
        errors += [invalid(path, key, words) for words in label_key(key)]
        if value:
            errors += [invalid(path, value, words) for words in label_value(value)]
    return errors


def annotation_errors(annotations: Mapping[str, Any] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    total = 0
    for key, value in (annotations or {}).items():
        errors += [invalid(path, key, words) for words in label_key(key.lower())]
        total += byte_length(key) + byte_length(value or "")
    if total > ANNOTATIONS_LIMIT:
        errors.append(too_long(path, ANNOTATIONS_LIMIT))
    return errors


def _owner_errors(owner: Mapping[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    api_version = owner.get("apiVersion") or ""
    if not api_version:
        errors.append(required(f"{path}.apiVersion", "must not be empty"))
    elif api_version.count("/") > 1 or api_version.endswith("/"):
        errors.append(invalid(f"{path}.apiVersion", api_version, "must be <group>/<version> or <version>"))
    errors += [required(f"{path}.{key}", "must not be empty") for key in ("kind", "name", "uid") if not owner.get(key)]
    if api_version == "v1" and owner.get("kind") == "Event":
        errors.append(invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"))
    return errors


def owner_errors(owners: Iterable[Any] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    listed = [owner or {} for owner in owners or ()]
    controller = ""
    for index, owner in enumerate(listed):
        errors += _owner_errors(owner, f"{path}[{index}]")
        if not owner.get("controller"):
            continue
        name = f"{owner.get('kind') or ''}/{owner.get('name') or ''}"
        if controller:
            errors.append(invalid(path, listed, "Only one reference can have Controller set to true. Found \"true\" in "
                                                f"references for {controller} and {name}"))
        else:
            controller = name
    return errors


def finalizer_errors(finalizers: Iterable[Any] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    listed = [finalizer or "" for finalizer in finalizers or ()]
    for finalizer in listed:
        errors += [invalid(path, finalizer, words) for words in label_key(finalizer)]
    if _ORPHAN in listed and _FOREGROUND in listed:
        errors.append(invalid(path, listed, f"finalizer {_ORPHAN} and {_FOREGROUND} cannot be both set"))
    return errors


def _name_errors(meta: JSON, rule: NameRule, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if prefix := meta.get("generateName"):
        errors += [invalid(f"{path}.generateName", prefix, words) for words in rule(prefix, True)]
    if not (name := meta.get("name")):
        errors.append(required(f"{path}.name", "name or generateName is required"))
    else:
        errors += [invalid(f"{path}.name", name, words) for words in rule(name, False)]
    return errors


def _namespace_errors(meta: JSON, namespaced: bool, path: str) -> list[FieldError]:
    namespace = meta.get("namespace") or ""
    if not namespaced:
        return [forbidden_field(f"{path}.namespace", "not allowed on this type")] if namespace else []
    if not namespace:
        return [required(f"{path}.namespace")]
    return [invalid(f"{path}.namespace", namespace, words) for words in label_name(namespace)]


def metadata_errors(meta: JSON, namespaced: bool, rule: NameRule, path: str = "metadata") -> list[FieldError]:
    """Everything wrong with the metadata of a new object whose name has been generated already."""
    errors = _name_errors(meta, rule, path) + _namespace_errors(meta, namespaced, path)
    if (generation := meta.get("generation") or 0) < 0:
        errors.append(invalid(f"{path}.generation", generation, NOT_NEGATIVE))
    if labels := meta.get("labels"):
        errors += label_errors(labels, f"{path}.labels")
    if annotations := meta.get("annotations"):
        errors += annotation_errors(annotations, f"{path}.annotations")
    if owners := meta.get("ownerReferences"):
        errors += owner_errors(owners, f"{path}.ownerReferences")
    if finalizers := meta.get("finalizers"):
        errors += finalizer_errors(finalizers, f"{path}.finalizers")
    return errors


def standard_finalizer_errors(finalizers: Iterable[Any] | None, path: str = "metadata") -> list[FieldError]:
    """Kubernetes' own kinds take a name without a domain only if it is one of its own (core `ValidateObjectMeta`)."""
    return [invalid(f"{path}.finalizers[{index}]", finalizer or "",
                    "name is neither a standard finalizer name nor is it fully qualified")
            for index, finalizer in enumerate(finalizers or ())
            if "/" not in (finalizer or "") and finalizer not in _STANDARD_FINALIZERS]


def go_list(values: Iterable[str]) -> str:
    """A list of strings as Go's `%#v` prints it."""
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}"


def metadata_update_errors(meta: JSON, old: JSON, path: str = "metadata") -> list[FieldError]:
    """Everything wrong with a change of metadata. That resourceVersion is there is the registry's to ask."""
    errors: list[FieldError] = []
    added = {item or "" for item in meta.get("finalizers") or ()} - {item or "" for item in old.get("finalizers") or ()}
    if old.get("deletionTimestamp") and added:
        errors.append(
            forbidden_field(
                f"{path}.finalizers",
                "no new finalizers can be added if the object is being deleted, "
                f"found new finalizers {go_list(sorted(added))}",
            )
        )
    generation = meta.get("generation") or 0
    if generation < 0:
        errors.append(invalid(f"{path}.generation", generation, NOT_NEGATIVE))
    if generation < (old.get("generation") or 0):
        errors.append(invalid(f"{path}.generation", generation, "must not be decremented"))
    for key in ("name", "namespace", "uid"):
        if (meta.get(key) or "") != (old.get(key) or ""):
            errors.append(invalid(f"{path}.{key}", meta.get(key) or "", IMMUTABLE))
    for key in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if meta.get(key) != old.get(key):
            errors.append(invalid(f"{path}.{key}", meta.get(key), IMMUTABLE))
    errors += label_errors(meta.get("labels"), f"{path}.labels")
    errors += annotation_errors(meta.get("annotations"), f"{path}.annotations")
    errors += owner_errors(meta.get("ownerReferences"), f"{path}.ownerReferences")
    return errors


def common_update_errors(meta: JSON, old: JSON, namespaced: bool) -> list[FieldError]:
    """What apiserver asks of every update before the kind's own strategy does (`rest.validateCommonFields`)."""
    return metadata_errors(meta, namespaced, path_segment_name) + metadata_update_errors(meta, old)
