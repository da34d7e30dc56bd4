"""How a group's module writes its rows.

My job: a builder with the defaults that nearly every row shares: storage key, type name, status and scale
subresources, the two selectable fields of metadata. I own no row; see `rows`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from miniapiserver.resources.columns import NAME_AND_AGE
from miniapiserver.resources.resource import ALL_VERBS, Conversion, Resource, Strategy, Subresource, Table
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]
Selectable = Callable[[JSON], dict[str, str]]

READ_WRITE = ("get", "patch", "update")
PROXY_VERBS = ("create", "delete", "get", "patch", "update")
SCALE = Subresource("scale", "Scale", READ_WRITE, "autoscaling", "v1")
METADATA_FIELDS = ("metadata.name", "metadata.namespace")


def status_of(kind: str) -> Subresource:
    return Subresource("status", kind, READ_WRITE)


def metadata_fields(obj: JSON) -> dict[str, str]:
    meta = obj.get("metadata") or {}
    return {"metadata.name": meta.get("name") or "", "metadata.namespace": meta.get("namespace") or ""}


def text(value: Any) -> str:
    """A field as a selector compares it: as Go prints it, missing as the empty string."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def select(paths: Mapping[str, tuple[str, ...]], fallback: Mapping[str, str] | None = None) -> Selectable:
    """A selectable_fields function: field name to the path of keys where its value stands."""
    defaults = dict(fallback or {})

    def fields(obj: JSON) -> dict[str, str]:
        found = metadata_fields(obj)
        for field, path in paths.items():
            value: Any = obj
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            found[field] = text(value) or defaults.get(field, "")
        return found

    return fields


@dataclass(frozen=True, slots=True)
class Group:
    """One group and version. `package` is where its types are documented (`io.k8s.api.core`)."""

    name: str
    version: str
    package: str

    def row(self, kind: str, plural: str, strategy: Strategy | None = None, *, table: Table = NAME_AND_AGE,
            namespaced: bool = True, singular: str = "", short: tuple[str, ...] = (), categories: tuple[str, ...] = (),
            subresources: tuple[Subresource, ...] = (), verbs: tuple[str, ...] = ALL_VERBS, stored: bool = True,
            storage: str = "", selectable: Selectable = metadata_fields, fields: tuple[str, ...] = (),
            conversion: Conversion | None = None, ttl: float | None = None) -> Resource:
        key = storage or (f"{plural}.{self.name}" if self.name else plural)
        return Resource(
            group=self.name, version=self.version, kind=kind, plural=plural, singular=singular or kind.lower(),
            namespaced=namespaced, type_name=f"{self.package}.{self.version}.{kind}",
            strategy=strategy or ObjectStrategy(namespaced=namespaced), table=table, verbs=verbs,
            storage=key if stored else "", short_names=short, categories=categories, subresources=subresources,
            selectable_fields=selectable, field_names=METADATA_FIELDS + fields, conversion=conversion, ttl=ttl)

    def review(self, kind: str, plural: str, *, namespaced: bool = False, strategy: Strategy | None = None) -> Resource:
        """A kind that is asked and answered, never stored."""
        return self.row(kind, plural, strategy, namespaced=namespaced, verbs=("create",), stored=False)
