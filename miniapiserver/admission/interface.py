"""The words admission plugins speak (apiserver `pkg/admission`).

My job: Attributes of one write, and the Plugin base class. `admission.chain` asks the plugins in their order; a plugin
refuses by raising an APIError and changes a new object in place.
"""

import enum
from dataclasses import dataclass
from typing import Any

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.resources.resource import Resource

JSON = dict[str, Any]


class Operation(enum.Enum):
    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


@dataclass(slots=True)
class Attributes:
    """`obj` is the new object (or a subresource's body; None for DELETE), `old` the stored one (None for CREATE).

    `name` may be empty at CREATE with generateName. `warnings` reach the client as headers.
    """

    operation: Operation
    row: Resource
    subresource: str
    namespace: str
    name: str
    user: UserInfo
    obj: JSON | None
    old: JSON | None
    dry_run: bool
    warnings: list[str]


class Plugin:
    """Either method may raise an APIError. Instances live as long as the server and own their caches."""

    async def admit(self, attributes: Attributes) -> None:
        """Mutate `attributes.obj`."""

    async def validate(self, attributes: Attributes) -> None:
        """Look, do not touch."""
