"""Events: one kind, two groups.

My job: the rules of core/v1 and events.k8s.io/v1 Events and how one becomes the other. Both are stored as core/v1.
"""

from typing import Any

from miniapiserver.errors import FieldError, invalid, required
from miniapiserver.resources.columns import NAME, column, name, since
from miniapiserver.resources.kinds import Group, metadata_fields, select
from miniapiserver.resources.metadata import metadata_errors, metadata_of, metadata_update_errors
from miniapiserver.resources.names import byte_length, label_key, subdomain_name
from miniapiserver.resources.resource import Column, Conversion, Resource, Table
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

EVENTS = Group("events.k8s.io", "v1", "io.k8s.api.events")
TTL = 3600.0
_SHORT, _LONG = 128, 1024
_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
#: Names of the same thing: events.k8s.io → core
_RENAMED = {"note": "message", "regarding": "involvedObject", "deprecatedSource": "source",
            "deprecatedFirstTimestamp": "firstTimestamp", "deprecatedLastTimestamp": "lastTimestamp",
            "deprecatedCount": "count", "reportingController": "reportingComponent"}
_BACK = {core: new for new, core in _RENAMED.items()}
_ALWAYS_CORE: JSON = {"eventTime": None, "reportingComponent": "", "reportingInstance": ""}


def _renamed(obj: JSON, names: dict[str, str]) -> JSON:
    return {names.get(key, key): value for key, value in obj.items()}


def to_core(obj: JSON) -> JSON:
    return _renamed(obj, _RENAMED) | {"apiVersion": "v1"}


def from_core(obj: JSON) -> JSON:
    converted = _renamed(obj, _BACK) | {"apiVersion": "events.k8s.io/v1"}
    for key in ("reportingController", "reportingInstance"):
        if not converted.get(key):
            converted.pop(key, None)
    return converted


class EventStrategy(ObjectStrategy):
    """Written through either group, in core's shape. `is_new` tells that events.k8s.io was spoken."""

    def __init__(self, *, is_new: bool) -> None:
        super().__init__(create_on_update=True)
        self.is_new = is_new

    def default(self, obj: JSON) -> None:
        if self.is_new:
            obj.setdefault("eventTime", None)
            for key in ("regarding", "deprecatedSource"):
                obj[key] = obj.get(key) or {}
            obj.setdefault("deprecatedFirstTimestamp", None)
            obj.setdefault("deprecatedLastTimestamp", None)
            return
        for key, value in _ALWAYS_CORE.items():
            obj.setdefault(key, value)
        for key in ("involvedObject", "source"):
            obj[key] = obj.get(key) or {}
        for key in ("firstTimestamp", "lastTimestamp"):
            obj.setdefault(key, None)

    def validate(self, obj: JSON) -> list[FieldError]:
        event = to_core(obj) if self.is_new else obj
        return self._all_errors(event) + (self._modern_errors(event) if self.is_new or event.get("eventTime") else [])

    def validate_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        event, before = (to_core(obj), to_core(old)) if self.is_new else (obj, old)
        errors = metadata_update_errors(metadata_of(event), metadata_of(before)) + self._all_errors(event)
        if self.is_new:
            errors += _immutable_errors(event, before)
        return errors

    def _all_errors(self, event: JSON) -> list[FieldError]:
        meta = metadata_of(event)
        where = (event.get("involvedObject") or {}).get("namespace") or "default"
        errors = metadata_errors(meta, True, subdomain_name)
        if (meta.get("namespace") or "") != where:
            text = "does not match event.namespace"
            return [
                invalid("involvedObject.namespace", (event.get("involvedObject") or {}).get("namespace") or "", text),
                *errors,
            ]
        return errors

    def _modern_errors(self, event: JSON) -> list[FieldError]:
        """What an event with a time of its own must say."""
        errors = [] if event.get("eventTime") else [required("eventTime")]
        component = event.get("reportingComponent") or ""
        controller = "reportingController"
        if not component:
            errors.append(required(controller))
        else:
            errors += [invalid(controller, component, words) for words in label_key(component)]
        for key in ("reportingInstance", "action", "reason"):
            text = event.get(key) or ""
            if not text:
                errors.append(required(key))
            elif byte_length(text) > _SHORT:
                errors.append(invalid(key, "", f"can have at most {_SHORT} characters"))
        if byte_length(event.get("message") or "") > _LONG:
            errors.append(invalid("message", "", f"can have at most {_LONG} characters"))
        return errors + (_new_group_errors(event) if self.is_new else [])


def _new_group_errors(event: JSON) -> list[FieldError]:
    """Through events.k8s.io the fields of old are not for clients."""
    errors: list[FieldError] = []
    if event.get("type") not in ("Normal", "Warning"):
        errors.append(invalid("type", "", f"has invalid value: {event.get('type') or ''}"))
    for key, empty in (("firstTimestamp", None), ("lastTimestamp", None), ("count", 0), ("source", {})):
        if event.get(key) not in (empty, None, {}, 0):
            errors.append(invalid(key, "", "needs to be unset"))
    return errors


def _immutable_errors(event: JSON, before: JSON) -> list[FieldError]:
    keys = ("involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "type",
            "eventTime", "action", "related", "reportingComponent", "reportingInstance")
    return [invalid(key, event.get(key), "field is immutable") for key in keys
            if (event.get(key) or None) != (before.get(key) or None)]


def _source_text(event: JSON) -> str:
    source = event.get("source") or {}
    words = [source.get("component") or event.get("reportingComponent") or "", source.get("host") or ""]
    if not source.get("component") and not source.get("host"):
        words[1] = event.get("reportingInstance") or ""
    return ", ".join(word for word in words if word)


def _core_cells(event: JSON, now: float) -> list[Any]:
    first, last = event.get("firstTimestamp"), event.get("lastTimestamp")
    count = event.get("count") or 1
    series = event.get("series") or {}
    first_seen = since(first or event.get("eventTime"), now)
    last_seen = since(last, now) if last else first_seen
    if series:
        last_seen, count = since(series.get("lastObservedTime"), now), series.get("count") or 0
    target = event.get("involvedObject") or {}
    shown = (
        f"{(target.get('kind') or '').lower()}/{target.get('name') or ''}"
        if target.get("name")
        else (target.get("kind") or "").lower()
    )
    return [last_seen, event.get("type") or "", event.get("reason") or "", shown, target.get("fieldPath") or "",
            _source_text(event), (event.get("message") or "").strip(), first_seen, count, name(event)]


_COLUMNS = (
    column("Last Seen", "Event.lastTimestamp"), column("Type", "Event.type"), column("Reason", "Event.reason"),
    column("Object", "Event.involvedObject"), column("Subobject", "ObjectReference.fieldPath", wide=True),
    column("Source", "Event.source", wide=True), column("Message", "Event.message"),
    column("First Seen", "Event.firstTimestamp", wide=True), column("Count", "Event.count", wide=True),
    Column("Name", "string", "", NAME.description, 1))
_CORE_TABLE = Table(_COLUMNS, _core_cells)
_NEW_TABLE = Table(_COLUMNS, lambda obj, now: _core_cells(to_core(obj), now))

_CORE_FIELDS: dict[str, tuple[str, ...]] = {f"involvedObject.{key}": ("involvedObject", key) for key in _REFERENCE} | {
    "reason": ("reason",), "reportingComponent": ("reportingComponent",), "type": ("type",)}
_select_core = select(_CORE_FIELDS)


def core_fields(event: JSON) -> dict[str, str]:
    source = (event.get("source") or {}).get("component") or event.get("reportingComponent") or ""
    return _select_core(event) | {"source": source}


def new_fields(event: JSON) -> dict[str, str]:
    found = core_fields(to_core(event))
    renamed = {key.replace("involvedObject.", "regarding."): value for key, value in found.items()}
    return metadata_fields(event) | renamed | {"reportingController": found["reportingComponent"]}


def core_event_row(group: Group) -> Resource:
    return group.row("Event", "events", EventStrategy(is_new=False), table=_CORE_TABLE, short=("ev",), ttl=TTL,
                     selectable=core_fields, fields=(*_CORE_FIELDS, "source"))


def rows() -> tuple[Resource, ...]:
    fields = (*(f"regarding.{key}" for key in _REFERENCE), "reason", "reportingController", "type")
    return (EVENTS.row("Event", "events", EventStrategy(is_new=True), table=_NEW_TABLE, short=("ev",), storage="events",
                       ttl=TTL, selectable=new_fields, fields=fields, conversion=Conversion(to_core, from_core)),)
