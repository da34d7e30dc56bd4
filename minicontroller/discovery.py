"""Which collections the API server has.

My job: the legacy discovery documents as a list of collections, for the two controllers that look at everything
(namespaces, garbage).
"""

from dataclasses import dataclass
from typing import Any

from wire.apiclient import Client, resource_path

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Collection:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    verbs: frozenset[str]

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "") -> str:
        return resource_path(self.group, self.version, self.plural, namespace or None, name or None)


#: Served twice or by others: events of the second group are the same objects.
SKIPPED = frozenset({("events.k8s.io", "events"), ("", "componentstatuses"), ("", "bindings")})


async def collections(client: Client) -> list[Collection]:
    """Every listable collection in its preferred version. Raises APIError, WireError."""
    found = _resources(await client.get("/api/v1"), "", "v1")
    for group in (await client.get("/apis")).get("groups") or []:
        version = group["preferredVersion"]["version"]
        found += _resources(await client.get(f"/apis/{group['name']}/{version}"), group["name"], version)
    return [item for item in found if "list" in item.verbs and (item.group, item.plural) not in SKIPPED]


def _resources(document: JSON, group: str, version: str) -> list[Collection]:
    return [
        Collection(group, version, item["name"], item["kind"], item["namespaced"], frozenset(item["verbs"]))
        for item in document.get("resources") or []
        if "/" not in item["name"]
    ]
