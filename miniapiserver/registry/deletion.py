"""How an object goes (apiserver `registry/rest/delete.go`, `store.go Delete`).

My job: preconditions, grace, finalizers and propagation; mark the object or remove it. Controllers and the kubelet
finish what I only mark. `endpoints.crud` calls me.
"""

import enum
from dataclasses import dataclass
from typing import Any

from miniapiserver.admission.interface import Operation
from miniapiserver.errors import Conflict
from miniapiserver.registry.allocation import Allocator, unbroken
from miniapiserver.registry.call import Call
from miniapiserver.registry.encoding import decode, encode, with_revision
from miniapiserver.registry.options import DeleteOptions
from miniapiserver.registry.store import StaleWrite, Store
from miniapiserver.registry.update import ATTEMPTS, is_released
from miniapiserver.resources.pods.deletion import grace_for
from miniapiserver.watchcache import Cached

JSON = dict[str, Any]

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"


class Outcome(enum.Enum):
    MARKED = "marked"  # still there, with a deletionTimestamp
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Deleted:
    outcome: Outcome
    data: bytes


async def delete(store: Store, namespace: str, name: str, options: DeleteOptions, call: Call,
                 allocator: Allocator) -> Deleted:
    """Raises NotFound, Conflict (a precondition), and what admission raises."""
    for _ in range(ATTEMPTS):
        current = store.get(namespace, name)
        obj = store.parse(current.data)
        _check_preconditions(store, obj, options)
        attributes = call.attributes(Operation.DELETE, store.row, None, obj, namespace=namespace, name=name)
        await call.admission.admit(attributes)
        await call.admission.validate(attributes)
        try:
            # A pod is marked, then removed; a Service removed, then its address given back: never only the first.
            return await unbroken(_step(store, current, obj, options, call, allocator))
        except StaleWrite as stale:
            if options.resource_version:
                raise store.conflict(name) from None
            await store.catch_up(stale)
    raise store.conflict(name)


def _check_preconditions(store: Store, obj: JSON, options: DeleteOptions) -> None:
    metadata = obj["metadata"]
    if options.uid is not None and options.uid != metadata["uid"]:
        raise _refused(store, metadata, f"the UID in the precondition ({options.uid}) does not match the UID in record "
                                        f"({metadata['uid']}). The object might have been deleted and then recreated")
    if options.resource_version is not None and options.resource_version != metadata["resourceVersion"]:
        raise _refused(store, metadata, f"the ResourceVersion in the precondition ({options.resource_version}) does "
                                        f"not match the ResourceVersion in record ({metadata['resourceVersion']}). "
                                        "The object might have been modified")


def _refused(store: Store, metadata: JSON, why: str) -> Conflict:
    """Upstream names the Kind here, not the resource."""
    return Conflict(f'Operation cannot be fulfilled on {_kind(store)} "{metadata["name"]}": {why}',
                    details={"name": metadata["name"], "kind": store.row.kind}
                    | ({"group": store.row.group} if store.row.group else {}))


def _kind(store: Store) -> str:
    return f"{store.row.kind}.{store.row.group}" if store.row.group else store.row.kind


async def _step(store: Store, current: Cached, obj: JSON, options: DeleteOptions, call: Call,
                allocator: Allocator) -> Deleted:
    """One try. Raises StaleWrite."""
    marked = mark(store.row.kind, obj, options, store.row.strategy.default_propagation, call)
    stays = not is_released(marked)
    if call.options.dry_run:
        return Deleted(Outcome.MARKED if stays else Outcome.REMOVED, encode(marked))
    if stays:
        return Deleted(Outcome.MARKED, await store.replace(marked, current))
    gone = obj
    if store.row.kind == "Pod" and store.row.group == "":
        # Upstream writes the mark before it removes, so that watchers see why the pod goes.
        await store.replace(marked, current)
        current = store.get(marked["metadata"].get("namespace", ""), marked["metadata"]["name"])
        gone = marked
    revision = await store.remove(current)
    await allocator.release(obj)
    return Deleted(Outcome.REMOVED, with_revision(encode(gone), revision))


def mark(kind: str, obj: JSON, options: DeleteOptions, default_propagation: str, call: Call) -> JSON:
    """`obj` as it looks once its deletion was asked for."""
    marked = decode(encode(obj))
    metadata = marked["metadata"]
    metadata["resourceVersion"] = obj["metadata"]["resourceVersion"]
    finalizers = _finalizers(metadata.get("finalizers") or [], options, default_propagation)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    if kind == "Namespace":
        return _mark_namespace(marked, call)
    grace = grace_for(obj, {"gracePeriodSeconds": options.grace}) if kind == "Pod" else 0
    if metadata.get("deletionTimestamp"):
        return _shorten(marked, grace, call)
    metadata["deletionTimestamp"] = call.clock.rfc3339(grace)
    metadata["deletionGracePeriodSeconds"] = grace
    if metadata.get("generation"):
        metadata["generation"] += 1
    return marked


def _mark_namespace(marked: JSON, call: Call) -> JSON:
    """A Namespace waits in phase Terminating for its controller, which empties spec.finalizers."""
    marked["metadata"].setdefault("deletionTimestamp", call.clock.rfc3339())
    marked["status"] = (marked.get("status") or {}) | {"phase": "Terminating"}
    return marked


def _shorten(marked: JSON, grace: int, call: Call) -> JSON:
    """A repeated delete may only shorten what is left of the grace."""
    metadata = marked["metadata"]
    if grace < (metadata.get("deletionGracePeriodSeconds") or 0):
        metadata["deletionGracePeriodSeconds"] = grace
        metadata["deletionTimestamp"] = call.clock.rfc3339(grace)
        if metadata.get("generation"):
            metadata["generation"] += 1
    return marked


def _finalizers(present: list[str], options: DeleteOptions, default_propagation: str) -> list[str]:
    """The garbage collector's finalizer follows the asked propagation; without one, what is there stays."""
    propagation = options.propagation
    if not propagation:
        if ORPHAN in present or FOREGROUND in present:
            return present
        propagation = "Orphan" if default_propagation == "orphan" else "Background"
    kept = [name for name in present if name not in (ORPHAN, FOREGROUND)]
    wanted = {"Orphan": [ORPHAN], "Foreground": [FOREGROUND]}.get(propagation, [])
    return kept + wanted
