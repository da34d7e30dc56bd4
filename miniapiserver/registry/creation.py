"""How a new object comes to be (apiserver `registry/rest/create.go`, `registry/generic/registry/store.go Create`).

My job: defaults, system metadata, managed fields, admission, preparation, validation, allocation, write: in
upstream's order. `endpoints.crud` calls me with a decoded body; `store` writes.
"""

import secrets
import uuid
from typing import Any

from miniapiserver import managedfields
from miniapiserver.admission.interface import Operation
from miniapiserver.errors import AlreadyExists, FieldError, Invalid, PlainInternal
from miniapiserver.registry.allocation import Allocator, unbroken
from miniapiserver.registry.call import Call
from miniapiserver.registry.clock import Clock
from miniapiserver.registry.encoding import encode
from miniapiserver.registry.store import Store
from miniapiserver.resources.resource import Resource
from miniapiserver.schema import TypeSchema, complete

JSON = dict[str, Any]

#: No vowels, so that no word appears by chance (apimachinery `util/rand`).
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
SUFFIX_LENGTH = 5
LONGEST_GENERATED_BASE = 63 - SUFFIX_LENGTH
GENERATE_ATTEMPTS = 8


def random_suffix() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(SUFFIX_LENGTH))


def generated_name(base: str) -> str:
    return base[:LONGEST_GENERATED_BASE] + random_suffix()


async def create(store: Store, schema: TypeSchema, obj: JSON, call: Call, allocator: Allocator, *,
                 tracks_fields: bool = True) -> bytes:
    """The created object as clients see it (dry run: as it would be, without resourceVersion).

    `tracks_fields` is False when `obj` brings its managedFields (server-side apply).
    Raises whatever admission and validation raise, AlreadyExists, ServiceUnavailable.
    """
    wanted = obj["metadata"]
    attempts = GENERATE_ATTEMPTS if wanted.get("generateName") and not wanted.get("name") else 1
    await prepare(store.row, schema, obj, call, tracks_fields=tracks_fields)
    for attempt in range(attempts):
        try:
            writing = _write(store, obj, call, allocator)
            return await (unbroken(writing) if allocator.allocates else writing)
        except AlreadyExists:
            if attempt == attempts - 1:
                raise
            wanted["name"] = generated_name(wanted["generateName"])
    raise AssertionError("the loop returns or raises")


async def prepare(row: Resource, schema: TypeSchema, obj: JSON, call: Call, *, tracks_fields: bool = True) -> None:
    """Everything before the write; `obj` is complete and valid afterwards."""
    metadata = obj["metadata"]
    if metadata.get("resourceVersion"):
        raise PlainInternal("resourceVersion should not be set on objects to be created")
    row.strategy.default(obj)
    _forget_system_fields(metadata)
    if tracks_fields:
        managedfields.track_update(None, obj, schema, api_version=row.api_version, manager=call.options.field_manager,
                                   subresource=call.subresource, now=call.clock.rfc3339())
    attributes = call.attributes(Operation.CREATE, row, obj, None, namespace=metadata.get("namespace", ""),
                                 name=metadata.get("name", ""))
    await call.admission.admit(attributes)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = call.clock.rfc3339()
    if metadata.get("generateName") and not metadata.get("name"):
        metadata["name"] = generated_name(metadata["generateName"])
    row.strategy.prepare_for_create(obj, call.context())
    problems = row.strategy.validate(obj)
    if problems:
        raise invalid_object(row, obj, problems)
    await call.admission.validate(attributes)
    call.warnings.extend(row.strategy.warnings(obj))
    complete(obj, schema)


def invalid_object(row: Resource, obj: JSON, problems: list[FieldError]) -> Invalid:
    return Invalid.fields(row.kind, row.group, obj["metadata"].get("name", ""), problems)


def _forget_system_fields(metadata: JSON) -> None:
    """What a client cannot give a new object (`rest.WipeObjectMetaSystemFields`)."""
    for name in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink",
                 "resourceVersion"):
        metadata.pop(name, None)


async def _write(store: Store, obj: JSON, call: Call, allocator: Allocator) -> bytes:
    metadata = obj["metadata"]
    if call.options.dry_run:
        if store.find(metadata.get("namespace", ""), metadata["name"]) is not None:
            raise AlreadyExists.resource(store.row.plural, store.row.group, metadata["name"])
        async with allocator.allocation(obj, None, dry_run=True):
            return encode(obj)
    async with allocator.allocation(obj, None, dry_run=False):
        return await store.create(obj)


async def create_raw(store: Store, obj: JSON, clock: Clock) -> bytes:
    """Write an object of the server's own without admission or validation. Raises AlreadyExists."""
    metadata = obj["metadata"] | {"uid": str(uuid.uuid4()), "creationTimestamp": clock.rfc3339()}
    head = {"kind": store.row.kind, "apiVersion": store.row.api_version}
    return await store.create(head | obj | {"metadata": metadata})
