"""What a controller decided to have done.

My job: writes as values, and the one function that carries them out. Controllers return actions and never talk to the
API server themselves, so that every decision can be tested without one.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wire.apiclient import AlreadyExists, Client, Conflict, NotFound

JSON = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


@dataclass(frozen=True, slots=True)
class Create:
    """`exists_is_fine`: somebody else having made it is no failure."""

    path: str
    body: JSON
    exists_is_fine: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """PUT with the resourceVersion the decision was made on: a conflict means decide again."""

    path: str
    body: JSON


@dataclass(frozen=True, slots=True)
class Patch:
    path: str
    body: Any
    content_type: str = MERGE
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """Only the object with this uid; gone already is fine."""

    path: str
    uid: str
    propagation: str = "Background"
    grace: int | None = None


@dataclass(frozen=True, slots=True)
class After:
    """Look at this key again in so many seconds."""

    seconds: float


Action = Create | Update | Patch | Delete | After


async def carry_out(client: Client, action: Create | Update | Patch | Delete) -> JSON | None:
    """The object after the write, None when there is none. Raises wire.apiclient.APIError."""
    match action:
        case Create():
            try:
                return await client.create(action.path, action.body)
            except AlreadyExists:
                if not action.exists_is_fine:
                    raise
                return None
        case Update():
            return await client.update(action.path, action.body)
        case Patch():
            return await client.patch(action.path, action.body, action.content_type, **action.params)
        case Delete():
            options: JSON = {
                "kind": "DeleteOptions",
                "apiVersion": "v1",
                "preconditions": {"uid": action.uid},
                "propagationPolicy": action.propagation,
            }
            if action.grace is not None:
                options["gracePeriodSeconds"] = action.grace
            with contextlib.suppress(NotFound, Conflict):  # gone, or another object of that name
                return await client.delete(action.path, options)
            return None
