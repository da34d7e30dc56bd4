"""`metadata.managedFields` as managers and their sets.

My job: read the entries into sets keyed by manager identity, write them back in upstream's order, and keep their
number bounded (apimachinery `managedfields/internal`). Pure.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from miniapiserver.managedfields import fieldset
from miniapiserver.managedfields.fieldset import FieldSet

JSON = dict[str, Any]

#: More managers than this that only update are merged into one, oldest first.
MAX_UPDATERS: Final = 10
_ANCIENT: Final = "ancient-changes"
BEFORE_FIRST_APPLY: Final = "before-first-apply"


class BadEntries(ValueError):
    """Entries that upstream refuses to read; a write then starts from the live object's."""


@dataclass(frozen=True, slots=True)
class Manager:
    """Who manages: an applier is the same in every version, an updater is not."""

    name: str
    operation: str
    api_version: str = ""
    subresource: str = ""

    @property
    def applies(self) -> bool:
        return self.operation == "Apply"

    def text(self) -> str:
        """As a conflict names it: `"kubectl" using apps/v1`."""
        shown = f'"{self.name}"'
        if self.subresource:
            shown += f' with subresource "{self.subresource}"'
        return shown if self.applies else f"{shown} using {self.api_version}"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a manager owns: `time` is None for one whose apply changed nothing."""

    fields: FieldSet
    api_version: str
    time: str | None


Managers = dict[Manager, Entry]


def updater(name: str, api_version: str, subresource: str) -> Manager:
    return Manager(name or "unknown", "Update", api_version, subresource)


def applier(name: str, subresource: str) -> Manager:
    return Manager(name or "unknown", "Apply", "", subresource)


def is_reset(entries: Any) -> bool:
    """A client asks to start over: an empty list, or one empty entry."""
    return entries in ([], [{}])


def decode(entries: list[JSON] | None) -> Managers:
    """Raises BadEntries."""
    managers: Managers = {}
    for index, entry in enumerate(entries or []):
        operation, api_version = entry.get("operation"), entry.get("apiVersion", "")
        if operation not in ("Apply", "Update"):
            raise BadEntries("operation must be `Apply` or `Update`")
        if not api_version:
            raise BadEntries("apiVersion must not be empty")
        if entry.get("fieldsType") != "FieldsV1":
            raise BadEntries(f"missing fieldsType in managed fields entry {index}")
        identity = Manager(entry.get("manager", ""), operation, "" if operation == "Apply" else api_version,
                           entry.get("subresource", ""))
        managers[identity] = Entry(_fields(entry.get("fieldsV1")), api_version, entry.get("time"))
    return managers


def _fields(fields: Any) -> FieldSet:
    try:
        return fieldset.decode(fields or {})
    except (AttributeError, TypeError, RecursionError) as error:
        raise BadEntries("fieldsV1 is no set of fields") from error


def encode(managers: Managers) -> list[JSON]:
    """Appliers before updaters, then by time and name."""
    return [entry_json(manager, entry.api_version, fieldset.encode(entry.fields), entry.time)
            for manager, entry in sorted(managers.items(), key=_order)]


def entry_json(manager: Manager, api_version: str, fields: JSON, time: str | None) -> JSON:
    entry: JSON = {"manager": manager.name, "operation": manager.operation, "apiVersion": api_version}
    if time is not None:
        entry["time"] = time
    entry["fieldsType"] = "FieldsV1"
    entry["fieldsV1"] = fields
    if manager.subresource:
        entry["subresource"] = manager.subresource
    return entry


def _order(item: tuple[Manager, Entry]) -> tuple[str, str, str, str, str]:
    manager, entry = item
    return manager.operation, entry.time or "", manager.name, entry.api_version, manager.subresource


def cap(managers: Managers) -> Managers:
    """Merge the oldest updaters of each version into one entry until few enough are left."""
    updaters = sorted((item for item in managers.items() if not item[0].applies),
                      key=lambda item: (item[1].time or "", item[0].name))
    excess = len(updaters) - MAX_UPDATERS
    if excess <= 0:
        return managers
    capped = dict(managers)
    first: dict[str, Manager] = {}
    for manager, entry in updaters:
        if excess <= 0:
            break
        if entry.api_version not in first:
            first[entry.api_version] = manager
            continue
        bucket = Manager(_ANCIENT, "Update", entry.api_version)
        if bucket not in capped:
            capped[bucket] = capped.pop(first[entry.api_version])
        merged = fieldset.union(entry.fields, capped[bucket].fields)
        if manager != bucket:
            del capped[manager]
            excess -= 1
        capped[bucket] = replace(entry, fields=merged)
    return capped
