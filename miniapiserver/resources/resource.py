"""What a row of the type table says about a kind.

My job: the shape of a row and of its strategy. I own no row; `miniapiserver.resources.<group>` modules write them,
the registry, discovery, OpenAPI and Table printing read them. A new kind is a new row; a CRD becomes one at run time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from miniapiserver.errors import FieldError

JSON = dict[str, Any]

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class WriteContext:
    """Facts of one write that a strategy may need. `now` is RFC3339 with seconds; `user`, `groups` name the caller."""

    now: str
    user: str = ""
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)
    dry_run: bool = False
    subresource: str = ""


class Strategy:
    """How a kind is defaulted, prepared and validated (apiserver `rest.RESTCreateStrategy` and kin). No I/O, no clock.

    All functions take plain dicts as decoded from JSON. `default`, `prepare_*` change `obj` in place.
    """

    #: PUT without resourceVersion is allowed (upstream AllowUnconditionalUpdate)
    allow_unconditional_update: bool = True
    #: PUT of a missing object creates it (upstream AllowCreateOnUpdate)
    allow_create_on_update: bool = False
    #: DELETE answers the object instead of a Status
    returns_deleted_object: bool = False
    #: propagation when a DELETE names none: "background" or "orphan"
    default_propagation: str = "background"

    def default(self, obj: JSON) -> None:
        """Fill in defaults, as upstream's `SetDefaults_*`. Runs on every decode of a write, before validation."""

    def prepare_for_create(self, obj: JSON, context: WriteContext) -> None:
        """Drop what a client may not set (status), set generation where the kind has one."""

    def validate(self, obj: JSON) -> list[FieldError]:
        """Everything wrong with a new object, metadata included."""
        return []

    def prepare_for_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        """Keep what the main endpoint may not change (status); raise generation when the spec changed."""

    def validate_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        """Everything wrong with the change from `old` to `obj` (immutable fields, and the object itself)."""
        return []

    def prepare_for_status_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        """Keep spec and most metadata of `old`, take status from `obj`. Other subresources by `context.subresource`."""

    def validate_status_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        return []

    def warnings(self, obj: JSON) -> list[str]:
        """Texts for `Warning: 299` headers on create and update."""
        return []


@dataclass(frozen=True, slots=True)
class Subresource:
    """`kind`/`group`/`version` of what it speaks; group and version are None when they are the parent's."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str | None = None
    version: str | None = None
    accepted_kinds: tuple[tuple[str, str, str], ...] = ()  # (group, version, kind) of bodies, when not `kind`


@dataclass(frozen=True, slots=True)
class Column:
    """A Table column definition (meta.k8s.io/v1 TableColumnDefinition)."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """`cells(obj, now)` gives one row; `now` is seconds since the epoch."""

    columns: tuple[Column, ...]
    cells: Callable[[JSON, float], list[Any]]


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a second version of a stored kind (events.k8s.io/v1 Event, autoscaling/v1 HPA) becomes it and back."""

    to_storage: Callable[[JSON], JSON]
    from_storage: Callable[[JSON], JSON]


@dataclass(frozen=True, slots=True)
class Resource:
    """One row: a resource of one group and version.

    `type_name` is the key of its type in the schema table (OpenAPI definition name, `io.k8s.api.core.v1.Pod`).
    `storage` is the key part below /registry (`pods`, `deployments.apps`); "" for kinds never stored (reviews).
    `selectable_fields(obj)` gives every field a fieldSelector may name, metadata.name and metadata.namespace included;
    `field_names` lists those names.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    type_name: str
    strategy: Strategy
    table: Table
    verbs: tuple[str, ...] = ALL_VERBS
    storage: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    selectable_fields: Callable[[JSON], dict[str, str]] = lambda obj: {}
    field_names: tuple[str, ...] = ("metadata.name", "metadata.namespace")
    conversion: Conversion | None = None
    ttl: float | None = None  # seconds an object lives unless rewritten (events)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def subresource(self, name: str) -> Subresource | None:
        return next((sub for sub in self.subresources if sub.name == name), None)


class TypeTable:
    """All rows, found by group, version and plural. Mutable, because CRDs add rows while the server runs."""

    def __init__(self, rows: Sequence[Resource] = ()) -> None:
        self._rows: dict[tuple[str, str, str], Resource] = {}
        self.generation = 0
        for row in rows:
            self.add(row)

    def add(self, row: Resource) -> None:
        self._rows[row.group, row.version, row.plural] = row
        self.generation += 1

    def remove(self, group: str, version: str, plural: str) -> None:
        self._rows.pop((group, version, plural), None)
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._rows.get((group, version, plural))

    def has_group(self, group: str) -> bool:
        return any(row.group == group for row in self._rows.values())

    def has_version(self, group: str, version: str) -> bool:
        return any(row.group == group and row.version == version for row in self._rows.values())

    def rows(self) -> Sequence[Resource]:
        return tuple(self._rows.values())
