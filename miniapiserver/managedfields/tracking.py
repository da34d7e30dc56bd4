"""Field ownership of creates, updates and patches.

My job: after a write that is no apply, give its manager what it changed, take that from everybody else, and forget
managers that own nothing (structured-merge-diff `Updater.Update` and the layers of apimachinery's FieldManager around
it). Pure: `now` is an argument; the new object is completed and gets its `metadata.managedFields`.
"""

from functools import cache
from typing import Any, Final

from miniapiserver.managedfields import fieldset, managers, typedvalue
from miniapiserver.managedfields.fieldset import FieldSet
from miniapiserver.managedfields.managers import Entry, Managers
from miniapiserver.schema.completion import complete
from miniapiserver.schema.types import TypeSchema, find

JSON = dict[str, Any]

#: What belongs to the server: nobody owns it.
STRIPPED: Final = fieldset.of_paths(
    "apiVersion", "kind", "metadata", "metadata.name", "metadata.namespace", "metadata.creationTimestamp",
    "metadata.selfLink", "metadata.uid", "metadata.clusterName", "metadata.generation", "metadata.managedFields",
    "metadata.resourceVersion")
_STATUS: Final = fieldset.of_paths("status")
_SPEC: Final = fieldset.of_paths("spec")
#: What a /status write does not touch, where it is more than spec (upstream's strategies, GetResetFields).
_STATUS_RESETS: Final = {
    "core.v1.Pod": fieldset.of_paths("spec", "metadata.deletionTimestamp", "metadata.ownerReferences"),
    "apps.v1.Deployment": fieldset.of_paths("spec", "metadata.labels"),
    "certificates.v1.CertificateSigningRequest": fieldset.of_paths("spec", "status.conditions"),
    "apiextensions.v1.CustomResourceDefinition": fieldset.of_paths("spec", "metadata"),
    "apiregistration.v1.APIService": fieldset.of_paths("spec", "metadata"),
    "flowcontrol.v1.FlowSchema": fieldset.of_paths("spec", "metadata"),
    "flowcontrol.v1.PriorityLevelConfiguration": fieldset.of_paths("spec", "metadata"),
    "networking.v1.ServiceCIDR": fieldset.of_paths("spec"),
}


@cache
def reset_fields(type_name: str, subresource: str) -> FieldSet:
    """Fields that a write of this endpoint cannot own, because its strategy takes them from the live object."""
    has_status = "status" in find(type_name).fields
    if not subresource:
        return _STATUS if has_status else fieldset.EMPTY
    if subresource == "status":
        return _STATUS_RESETS.get(type_name, _SPEC)
    return fieldset.EMPTY


@cache
def _zero(type_name: str) -> JSON:
    """What an object says before anybody said anything; compared with, never handed out."""
    empty: JSON = {}
    complete(empty, find(type_name))
    return empty


def manager_name(field_manager: str, user_agent: str) -> str:
    """The `fieldManager` parameter, else the user agent up to its first `/`, printable and at most 128 long."""
    if field_manager:
        return field_manager
    name = user_agent.partition("/")[0]
    return "".join(char for char in name if char.isprintable())[:128] or "unknown"


def track_update(old: JSON | None, new: JSON, schema: TypeSchema, *, api_version: str, manager: str,
                 subresource: str = "", now: str) -> None:
    """Set `new["metadata"]["managedFields"]`. `old` None is a create."""
    complete(new, schema)
    entries = new["metadata"].pop("managedFields", None)
    before = (old or {}).get("metadata", {}).get("managedFields")
    known = _known(entries, before, subresource)
    if old is not None and not known and not managers.is_reset(entries):
        return  # never tracked, so it stays that way until the first apply
    tracked = _update(_zero(schema.name) if old is None else old, new, schema, known, api_version, manager,
                      subresource, now)
    if tracked:
        new["metadata"]["managedFields"] = managers.encode(tracked)


def _known(entries: Any, before: Any, subresource: str) -> Managers:
    """The request's own entries where a client may set them, else the live object's."""
    for candidate in (None if subresource else entries, before):
        if candidate is entries and managers.is_reset(entries) and not subresource:
            return {}
        try:
            if known := managers.decode(candidate):
                return known
        except managers.BadEntries:
            continue
    return {}


def _update(old: JSON, new: JSON, schema: TypeSchema, known: Managers, api_version: str, manager: str,
            subresource: str, now: str) -> Managers:
    removed, changed = typedvalue.compare(typedvalue.root(schema), old, new)
    resets = reset_fields(schema.name, subresource)
    removed, changed = fieldset.without(removed, resets), fieldset.without(changed, resets)
    tracked = {name: Entry(rest, entry.api_version, entry.time) for name, entry in known.items()
               if (rest := fieldset.difference(fieldset.difference(entry.fields, changed), removed))}
    own = fieldset.difference(changed, STRIPPED)
    if own:
        identity = managers.updater(manager, api_version, subresource)
        if identity in tracked:
            own = fieldset.union(own, tracked[identity].fields)
        tracked[identity] = Entry(own, api_version, now)
    return managers.cap(tracked)


def before_first_apply(live: JSON, schema: TypeSchema, api_version: str, now: str) -> Managers:
    """An object that nobody tracked: one updater owns all of it."""
    return _update(_zero(schema.name), live, schema, {}, api_version, managers.BEFORE_FIRST_APPLY, "", now)


def zero_object(schema: TypeSchema) -> JSON:
    """A fresh empty object, as apply sees one that does not exist yet."""
    empty: JSON = {}
    complete(empty, schema)
    return empty


def keep_times(old: JSON, new: JSON) -> None:
    """If nothing but the times of managedFields changed, take the old ones: such a write is no write."""
    before, after = old.get("metadata", {}).get("managedFields"), new.get("metadata", {}).get("managedFields")
    if not before or not after or before == after or len(before) != len(after):
        return
    if any(_timeless(one) != _timeless(other) for one, other in zip(before, after, strict=True)):
        return
    if _content(old) == _content(new):
        new["metadata"]["managedFields"] = before


def _timeless(entry: JSON) -> JSON:
    return {key: value for key, value in entry.items() if key != "time"}


def _content(obj: JSON) -> JSON:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {key: value for key, value in obj.items() if key != "metadata"} | {"metadata": metadata}
