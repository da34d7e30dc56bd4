"""The order in which admission plugins are asked.

My job: first every plugin may change the object, then every plugin may refuse it. I own the list, not the plugins'
caches.
"""

from collections.abc import Sequence

from miniapiserver.admission.interface import Attributes, Plugin


class AdmissionChain:
    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._mutating = tuple(p for p in plugins if type(p).admit is not Plugin.admit)
        self._validating = tuple(p for p in plugins if type(p).validate is not Plugin.validate)

    async def admit(self, attributes: Attributes) -> None:
        for plugin in self._mutating:
            await plugin.admit(attributes)

    async def validate(self, attributes: Attributes) -> None:
        for plugin in self._validating:
            await plugin.validate(attributes)
