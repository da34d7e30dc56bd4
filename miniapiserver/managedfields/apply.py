"""Server-side apply.

My job: merge a configuration into the live object, remove what its manager applied before and no longer says, refuse
to overwrite what others own (structured-merge-diff `Updater.Apply`, apimachinery `FieldManager.Apply`). Pure: `now`
is an argument and nothing that comes in is changed. Raises ApplyConflict, BadRequest, PlainInternal.
"""

from typing import Any, Final

import orjson

from miniapiserver.errors import BadRequest, Conflict, PlainInternal
from miniapiserver.managedfields import fieldset, managers, tracking, typedvalue
from miniapiserver.managedfields.fieldset import FieldSet
from miniapiserver.managedfields.managers import Entry, Manager, Managers
from miniapiserver.managedfields.validation import complaint
from miniapiserver.schema import yamldoc
from miniapiserver.schema.decode import TooDeep, dump
from miniapiserver.schema.types import TypeSchema

JSON = dict[str, Any]

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
#: kubectl's own manager: only for it does the client-side apply annotation count.
_KUBECTL: Final = "kubectl"


class ApplyConflict(Conflict):
    """Fields that other managers own. Upstream's words and causes."""

    def __init__(self, conflicts: dict[Manager, FieldSet]) -> None:
        self.conflicts = conflicts
        named = [(manager, path) for manager in sorted(conflicts, key=Manager.text)
                 for path in fieldset.paths(conflicts[manager])]
        causes = [{"reason": "FieldManagerConflict", "message": f"conflict with {manager.text()}", "field": path}
                  for manager, path in named]
        super().__init__(_conflict_message(named), details={"causes": causes})


def _conflict_message(named: list[tuple[Manager, str]]) -> str:
    if len(named) == 1:
        return f"Apply failed with 1 conflict: conflict with {named[0][0].text()}: {named[0][1]}"
    lines: list[str] = []
    last: Manager | None = None
    for manager, path in named:
        if manager != last:
            lines.append(f"conflicts with {manager.text()}:")
            last = manager
        lines.append(f"- {path}")
    return f"Apply failed with {len(named)} conflicts: " + "\n".join(lines)


def read_config(body: bytes, kind: str = "object") -> tuple[JSON, list[str]]:
    """(configuration, problems) of an apply body, YAML or JSON, as it was written. Raises BadRequest."""
    try:
        config, problems = yamldoc.load(body)
        dump(config)
    except (yamldoc.InvalidYAML, TooDeep) as error:
        raise BadRequest(f"error decoding YAML: {error}") from error
    if config is None:
        config = {}
    if not isinstance(config, dict):
        raise BadRequest(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
                         f"the body of a {kind} into Go value of type map[string]interface {{}}")
    return config, problems


def server_side_apply(live: JSON | None, config: JSON, schema: TypeSchema, *, api_version: str, manager: str,
                      force: bool, subresource: str = "", now: str, kind: str = "") -> JSON:
    """The new object with its managedFields; equal to `live` when there is nothing to do. `live` None creates.

    The result still wants `decode_patched`, defaults and admission, like that of any patch.
    """
    kind = kind or schema.go_name
    _check(config, schema, api_version, kind)
    base = live if live is not None else tracking.zero_object(schema) | {"kind": kind, "apiVersion": api_version}
    known = _known(live, schema, api_version, now)
    identity = managers.applier(manager, subresource)
    run = _Apply(base, config, schema, api_version, identity, now, tracking.reset_fields(schema.name, subresource))
    try:
        merged, tracked = run.apply(known, force)
    except ApplyConflict as error:
        if manager != _KUBECTL or live is None:
            raise
        _only_client_side(error, live, schema, api_version)
        merged, tracked = run.apply(known, True)
    except typedvalue.BadElement as error:
        raise _not_typed(config, api_version, kind, str(error)) from error
    result: JSON = orjson.loads(orjson.dumps(merged))
    result["metadata"].pop("managedFields", None)
    if tracked:
        result["metadata"]["managedFields"] = managers.encode(tracked)
    if manager == _KUBECTL:
        _refresh_last_applied(result, config)
    return result


def _check(config: JSON, schema: TypeSchema, api_version: str, kind: str) -> None:
    said_version, said_kind = config.get("apiVersion") or "", config.get("kind") or ""
    if (said_version, said_kind) != (api_version, kind):
        raise BadRequest(f"invalid object type: {_gvk(said_version, said_kind)}")
    metadata = config.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object")
    if metadata.get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    if why := complaint(typedvalue.root(schema), config):
        raise _not_typed(config, api_version, kind, why)


def _not_typed(config: JSON, api_version: str, kind: str, why: str) -> PlainInternal:
    metadata = config["metadata"]
    return PlainInternal(f"failed to create typed patch object ({metadata.get('namespace', '')}/"
                         f"{metadata.get('name', '')}; {_gvk(api_version, kind)}): {why}")


def _gvk(api_version: str, kind: str) -> str:
    """Go's GroupVersionKind.String; the core group is empty, its slash is not."""
    group, _, version = str(api_version).rpartition("/")
    return f"{group}/{version}, Kind={kind}"


def _known(live: JSON | None, schema: TypeSchema, api_version: str, now: str) -> Managers:
    if live is None:
        return {}
    try:
        known = managers.decode(live["metadata"].get("managedFields"))
    except managers.BadEntries as error:
        raise PlainInternal(f"failed to decode managed fields: {error}") from error
    return known or tracking.before_first_apply(live, schema, api_version, now)


class _Apply:
    """One apply of one configuration; may run twice, the second time with force."""

    def __init__(self, live: JSON, config: JSON, schema: TypeSchema, api_version: str, identity: Manager, now: str,
                 resets: FieldSet) -> None:
        self.live, self.config, self.api_version, self.identity = live, config, api_version, identity
        self.now, self.resets = now, resets
        self.root = typedvalue.root(schema)

    def apply(self, known: Managers, force: bool) -> tuple[JSON, Managers]:
        merged = typedvalue.merge(self.root, self.live, self.config)
        last = known.get(self.identity)
        said = fieldset.without(typedvalue.field_set(self.root, self.config), self.resets)
        tracked = dict(known)
        tracked[self.identity] = Entry(said, self.api_version, last.time if last else None)
        if last is not None:
            merged = self.prune(merged, tracked, last.fields)
        removed, changed = typedvalue.compare(self.root, self.live, merged)
        removed, changed = fieldset.without(removed, self.resets), fieldset.without(changed, self.resets)
        tracked = self.take(tracked, removed, changed, force)
        if self.identity in tracked:
            own = fieldset.difference(tracked[self.identity].fields, tracking.STRIPPED)
            if not own:
                del tracked[self.identity]
            else:
                time = self.now if merged != self.live else tracked[self.identity].time
                tracked[self.identity] = Entry(own, self.api_version, time)
        return merged, tracked

    def take(self, tracked: Managers, removed: FieldSet, changed: FieldSet, force: bool) -> Managers:
        """Take what changed from everybody else. Raises ApplyConflict unless forced."""
        others = {name: entry for name, entry in tracked.items() if name != self.identity}
        conflicts = {name: both for name, entry in others.items()
                     if (both := fieldset.intersection(entry.fields, changed))}
        if conflicts and not force:
            raise ApplyConflict(conflicts)
        kept = {name: Entry(rest, entry.api_version, entry.time) for name, entry in others.items()
                if (rest := fieldset.difference(fieldset.difference(entry.fields, changed), removed))}
        if tracked[self.identity].fields:
            kept[self.identity] = tracked[self.identity]
        return kept

    def prune(self, merged: JSON, tracked: Managers, last: FieldSet) -> JSON:
        """Remove what this manager applied last time, does not apply now, and nobody else owns."""
        at = self.root
        closed_last = typedvalue.with_structs(at, last)
        pruned = typedvalue.remove(at, merged, closed_last) or {}
        owned = fieldset.EMPTY
        for entry in tracked.values():
            owned = fieldset.union(owned, entry.fields)
        everything = typedvalue.with_structs(at, typedvalue.field_set(at, merged))
        keep = fieldset.union(self._closed(pruned), typedvalue.with_structs(at, owned))
        pruned = typedvalue.remove(at, merged, fieldset.difference(everything, keep)) or {}
        doomed = fieldset.intersection(fieldset.difference(everything, self._closed(pruned)), closed_last)
        return typedvalue.remove(at, merged, doomed) or {}

    def _closed(self, value: JSON) -> FieldSet:
        return typedvalue.with_structs(self.root, typedvalue.field_set(self.root, value))


def _only_client_side(error: ApplyConflict, live: JSON, schema: TypeSchema, api_version: str) -> None:
    """Let conflicts pass that are with kubectl's own client-side apply. Raises the error without those otherwise."""
    try:
        last = orjson.loads(live["metadata"]["annotations"][_LAST_APPLIED])
        if last["apiVersion"] != api_version:
            raise error
    except (KeyError, TypeError, orjson.JSONDecodeError):
        raise error from None
    at = typedvalue.root(schema)
    removed, changed = typedvalue.compare(at, last, live)
    allowed = fieldset.difference(fieldset.difference(typedvalue.field_set(at, last), changed), removed)
    left = {name: rest for name, fields in error.conflicts.items() if (rest := fieldset.difference(fields, allowed))}
    if left:
        raise ApplyConflict(left) from None


def _refresh_last_applied(result: JSON, config: JSON) -> None:
    """An object under client-side apply keeps its annotation true, so that kubectl may go back."""
    annotations = result["metadata"].get("annotations") or {}
    if not annotations.get(_LAST_APPLIED):
        return
    said = orjson.loads(orjson.dumps(config))
    if isinstance(own := said["metadata"].get("annotations"), dict):
        own.pop(_LAST_APPLIED, None)
    annotations[_LAST_APPLIED] = orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode() + "\n"
