"""Namespaces."""

from typing import Any

from miniapiserver.errors import FieldError, invalid
from miniapiserver.resources.columns import AGE, age, column, table
from miniapiserver.resources.kinds import Group, select, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.names import label_key, label_name
from miniapiserver.resources.resource import Resource, Subresource, WriteContext
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

NAME_LABEL = "kubernetes.io/metadata.name"
FINALIZER = "kubernetes"
_VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")


class NamespaceStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        obj["spec"] = obj.get("spec") or {}
        status = obj["status"] = obj.get("status") or {}
        if not status.get("phase"):
            status["phase"] = "Active"
        self._label(obj)

    @staticmethod
    def _label(obj: JSON) -> None:
        meta = obj.setdefault("metadata", {})
        if name := meta.get("name"):
            labels = meta["labels"] = meta.get("labels") or {}
            labels[NAME_LABEL] = name

    def prepare_for_create(self, obj: JSON, context: WriteContext) -> None:
        obj["status"] = {"phase": "Active"}
        finalizers = obj["spec"].get("finalizers") or []
        obj["spec"]["finalizers"] = finalizers if FINALIZER in finalizers else [*finalizers, FINALIZER]
        self._label(obj)

    def prepare_for_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        super().prepare_for_update(obj, old, context)
        obj["spec"] = dict(obj.get("spec") or {})
        obj["spec"]["finalizers"] = (old.get("spec") or {}).get("finalizers")
        if obj["spec"]["finalizers"] is None:
            del obj["spec"]["finalizers"]

    def validate(self, obj: JSON) -> list[FieldError]:
        self._label(obj)  # a generated name is only known by now
        return super().validate(obj)

    def check(self, obj: JSON) -> list[FieldError]:
        return _finalizer_errors(obj)

    def prepare_for_status_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        if context.subresource == "finalize":
            self._keep_system_metadata(obj, old)
            obj["status"] = old.get("status") or {}
            return
        super().prepare_for_status_update(obj, old, context)

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        if (obj.get("spec") or {}) != (old.get("spec") or {}):
            return _finalizer_errors(obj)
        phase = (obj.get("status") or {}).get("phase") or ""
        if metadata_of(obj).get("deletionTimestamp"):
            if phase != "Terminating":
                return [invalid("status.Phase", phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")]
        elif phase != "Active":
            return [invalid("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty")]
        return []


def _finalizer_errors(obj: JSON) -> list[FieldError]:
    errors: list[FieldError] = []
    for finalizer in (obj.get("spec") or {}).get("finalizers") or ():
        errors += [invalid("spec.finalizers", finalizer or "", words) for words in label_key(finalizer or "")]
        if not errors and "/" not in (finalizer or "") and finalizer != FINALIZER:
            errors.append(
                invalid(
                    "spec.finalizers", finalizer, "name is neither a standard finalizer name nor is it fully qualified"
                )
            )
    return errors


_TABLE = table(column("Status", "The status of the namespace"), AGE,
               cells=lambda obj, now: [(obj.get("status") or {}).get("phase") or "", age(obj, now)])


def namespace_row(group: Group) -> Resource:
    strategy = NamespaceStrategy(namespaced=False, names=label_name, status=True, returns_deleted_object=True)
    return group.row("Namespace", "namespaces", strategy, namespaced=False, table=_TABLE, short=("ns",), verbs=_VERBS,
                     subresources=(Subresource("finalize", "Namespace", ("update",)), status_of("Namespace")),
                     selectable=select({"status.phase": ("status", "phase")}), fields=("status.phase",))
