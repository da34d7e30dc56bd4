"""Reading objects by storage name, for those who only look.

My job: the one small protocol that authentication, authorization, admission and the path to the nodes need from the
registry.
"""

from collections.abc import Iterable
from typing import Any, Protocol

JSON = dict[str, Any]


class Objects(Protocol):
    """Reads answer from the watch cache, which shows every write of this server before the write returned.

    `storage` is the row's storage name (`pods`, `deployments.apps`). What is returned is the caller's to change.
    """

    def get(self, storage: str, namespace: str, name: str) -> JSON | None: ...

    def list(self, storage: str, namespace: str = "") -> Iterable[JSON]: ...

    async def appears(self, storage: str, namespace: str, name: str, seconds: float) -> JSON | None:
        """The object as soon as it is there; None when it is still missing after `seconds`."""
        ...
