"""A namespace uses no more than its quotas allow.

My job: the ResourceQuota plugin (apiserver `admission/plugin/resourcequota`): what a write adds is charged to the
quota's status before the object is written, by compare and swap, so that two writes cannot both take the last place.
The controller counts again later and gives back what was charged for nothing. I run last: what others refuse costs
nothing. `wire.quota` knows what counts for how much.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from miniapiserver.admission.interface import Attributes, Operation, Plugin
from miniapiserver.errors import Forbidden, NotFound
from miniapiserver.registry.registry import Registry
from miniapiserver.registry.update import replace_raw
from wire import quota
from wire.quantity import nanos

JSON = dict[str, Any]

STORAGE = "resourcequotas"
#: Events would be gone before anybody counted them.
IGNORED = frozenset(("events",))
#: What can grow by an update.
UPDATABLE = frozenset(("services", "persistentvolumeclaims"))


class ResourceQuota(Plugin):
    """Lives as long as the server."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def validate(self, attributes: Attributes) -> None:
        if not _is_counted(attributes):
            return
        quotas = list(self._registry.list(STORAGE, attributes.namespace))
        added = _added(attributes) if quotas else {}
        charged = [item for item in quotas if charge(item, attributes, added) is not None]
        if attributes.dry_run:
            return
        store = self._registry.store_of(STORAGE)
        for item in charged:
            def with_charge(current: JSON) -> JSON:
                return charge(current, attributes, added) or current

            try:
                await replace_raw(store, attributes.namespace, item["metadata"]["name"], with_charge)
            except NotFound:
                continue  # the quota went while we looked


def _is_counted(attributes: Attributes) -> bool:
    row, operation = attributes.row, attributes.operation
    if not row.namespaced or not row.storage or attributes.subresource or row.plural in IGNORED:
        return False
    return operation is Operation.CREATE or (operation is Operation.UPDATE and row.plural in UPDATABLE
                                             and not row.group)


def _added(attributes: Attributes) -> quota.Usage:
    row = attributes.row
    assert attributes.obj is not None
    used = quota.usage(row.plural, row.group, attributes.obj)
    if attributes.old is not None:
        before = quota.usage(row.plural, row.group, attributes.old)
        used = {name: amount - before.get(name, 0) for name, amount in used.items()}
    return {name: amount for name, amount in used.items() if amount > 0}


def charge(item: JSON, attributes: Attributes, added: Mapping[str, int]) -> JSON | None:
    """The quota with `added` in its status, None if it has nothing to do with this write. Raises Forbidden."""
    row, obj = attributes.row, attributes.obj
    assert obj is not None
    status, name = item.get("status") or {}, item["metadata"]["name"]
    hard, used = status.get("hard") or {}, status.get("used") or {}
    limited = quota.concerns(row.plural, row.group, hard)
    if not quota.in_scope(item, row.plural, obj):
        return None
    if row.plural == "pods" and not row.group and (words := quota.missing(obj, limited)):
        raise _no(attributes, f"failed quota: {name}: must specify {words}")
    if unknown := limited - used.keys():
        raise _no(attributes, f"status unknown for quota: {name}, resources: {','.join(sorted(unknown))}")
    requested = {key: added[key] for key in sorted(limited) if key in added}
    if not requested:
        return None
    exceeded = [key for key in requested if nanos(str(used[key])) + requested[key] > nanos(str(hard[key]))]
    if exceeded:
        raise _no(attributes, f"exceeded quota: {name}, requested: {_words(exceeded, _texts(requested))}, "
                              f"used: {_words(exceeded, used)}, limited: {_words(exceeded, hard)}")
    total = {key: quota.text(key, nanos(str(used[key])) + amount) for key, amount in requested.items()}
    return item | {"status": status | {"used": used | total}}


def _texts(amounts: quota.Usage) -> dict[str, str]:
    return {name: quota.text(name, amount) for name, amount in amounts.items()}


def _words(names: Iterable[str], amounts: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={amounts[name]}" for name in names)


def _no(attributes: Attributes, why: str) -> Forbidden:
    return Forbidden.resource(attributes.row.plural, attributes.row.group, attributes.name, why)
