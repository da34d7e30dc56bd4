"""The circumstances of one write.

My job: carry who writes, with which options and under which rules, through creation, update and deletion. Pure.
"""

from dataclasses import dataclass, field
from typing import Any

from miniapiserver.admission.chain import AdmissionChain
from miniapiserver.admission.interface import Attributes, Operation
from miniapiserver.authentication.interface import UserInfo
from miniapiserver.registry.clock import Clock
from miniapiserver.registry.options import WriteOptions
from miniapiserver.resources.resource import Resource, WriteContext

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """`warnings` is shared with the request and collects texts for its Warning headers."""

    user: UserInfo
    options: WriteOptions
    admission: AdmissionChain
    clock: Clock
    subresource: str = ""
    warnings: list[str] = field(default_factory=list)

    def context(self) -> WriteContext:
        user = self.user
        return WriteContext(self.clock.rfc3339(), user.name, user.groups, user.uid, user.extra, self.options.dry_run,
                            self.subresource)

    def attributes(self, operation: Operation, row: Resource, obj: JSON | None, old: JSON | None, *, namespace: str,
                   name: str) -> Attributes:
        return Attributes(operation, row, self.subresource, namespace, name, self.user, obj, old,
                          self.options.dry_run, self.warnings)
