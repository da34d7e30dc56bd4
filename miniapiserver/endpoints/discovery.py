"""What this server serves: `/api`, `/apis`, each group and version, and all at once (aggregated).

My job: discovery documents from the type table, built once per generation of the table and kept as bytes. I own the
cached documents; `endpoints.pages` serves them. Group order is the table's, versions of a group in the table's order,
the first is preferred. No I/O. Wire: `apidiscovery.k8s.io` v2 and v2beta1, `meta/v1` APIResourceList.
"""

import base64
import gzip
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import orjson

from miniapiserver.errors import NotAcceptable
from miniapiserver.resources.resource import Resource, Subresource, TypeTable

JSON = dict[str, Any]

JSON_TYPE: Final = "application/json"
_GROUP: Final = "apidiscovery.k8s.io"
_KIND: Final = "APIGroupDiscoveryList"
_VERSIONS: Final = ("v2", "v2beta1")
#: Below this a compressed copy is not worth its memory.
_GZIP_FROM: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes ready to send. `etag` and `gzipped` are empty where they make no sense."""

    body: bytes
    content_type: str = JSON_TYPE
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str = ""
    gzipped: bytes | None = None


def compressed(body: bytes) -> bytes | None:
    return gzip.compress(body, 6, mtime=0) if len(body) >= _GZIP_FROM else None


def storage_version_hash(group: str, version: str, kind: str) -> str:
    """The stored type as clients compare it (apiserver `discovery.StorageVersionHash`)."""
    return base64.b64encode(hashlib.sha256(f"{group}/{version}/{kind}".encode()).digest()[:8]).decode()


class Documents:
    """All discovery documents of one type table. Lives as long as the server; a changed table drops them."""

    def __init__(self, table: TypeTable, external_address: str, secure_port: int) -> None:
        self._table = table
        self._server = f"[{external_address}]:{secure_port}" if ":" in external_address else \
            f"{external_address}:{secure_port}"
        self._generation = -1
        self._documents: dict[tuple[str, str], Document | None] = {}

    def answer(self, path: str, accept: str) -> Document | None:
        """The document of a path such as `/apis/apps/v1`; None when there is none. Raises NotAcceptable."""
        if self._generation != self._table.generation:
            self._documents.clear()
            self._generation = self._table.generation
        version = aggregated_version(accept) if path in ("/api", "/apis") else ""
        key = (path, version)
        if key not in self._documents:
            if len(self._documents) > 500:  # paths that do not exist must not fill the memory
                self._documents.clear()
            self._documents[key] = self._aggregated(path, version) if version else self._plain(path)
        return self._documents[key]

    def _plain(self, path: str) -> Document | None:
        _, root, *rest = path.split("/")
        body = _PLAIN.get((root, len(rest)), _nothing)(self._table.rows(), self._server, *rest)
        if body is None:
            return None
        data = orjson.dumps(body)
        vary = {"Vary": "Accept"} if not rest else {}
        return Document(data + b"\n", headers=vary)

    def _aggregated(self, path: str, version: str) -> Document:
        rows = [row for row in self._table.rows() if bool(row.group) == (path == "/apis")]
        data = orjson.dumps(aggregated(rows, version))
        etag = f'"{hashlib.sha512(data).hexdigest().upper()}"'
        return Document(data, f"{JSON_TYPE};g={_GROUP};v={version};as={_KIND}", etag=etag, gzipped=compressed(data),
                        headers={"ETag": etag, "Vary": "Accept", "Cache-Control": "public"})


@lru_cache(maxsize=256)
def aggregated_version(accept: str) -> str:
    """`v2`, `v2beta1`, or "" for the legacy form, by the first entry we can answer. Raises NotAcceptable."""
    entries = [entry.strip() for entry in accept.split(",") if entry.strip()]
    for entry in entries:
        media, *parameters = (part.strip() for part in entry.split(";"))
        wanted = dict(parameter.partition("=")[::2] for parameter in parameters)
        wanted.pop("q", None)
        if media not in (JSON_TYPE, "*/*", "application/*"):
            continue
        if wanted.get("as") == _KIND and wanted.get("g") == _GROUP and wanted.get("v") in _VERSIONS:
            return wanted["v"]
        if not {"as", "g", "v"} & set(wanted):
            return ""
    if entries and not any(("protobuf" in entry and "as=" not in entry) or "yaml" in entry for entry in entries):
        raise NotAcceptable(f"only the following media types are accepted: {JSON_TYPE}, application/yaml, "
                            "application/vnd.kubernetes.protobuf, "
                            + ", ".join(f"{JSON_TYPE};g={_GROUP};v={version};as={_KIND}" for version in _VERSIONS),
                            details={})
    return ""


# --- the legacy documents ----------------------------------------------------------------------------------------


def _nothing(rows: Sequence[Resource], server: str, *rest: str) -> JSON | None:
    return None


def _api_versions(rows: Sequence[Resource], server: str) -> JSON:
    versions = list(dict.fromkeys(row.version for row in rows if not row.group))
    return {"kind": "APIVersions", "versions": versions,
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]}


def _group(rows: Sequence[Resource], name: str) -> JSON:
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions_of(rows, name)]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def versions_of(rows: Sequence[Resource], group: str) -> list[str]:
    return list(dict.fromkeys(row.version for row in rows if row.group == group))


def groups_of(rows: Sequence[Resource]) -> list[str]:
    """Named groups in the table's order."""
    return [group for group in dict.fromkeys(row.group for row in rows) if group]


def _api_group_list(rows: Sequence[Resource], server: str) -> JSON:
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(rows, name) for name in groups_of(rows)]}


def _api_group(rows: Sequence[Resource], server: str, group: str) -> JSON | None:
    if group not in groups_of(rows):
        return None
    return {"kind": "APIGroup", "apiVersion": "v1"} | _group(rows, group)


def _resource_list(rows: Sequence[Resource], server: str, group: str, version: str) -> JSON | None:
    own = [row for row in rows if row.group == group and row.version == version]
    if not own:
        return None
    listed = [entry for row in sorted(own, key=lambda row: row.plural) for entry in _entries(row, rows)]
    # The legacy group's list has never carried an apiVersion; clients read it all the same.
    head: JSON = {"kind": "APIResourceList"} | ({"apiVersion": "v1"} if group else {})
    return head | {"groupVersion": f"{group}/{version}" if group else version, "resources": listed}


def _core_resource_list(rows: Sequence[Resource], server: str, version: str) -> JSON | None:
    return _resource_list(rows, server, "", version)


_PLAIN: Final[dict[tuple[str, int], Callable[..., JSON | None]]] = {
    ("api", 0): _api_versions, ("api", 1): _core_resource_list,
    ("apis", 0): _api_group_list, ("apis", 1): _api_group, ("apis", 2): _resource_list,
}


def _entries(row: Resource, rows: Sequence[Resource]) -> list[JSON]:
    entry: JSON = {"name": row.plural, "singularName": row.singular, "namespaced": row.namespaced, "kind": row.kind,
                   "verbs": sorted(row.verbs)}
    if row.short_names:
        entry["shortNames"] = list(row.short_names)
    if row.categories:
        entry["categories"] = list(row.categories)
    if row.storage and "watch" in row.verbs:
        entry["storageVersionHash"] = storage_version_hash(*stored_kind(row, rows))
    return [entry, *(_subresource_entry(row, sub) for sub in sorted(row.subresources, key=lambda sub: sub.name))]


def stored_kind(row: Resource, rows: Sequence[Resource]) -> tuple[str, str, str]:
    """(group, version, kind) that is on disk: another row's when this one converts."""
    if row.conversion is None:
        return row.group, row.version, row.kind
    stored = next((other for other in rows if other.storage == row.storage and other.conversion is None), row)
    return stored.group, stored.version, stored.kind


def _subresource_entry(row: Resource, sub: Subresource) -> JSON:
    entry: JSON = {"name": f"{row.plural}/{sub.name}", "singularName": "", "namespaced": row.namespaced}
    if sub.group is not None or sub.version is not None:
        entry |= {"group": sub.group or "", "version": sub.version or ""}
    return entry | {"kind": sub.kind, "verbs": sorted(sub.verbs)}


# --- the aggregated document -------------------------------------------------------------------------------------


def aggregated(rows: Sequence[Resource], version: str) -> JSON:
    """APIGroupDiscoveryList of these rows; both versions have the same shape."""
    items = [{"metadata": {"name": group} if group else {}, "versions": [
        {"version": name, "resources": [_discovery(row) for row in sorted(rows, key=lambda row: row.plural)
                                        if row.group == group and row.version == name], "freshness": "Current"}
        for name in versions_of(rows, group)]} for group in dict.fromkeys(row.group for row in rows)]
    return {"kind": _KIND, "apiVersion": f"{_GROUP}/{version}", "metadata": {}, "items": items}


def _discovery(row: Resource) -> JSON:
    found: JSON = {"resource": row.plural, "responseKind": _own(row.kind),
                   "scope": "Namespaced" if row.namespaced else "Cluster", "singularResource": row.singular,
                   "verbs": sorted(row.verbs)}
    if row.short_names:
        found["shortNames"] = list(row.short_names)
    if row.categories:
        found["categories"] = list(row.categories)
    if row.subresources:
        found["subresources"] = [_sub_discovery(sub) for sub in sorted(row.subresources, key=lambda sub: sub.name)]
    return found


def _own(kind: str) -> JSON:
    """Empty group and version: those of the parent."""
    return {"group": "", "version": "", "kind": kind}


def _sub_discovery(sub: Subresource) -> JSON:
    found: JSON = {"subresource": sub.name,
                   "responseKind": {"group": sub.group or "", "version": sub.version or "", "kind": sub.kind},
                   "verbs": sorted(sub.verbs)}
    if sub.accepted_kinds:
        found["acceptedTypes"] = [{"group": group, "version": version, "kind": kind}
                                  for group, version, kind in sub.accepted_kinds]
    return found
