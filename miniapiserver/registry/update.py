"""How an object changes (apiserver `registry/rest/update.go`, `store.go Update`).

My job: read, let the caller make the new object, check, admit, prepare, validate, write; again when somebody wrote in
between and the client did not insist on a revision. An update that takes the last finalizer off an object being
deleted deletes it. PUT, every PATCH and the writing subresources come through here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from miniapiserver import managedfields
from miniapiserver.admission.interface import Operation
from miniapiserver.errors import InternalError, Invalid, invalid
from miniapiserver.registry.allocation import Allocator, unbroken
from miniapiserver.registry.call import Call
from miniapiserver.registry.creation import invalid_object
from miniapiserver.registry.encoding import decode, encode
from miniapiserver.registry.store import StaleWrite, Store
from miniapiserver.schema import TypeSchema, complete
from miniapiserver.watchcache import Cached

JSON = dict[str, Any]

#: Tries of a write that names no revision, while others keep writing (upstream's GuaranteedUpdate has no bound).
ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Change:
    """How to make the new object from the stored one.

    `make(old)` returns a new object (never `old` itself, changed); it may raise an APIError. `tracks_fields` is False
    when `make` keeps metadata.managedFields itself (server-side apply). `follows` is True when `make` starts from
    whatever is stored (a patch): then a write that came between is no conflict, `make` is asked again.
    """

    make: Callable[[JSON], JSON]
    tracks_fields: bool = True
    follows: bool = False


async def update(store: Store, schema: TypeSchema, namespace: str, name: str, change: Change, call: Call,
                 allocator: Allocator) -> bytes:
    """The object after the change, as clients see it. Raises NotFound, Conflict, Invalid and what admission raises."""
    for _ in range(ATTEMPTS):
        current = store.get(namespace, name)
        old = store.parse(current.data)
        new = change.make(old)
        insists = _check_identity(store, old, new)
        await prepare(store, schema, old, new, change, call)
        try:
            writing = _write(store, current, old, new, call, allocator)
            return await (unbroken(writing) if allocator.allocates else writing)
        except StaleWrite as stale:
            if insists and not change.follows:
                raise store.conflict(name) from None
            await store.catch_up(stale)
    raise store.conflict(name)


def _check_identity(store: Store, old: JSON, new: JSON) -> bool:
    """Whether the client insists on the revision it read. Raises Conflict, Invalid."""
    name = old["metadata"]["name"]
    before, after = old["metadata"], new["metadata"]
    if after.get("uid") and after["uid"] != before.get("uid"):
        raise store.conflict(name, f"Precondition failed: UID in precondition: {after['uid']}, "
                                   f"UID in object meta: {before.get('uid', '')}")
    asked = after.get("resourceVersion")
    if not asked:
        if not store.row.strategy.allow_unconditional_update:
            # Upstream (`registry/generic/registry/store.go`) names the resource here where others name the kind.
            raise Invalid.fields(store.row.plural, store.row.group, name, [
                invalid("metadata.resourceVersion", 0, "must be specified for an update")])
        return False
    if asked != before["resourceVersion"]:
        raise store.conflict(name)
    return True


async def prepare(store: Store, schema: TypeSchema, old: JSON, new: JSON, change: Change, call: Call) -> None:
    """Everything between the new object and its write. `new` is complete and valid afterwards."""
    row = store.row
    row.strategy.default(new)
    _keep_system_fields(old["metadata"], new["metadata"])
    if change.tracks_fields:
        managedfields.track_update(old, new, schema, api_version=row.api_version, manager=call.options.field_manager,
                                   subresource=call.subresource, now=call.clock.rfc3339())
    attributes = call.attributes(Operation.UPDATE, row, new, old, namespace=old["metadata"].get("namespace", ""),
                                 name=old["metadata"]["name"])
    await call.admission.admit(attributes)
    complete(new, schema)  # as `old` is: a comparison must see what the client changed and nothing else
    context = call.context()
    if call.subresource not in ("", "scale"):  # a Scale is another way to write the spec
        row.strategy.prepare_for_status_update(new, old, context)
        problems = row.strategy.validate_status_update(new, old)
    else:
        row.strategy.prepare_for_update(new, old, context)
        problems = row.strategy.validate_update(new, old)
    if problems:
        raise invalid_object(row, new, problems)
    await call.admission.validate(attributes)
    call.warnings.extend(row.strategy.warnings(new))
    complete(new, schema)


def _keep_system_fields(old: JSON, new: JSON) -> None:
    """What an update cannot change: the server's own metadata (`rest.BeforeUpdate`)."""
    for name in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation",
                 "resourceVersion"):
        if name in old:
            if not (name in ("uid", "creationTimestamp") and new.get(name)):  # a wrong one is validation's to refuse
                new[name] = old[name]
        else:
            new.pop(name, None)
    new.pop("selfLink", None)


async def _write(store: Store, current: Cached, old: JSON, new: JSON, call: Call, allocator: Allocator) -> bytes:
    if call.options.dry_run:
        async with allocator.allocation(new, old, dry_run=True):
            return encode(new)
    if is_released(new):
        data = encode(new)
        await store.remove(current)
        await allocator.release(new)
        return data
    async with allocator.allocation(new, old, dry_run=False):
        return await store.replace(new, current)


def is_released(obj: JSON) -> bool:
    """Being deleted, nothing left to wait for: no finalizers, no grace, and for a Namespace no content."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp"):
        return False
    if metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds"):
        return False
    if obj["kind"] == "Namespace" and obj["apiVersion"] == "v1":
        return not (obj.get("spec") or {}).get("finalizers")
    return True


async def replace_raw(store: Store, namespace: str, name: str, make: Callable[[JSON], JSON]) -> bytes:
    """Change an object without admission or validation: the server's own bookkeeping (Binding, finalizers)."""
    for _ in range(ATTEMPTS):
        current = store.get(namespace, name)
        new = make(decode(current.data))
        try:
            return await store.replace(new, current)
        except StaleWrite as stale:
            await store.catch_up(stale)
    raise InternalError.because(f"{name} kept changing")
