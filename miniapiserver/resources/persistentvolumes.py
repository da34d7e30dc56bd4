"""PersistentVolumes and PersistentVolumeClaims."""

from typing import Any

from miniapiserver.errors import FieldError, forbidden_field, invalid, not_supported, required
from miniapiserver.resources.columns import AGE, UNKNOWN, age, column, table
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.names import dns_subdomain
from miniapiserver.resources.pods.resources import amount_errors
from miniapiserver.resources.pods.scheduling import node_selector_errors
from miniapiserver.resources.pods.specdiff import claim_diff
from miniapiserver.resources.pods.values import backstep_errors
from miniapiserver.resources.quantity import BadQuantity, canonical, canonicalize, parse
from miniapiserver.resources.resource import Resource, WriteContext
from miniapiserver.resources.selectors import label_selector_errors
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_SHORT_MODES = (
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
)
_RECLAIM = ("Delete", "Recycle", "Retain")
_VOLUME_MODES = ("Block", "Filesystem")
_NOT_SOURCES = frozenset(("capacity", "accessModes", "claimRef", "persistentVolumeReclaimPolicy", "storageClassName",
                          "mountOptions", "volumeMode", "nodeAffinity", "volumeAttributesClassName"))
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_CLAIM_WORDS = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)


def _mode_errors(modes: Any, path: str, none: str = "") -> list[FieldError]:
    """`none`: what is said of none at all."""
    listed = [mode or "" for mode in modes or ()]
    if not listed:
        return [required(path, none)]
    errors = [not_supported(path, mode, _MODES) for mode in listed if mode not in _MODES]
    if "ReadWriteOncePod" in listed and len(set(listed)) > 1:
        errors.append(forbidden_field(path, "may not use ReadWriteOncePod with other access modes"))
    return errors


class PersistentVolumeStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        canonicalize(spec.get("capacity"))
        if not spec.get("persistentVolumeReclaimPolicy"):
            spec["persistentVolumeReclaimPolicy"] = "Retain"
        if spec.get("volumeMode") is None:
            spec["volumeMode"] = "Filesystem"
        if (host := spec.get("hostPath")) is not None and host.get("type") is None:
            host["type"] = ""
        status = obj.get("status")
        if status is not None and not status.get("phase"):
            status["phase"] = "Pending"

    def prepare_for_create(self, obj: JSON, context: WriteContext) -> None:
        obj["status"] = {"phase": "Pending", "lastPhaseTransitionTime": context.now}

    def prepare_for_status_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        super().prepare_for_status_update(obj, old, context)
        status, before = obj.setdefault("status", {}) or {}, old.get("status") or {}
        if status.get("phase") != before.get("phase") and (
                status.get("lastPhaseTransitionTime") == before.get("lastPhaseTransitionTime")):
            obj["status"] = status | {"lastPhaseTransitionTime": context.now}

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = _mode_errors(spec.get("accessModes"), "spec.accessModes")
        capacity = spec.get("capacity") or {}
        if not capacity:
            errors.append(required("spec.capacity"))
        if "storage" not in capacity or len(capacity) > 1:
            errors.append(not_supported("spec.capacity", capacity or None, ("storage",)))
        for name, amount in capacity.items():
            errors += amount_errors(name, amount, f"spec.capacity[{name}]") + _positive(
                amount, f"spec.capacity[{name}]"
            )
        policy = spec.get("persistentVolumeReclaimPolicy")
        if policy and policy not in _RECLAIM:
            errors.append(not_supported("spec.persistentVolumeReclaimPolicy", policy, _RECLAIM))
        errors += _affinity_errors(spec.get("nodeAffinity")) + _source_errors(spec)
        if name := spec.get("storageClassName"):
            errors += [invalid("spec.storageClassName", name, words) for words in dns_subdomain(name)]
        return errors + _volume_mode_errors(spec)

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
        errors = self.check(obj)
        new_source, old_source = _source(spec), _source(old_spec)
        if new_source != old_source:
            errors.append(
                forbidden_field(
                    "spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation\n"
                )
            )
        if spec.get("volumeMode") != old_spec.get("volumeMode"):
            errors.append(invalid("volumeMode", spec.get("volumeMode"), "field is immutable"))
        return errors


def _source(spec: JSON) -> JSON:
    return {key: value for key, value in spec.items() if key not in _NOT_SOURCES and value is not None}


def _positive(amount: Any, path: str) -> list[FieldError]:
    try:
        return [] if parse(amount) > 0 else [invalid(path, canonical(amount), "must be greater than zero")]
    except BadQuantity:
        return []


def _volume_mode_errors(spec: JSON) -> list[FieldError]:
    mode = spec.get("volumeMode")
    return [] if mode is None or mode in _VOLUME_MODES else [not_supported("spec.volumeMode", mode, _VOLUME_MODES)]


def _affinity_errors(affinity: Any) -> list[FieldError]:
    if affinity is None:
        return []
    if affinity.get("required") is None:
        return [required("spec.nodeAffinity.required", "must specify required node constraints")]
    return node_selector_errors(affinity["required"], "spec.nodeAffinity.required")


def _source_errors(spec: JSON) -> list[FieldError]:
    sources = list(_source(spec))
    if not sources:
        return [required("spec", "must specify a volume type")]
    errors = [forbidden_field(f"spec.{key}", "may not specify more than 1 volume type") for key in sources[1:]]
    if sources[0] in ("hostPath", "local"):
        path = spec[sources[0]].get("path") or ""
        where = f"spec.{sources[0]}.path"
        errors += backstep_errors(where, path) if path else [required(where)]
    if sources[0] == "local" and spec.get("nodeAffinity") is None:
        errors.append(required("metadata.annotations", "Local volume requires node affinity"))
    if sources[0] == "csi":
        errors += [required(f"spec.csi.{key}") for key in ("driver", "volumeHandle") if not spec["csi"].get(key)]
    if sources[0] == "nfs":
        errors += [required(f"spec.nfs.{key}") for key in ("server", "path") if not spec["nfs"].get(key)]
    return errors


class PersistentVolumeClaimStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        if spec.get("volumeMode") is None:
            spec["volumeMode"] = "Filesystem"
        resources = spec["resources"] = spec.get("resources") or {}
        canonicalize(resources.get("requests"))
        canonicalize(resources.get("limits"))
        if spec.get("dataSource") and not spec.get("dataSourceRef"):
            spec["dataSourceRef"] = dict(spec["dataSource"])
        elif (ref := spec.get("dataSourceRef")) and not spec.get("dataSource") and not ref.get("namespace"):
            spec["dataSource"] = {key: value for key, value in ref.items() if key != "namespace"}
        status = obj.get("status")
        if status is not None:
            status["phase"] = status.get("phase") or "Pending"
            canonicalize(status.get("capacity"))

    def new_status(self, obj: JSON) -> JSON:
        return {"phase": "Pending"}

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = _mode_errors(spec.get("accessModes"), "spec.accessModes", "at least 1 access mode is required")
        errors += label_selector_errors(spec.get("selector"), "spec.selector")
        storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
        where = "spec.resources[storage]"
        if storage is None:
            errors.append(required(where))
        else:
            errors += amount_errors("storage", storage, where) or _positive(storage, where)
        if name := spec.get("storageClassName"):
            errors += [invalid("spec.storageClassName", name, words) for words in dns_subdomain(name)]
        return errors + _volume_mode_errors(spec)

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
        errors = self.check(obj)
        allowed = dict(spec)
        if not old_spec.get("volumeName"):
            allowed["volumeName"] = old_spec.get("volumeName")
        if (old.get("status") or {}).get("phase") == "Bound":
            allowed["resources"] = old_spec.get("resources")
            allowed["volumeAttributesClassName"] = old_spec.get("volumeAttributesClassName")
        if old_spec.get("storageClassName") is None:
            allowed["storageClassName"] = None  # a default class may be filled in later
        if _present(allowed) != _present(old_spec):
            errors.append(forbidden_field("spec", f"{_CLAIM_WORDS}\n{claim_diff(old_spec, allowed)}"))
        return errors + _shrink_errors(spec, old_spec)


def _present(spec: JSON) -> JSON:
    return {key: value for key, value in spec.items() if value not in (None, "", [], {})}


def _shrink_errors(spec: JSON, old: JSON) -> list[FieldError]:
    new, before = (((item.get("resources") or {}).get("requests") or {}).get("storage") for item in (spec, old))
    try:
        if before is not None and parse(new) < parse(before):
            return [forbidden_field("spec.resources.requests.storage", "field can not be less than status.capacity")]
    except BadQuantity:
        pass  # said already, where it stands
    return []


def _modes_text(modes: Any) -> str:
    return ",".join(short for mode, short in _SHORT_MODES if mode in (modes or ()))


def _class(obj: JSON) -> str:
    named = (metadata_of(obj).get("annotations") or {}).get(_CLASS_ANNOTATION)
    return named or (obj.get("spec") or {}).get("storageClassName") or ""


def _attributes_class(spec: JSON) -> str:
    name = spec.get("volumeAttributesClassName")
    return "<unset>" if name is None else name


def _phase(obj: JSON) -> str:
    return "Terminating" if metadata_of(obj).get("deletionTimestamp") else (obj.get("status") or {}).get("phase") or ""


def _volume_cells(obj: JSON, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    claim = spec.get("claimRef")
    claimed = f"{claim.get('namespace') or ''}/{claim.get('name') or ''}" if claim else ""
    return [(spec.get("capacity") or {}).get("storage") or "0", _modes_text(spec.get("accessModes")),
            spec.get("persistentVolumeReclaimPolicy") or "", _phase(obj), claimed, _class(obj), _attributes_class(spec),
            (obj.get("status") or {}).get("reason") or "", age(obj, now), spec.get("volumeMode") or UNKNOWN]


def _claim_cells(obj: JSON, now: float) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    capacity = modes = ""
    if spec.get("volumeName"):
        modes, capacity = _modes_text(status.get("accessModes")), (status.get("capacity") or {}).get("storage") or "0"
    return [
        _phase(obj),
        spec.get("volumeName") or "",
        capacity,
        modes,
        _class(obj),
        _attributes_class(spec),
        age(obj, now),
        spec.get("volumeMode") or "<unset>",
    ]


_VOLUMES = table(
    column("Capacity", "PersistentVolumeSpec.capacity"),
    column("Access Modes", "PersistentVolumeSpec.accessModes"),
    column("Reclaim Policy", "PersistentVolumeSpec.persistentVolumeReclaimPolicy"),
    column("Status", "PersistentVolumeStatus.phase"),
    column("Claim", "PersistentVolumeSpec.claimRef"),
    column("StorageClass", "StorageClass of the pv"),
    column("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
    column("Reason", "PersistentVolumeStatus.reason"),
    AGE,
    column("VolumeMode", "PersistentVolumeSpec.volumeMode", wide=True),
    cells=_volume_cells,
)
_CLAIMS = table(
    column("Status", "PersistentVolumeClaimStatus.phase"),
    column("Volume", "PersistentVolumeClaimSpec.volumeName"),
    column("Capacity", "PersistentVolumeClaimStatus.capacity"),
    column("Access Modes", "PersistentVolumeClaimStatus.accessModes"),
    column("StorageClass", "StorageClass of the pvc"),
    column("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
    AGE,
    column("VolumeMode", "PersistentVolumeClaimSpec.volumeMode", wide=True),
    cells=_claim_cells,
)


def persistent_volume_row(group: Group) -> Resource:
    strategy = PersistentVolumeStrategy(namespaced=False, status=True, returns_deleted_object=True)
    return group.row("PersistentVolume", "persistentvolumes", strategy, namespaced=False, table=_VOLUMES, short=("pv",),
                     subresources=(status_of("PersistentVolume"),))


def persistent_volume_claim_row(group: Group) -> Resource:
    kind = "PersistentVolumeClaim"
    return group.row(
        kind,
        "persistentvolumeclaims",
        PersistentVolumeClaimStrategy(status=True, returns_deleted_object=True),
        table=_CLAIMS,
        short=("pvc",),
        subresources=(status_of(kind),),
    )
