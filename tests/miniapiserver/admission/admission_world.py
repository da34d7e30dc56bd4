"""Objects in memory and attributes of writes, for tests of admission plugins."""

from collections.abc import Iterable
from typing import Any

from miniapiserver.admission.interface import Attributes, Operation
from miniapiserver.authentication.interface import UserInfo
from miniapiserver.resources.resource import Resource, TypeTable
from miniapiserver.resources.rows import all_rows

JSON = dict[str, Any]
TABLE = TypeTable(all_rows())
ADA = UserInfo("ada", groups=("devs", "system:authenticated"))


class Stored:
    """`Objects` over a dict; keys are (storage, namespace, name)."""

    def __init__(self, objects: dict[tuple[str, str, str], JSON] | None = None) -> None:
        self.objects = objects or {}

    def get(self, storage: str, namespace: str, name: str) -> JSON | None:
        return self.objects.get((storage, namespace, name))

    def list(self, storage: str, namespace: str = "") -> Iterable[JSON]:
        return [obj for (kind, found, _), obj in sorted(self.objects.items())
                if kind == storage and (not namespace or found == namespace)]

    async def appears(self, storage: str, namespace: str, name: str, seconds: float) -> JSON | None:
        return self.get(storage, namespace, name)


def row_of(resource: str, version: str = "v1") -> Resource:
    group, _, plural = resource.rpartition("/")
    row = TABLE.find(group, version, plural)
    assert row is not None
    return row


def creation(resource: str, obj: JSON, **more: Any) -> Attributes:
    return asked(Operation.CREATE, resource, obj, None, **more)


def asked(operation: Operation, resource: str, obj: JSON | None, old: JSON | None, *, dry_run: bool = False,
          version: str = "v1", subresource: str = "") -> Attributes:
    metadata = (obj or old or {}).get("metadata", {})
    return Attributes(operation, row_of(resource, version), subresource, metadata.get("namespace", ""),
                      metadata.get("name", ""), ADA, obj, old, dry_run, [])


def pod(name: str = "p", **spec: Any) -> JSON:
    containers = spec.pop("containers", [{"name": "c"}])
    return {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "ns"},
            "spec": {"containers": containers} | spec}


def wants(requests: JSON | None = None, limits: JSON | None = None, name: str = "c") -> JSON:
    return {"name": name, "resources": {key: value for key, value in (("requests", requests), ("limits", limits))
                                        if value}}
