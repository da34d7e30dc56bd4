"""Writes of roles and bindings: nobody grants what he does not have.

My job: hand such writes to `authorization.escalation`. Not one of upstream's plugins (there the check sits in the
registry), so no flag turns it off.
"""

from miniapiserver.admission.interface import Attributes, Operation, Plugin
from miniapiserver.authorization.escalation import EscalationCheck
from miniapiserver.authorization.rbac import GROUP


class Escalation(Plugin):
    def __init__(self, check: EscalationCheck) -> None:
        self._check = check

    async def validate(self, attributes: Attributes) -> None:
        writes = attributes.operation in (Operation.CREATE, Operation.UPDATE)
        if writes and attributes.row.group == GROUP and attributes.obj is not None:
            await self._check.check(attributes.user, attributes.row.plural, attributes.obj, attributes.old)
