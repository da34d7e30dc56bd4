"""What all kinds have in common when they are written.

My job: metadata rules, generation, and who may change status, from which every kind's strategy starts (apiserver
`rest.BeforeCreate`, `rest.BeforeUpdate` and the strategies of `pkg/registry`). I own no kind. A kind overrides
`defaults`, `check`, `check_update` and `check_status`; it seldom needs more.
"""

from typing import Any

from miniapiserver.errors import FieldError
from miniapiserver.resources.metadata import (
    common_update_errors,
    metadata_errors,
    metadata_of,
    metadata_update_errors,
    standard_finalizer_errors,
)
from miniapiserver.resources.names import NameRule, path_segment_name, subdomain_name
from miniapiserver.resources.resource import Strategy, WriteContext

JSON = dict[str, Any]

_NOT_CONTENT = frozenset(("kind", "apiVersion", "metadata", "status"))
#: What a typed server answers for structs that are never left out
EMPTY: JSON = {}


def _fresh(value: Any) -> Any:
    """No two objects share a dict."""
    return dict(value) if isinstance(value, dict) else value


class ObjectStrategy(Strategy):
    """Metadata rules for any kind; `/status` alone changes status, spec changes count as generations."""

    def __init__(self, *, namespaced: bool = True, names: NameRule = subdomain_name, status: bool = False,
                 generation: bool = False, unconditional_update: bool = True, create_on_update: bool = False,
                 returns_deleted_object: bool = False) -> None:
        self.namespaced = namespaced
        self.names = names
        self.has_status = status
        self.has_generation = generation
        self.allow_unconditional_update = unconditional_update
        self.allow_create_on_update = create_on_update
        self.returns_deleted_object = returns_deleted_object

    # What a kind says about itself

    #: Fields of status that are written out even when nobody set them
    status_shape: tuple[tuple[str, Any], ...] = ()

    def new_status(self, obj: JSON) -> JSON:
        """The status a new object starts with."""
        return {key: _fresh(value) for key, value in self.status_shape}

    def default(self, obj: JSON) -> None:
        if self.status_shape and (status := obj.get("status")) is not None:
            for key, value in self.status_shape:
                if status.get(key) is None:
                    status[key] = _fresh(value)

    def check(self, obj: JSON) -> list[FieldError]:
        """Everything wrong with the content, metadata aside."""
        return []

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        """Everything wrong with the change of content. By default the new content is asked to be valid."""
        return self.check(obj)

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        return []

    def content_changed(self, obj: JSON, old: JSON) -> bool:
        """Whether this change counts as a new generation."""
        return (obj.get("spec") or EMPTY) != (old.get("spec") or EMPTY)

    # The contract

    def prepare_for_create(self, obj: JSON, context: WriteContext) -> None:
        if self.has_status:
            obj["status"] = self.new_status(obj)
        if self.has_generation:
            obj.setdefault("metadata", {})["generation"] = 1

    def validate(self, obj: JSON) -> list[FieldError]:
        meta = metadata_of(obj)
        return self.metadata_rules(meta) + self.finalizer_rules(meta) + self.check(obj)

    def finalizer_rules(self, meta: JSON) -> list[FieldError]:
        return standard_finalizer_errors(meta.get("finalizers"))

    def metadata_rules(self, meta: JSON) -> list[FieldError]:
        errors = metadata_errors(meta, self.namespaced, self.names)
        if not errors and (name := meta.get("name")):
            return metadata_errors(meta, self.namespaced, path_segment_name) if "/" in name or "%" in name else []
        return errors

    def prepare_for_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        self._keep_system_metadata(obj, old)
        if self.has_status:
            if "status" in old:
                obj["status"] = old["status"]
            else:
                obj.pop("status", None)
        if self.has_generation and self.content_changed(obj, old):
            obj["metadata"]["generation"] = (metadata_of(old).get("generation") or 0) + 1

    def validate_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        meta, old_meta = metadata_of(obj), metadata_of(old)
        return (common_update_errors(meta, old_meta, self.namespaced)
                + metadata_update_errors(meta, old_meta) + self.finalizer_rules(meta) + self.check_update(obj, old))

    def prepare_for_status_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        self._keep_system_metadata(obj, old)
        self._keep_content(obj, old)

    def validate_status_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        meta, old_meta = metadata_of(obj), metadata_of(old)
        return (common_update_errors(meta, old_meta, self.namespaced)
                + metadata_update_errors(meta, old_meta) + self.check_status(obj, old))

    # Shared moves

    @staticmethod
    def _keep_content(obj: JSON, old: JSON) -> None:
        """Everything but metadata and status as it was."""
        for key in [key for key in obj if key not in _NOT_CONTENT and key not in old]:
            del obj[key]
        obj.update((key, value) for key, value in old.items() if key not in _NOT_CONTENT)

    @staticmethod
    def _keep_system_metadata(obj: JSON, old: JSON) -> None:
        """What no client may change is taken over in silence; a name or uid that differs is an error later."""
        meta, old_meta = obj.setdefault("metadata", {}), metadata_of(old)
        for key in ("creationTimestamp", "deletionTimestamp"):
            if old_meta.get(key):
                meta[key] = old_meta[key]
        for key in ("uid", "deletionGracePeriodSeconds"):
            if meta.get(key) is None and old_meta.get(key) is not None:
                meta[key] = old_meta[key]
        if "generation" in old_meta:
            meta["generation"] = old_meta["generation"]
        else:
            meta.pop("generation", None)
