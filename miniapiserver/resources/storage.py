"""storage.k8s.io/v1: classes, drivers, attachments, capacities."""

from typing import Any

from miniapiserver.errors import FieldError, duplicate, forbidden_field, invalid, not_supported, required
from miniapiserver.resources.columns import AGE, age, column, joined, name, table
from miniapiserver.resources.descriptions import DESCRIPTIONS
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.names import dns_subdomain, label_key
from miniapiserver.resources.pods.values import choice_errors, objects
from miniapiserver.resources.resource import Column, Resource, Table, WriteContext
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

STORAGE = Group("storage.k8s.io", "v1", "io.k8s.api.storage")
_RECLAIM = ("Delete", "Retain")
_BINDING = ("Immediate", "WaitForFirstConsumer")
_IMMUTABLE = "field is immutable"
_UPDATES = "updates to parameters are forbidden."


class StorageClassStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        for key, value in (("reclaimPolicy", "Delete"), ("volumeBindingMode", "Immediate")):
            if obj.get(key) is None:
                obj[key] = value

    def check(self, obj: JSON) -> list[FieldError]:
        provisioner = obj.get("provisioner") or ""
        errors = [required("provisioner")] if not provisioner else [
            invalid("provisioner", provisioner, words) for words in label_key(provisioner.lower())]
        errors += [FieldError("parameters", "FieldValueInvalid", f'Invalid value: "{key}": field can not be empty.')
                   for key in (obj.get("parameters") or {}) if not key]
        policy = obj.get("reclaimPolicy")
        if policy and policy not in _RECLAIM:
            errors.append(not_supported("reclaimPolicy", policy, _RECLAIM))
        return errors + choice_errors("volumeBindingMode", obj.get("volumeBindingMode"), _BINDING)

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        errors: list[FieldError] = []
        if (obj.get("parameters") or {}) != (old.get("parameters") or {}):
            errors.append(forbidden_field("parameters", _UPDATES))
        if obj.get("provisioner") != old.get("provisioner"):
            errors.append(forbidden_field("provisioner", "updates to provisioner are forbidden."))
        if obj.get("reclaimPolicy") != old.get("reclaimPolicy"):
            errors.append(forbidden_field("reclaimPolicy", "updates to reclaimPolicy are forbidden."))
        if obj.get("volumeBindingMode") != old.get("volumeBindingMode"):
            errors.append(invalid("volumeBindingMode", obj.get("volumeBindingMode"), _IMMUTABLE))
        return errors


class VolumeAttributesClassStrategy(ObjectStrategy):
    def check(self, obj: JSON) -> list[FieldError]:
        driver = obj.get("driverName") or ""
        errors = (
            [required("driverName")]
            if not driver
            else [invalid("driverName", driver, words) for words in dns_subdomain(driver.lower())]
        )
        return (
            errors
            if obj.get("parameters")
            else [*errors, required("parameters", "must contain at least one key/value pair")]
        )

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        errors = (
            []
            if obj.get("driverName") == old.get("driverName")
            else [invalid("driverName", obj.get("driverName"), _IMMUTABLE)]
        )
        return (
            errors
            if obj.get("parameters") == old.get("parameters")
            else [*errors, forbidden_field("parameters", _UPDATES)]
        )


class CSIDriverStrategy(ObjectStrategy):
    def prepare_for_create(self, obj: JSON, context: WriteContext) -> None:
        """Upstream counts generations from the first change on."""

    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        for key, value in (
            ("attachRequired", True),
            ("podInfoOnMount", False),
            ("storageCapacity", False),
            ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
            ("requiresRepublish", False),
            ("seLinuxMount", False),
        ):
            if spec.get(key) is None:
                spec[key] = value
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]

    def check(self, obj: JSON) -> list[FieldError]:
        driver, spec = metadata_of(obj).get("name") or "", obj.get("spec") or {}
        errors = [invalid("metadata.name", driver, words) for words in dns_subdomain(driver.lower())] if driver else []
        policy = spec.get("fsGroupPolicy")
        if policy is not None and policy not in ("File", "None", "ReadWriteOnceWithFSType"):
            errors.append(not_supported("spec.fsGroupPolicy", policy, ("File", "None", "ReadWriteOnceWithFSType")))
        return errors + [not_supported("spec.volumeLifecycleModes", mode or "", ("Ephemeral", "Persistent"))
                         for mode in spec.get("volumeLifecycleModes") or () if mode not in ("Persistent", "Ephemeral")]


class CSINodeStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        spec.setdefault("drivers", None)
        for driver in spec["drivers"] or ():
            if driver is not None:
                driver.setdefault("topologyKeys", None)

    def check(self, obj: JSON) -> list[FieldError]:
        errors: list[FieldError] = []
        seen: set[str] = set()
        for index, driver in enumerate(objects((obj.get("spec") or {}).get("drivers"))):
            path, driver_name = f"spec.drivers[{index}]", driver.get("name") or ""
            errors += [invalid(f"{path}.name", driver_name, words) for words in dns_subdomain(driver_name.lower())] \
                if driver_name else [required(f"{path}.name")]
            if not driver.get("nodeID"):
                errors.append(required(f"{path}.nodeID"))
            if driver_name in seen:
                errors.append(duplicate(f"{path}.name", driver_name))
            seen.add(driver_name)
            errors += [invalid(f"{path}.topologyKeys", key or "", words) for key in driver.get("topologyKeys") or ()
                       for words in label_key(key or "")]
        return errors


class VolumeAttachmentStrategy(ObjectStrategy):
    status_shape = (("attached", False),)

    def default(self, obj: JSON) -> None:
        super().default(obj)
        spec = obj["spec"] = obj.get("spec") or {}
        spec["source"] = spec.get("source") or {}

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        attacher, node = spec.get("attacher") or "", spec.get("nodeName") or ""
        errors = (
            [invalid("spec.attacher", attacher, words) for words in label_key(attacher.lower())]
            if attacher
            else [required("spec.attacher")]
        )
        volume = (spec.get("source") or {}).get("persistentVolumeName")
        if volume is None and (spec.get("source") or {}).get("inlineVolumeSpec") is None:
            errors.append(
                required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
            )
        elif volume == "":
            errors.append(required("spec.source.persistentVolumeName", "must specify non empty persistentVolumeName"))
        return errors + ([invalid("spec.nodeName", node, words) for words in dns_subdomain(node)])

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        same = (obj.get("spec") or {}) == (old.get("spec") or {})
        return self.check(obj) + ([] if same else [invalid("spec", obj.get("spec"), _IMMUTABLE)])


class CSIStorageCapacityStrategy(ObjectStrategy):
    def check(self, obj: JSON) -> list[FieldError]:
        storage_class = obj.get("storageClassName") or ""
        return [invalid("storageClassName", storage_class, words) for words in dns_subdomain(storage_class)]


def _flag(value: Any) -> Any:
    return "<unset>" if value is None else bool(value)


def _class_cells(obj: JSON, now: float) -> list[Any]:
    is_default = (metadata_of(obj).get("annotations") or {}).get(
        "storageclass.kubernetes.io/is-default-class"
    ) == "true"
    shown = f"{name(obj)} (default)" if is_default else name(obj)
    return [
        shown,
        obj.get("provisioner") or "",
        obj.get("reclaimPolicy") or "Delete",
        obj.get("volumeBindingMode") or "<unset>",
        bool(obj.get("allowVolumeExpansion")),
        age(obj, now),
    ]


def _driver_cells(obj: JSON, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    tokens = [item.get("audience") or "" for item in objects(spec.get("tokenRequests"))]
    return [
        _flag(spec.get("attachRequired")),
        _flag(spec.get("podInfoOnMount")),
        _flag(spec.get("storageCapacity")),
        joined(tokens) or "<unset>",
        _flag(spec.get("requiresRepublish")),
        joined(spec.get("volumeLifecycleModes")) or "<none>",
        age(obj, now),
    ]


def _attachment_cells(obj: JSON, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    return [
        spec.get("attacher") or "",
        (spec.get("source") or {}).get("persistentVolumeName") or "",
        spec.get("nodeName") or "",
        bool((obj.get("status") or {}).get("attached")),
        age(obj, now),
    ]


_class_table = table(
    column("Provisioner", "StorageClass.provisioner"), column("ReclaimPolicy", "StorageClass.reclaimPolicy"),
    column("VolumeBindingMode", "StorageClass.volumeBindingMode"),
    column("AllowVolumeExpansion", "StorageClass.allowVolumeExpansion"), AGE, cells=lambda obj, now: [])
_CLASSES = Table(_class_table.columns, _class_cells)
_ATTRIBUTES = table(column("DriverName", "VolumeAttributesClass.driverName"), AGE,
                    cells=lambda obj, now: [obj.get("driverName") or "", age(obj, now)])
_DRIVERS = table(
    column("AttachRequired", "CSIDriverSpec.attachRequired", type="boolean"),
    column("PodInfoOnMount", "CSIDriverSpec.podInfoOnMount", type="boolean"),
    column("StorageCapacity", "CSIDriverSpec.storageCapacity", type="boolean"),
    column("TokenRequests", "CSIDriverSpec.tokenRequests"),
    column("RequiresRepublish", "CSIDriverSpec.requiresRepublish", type="boolean"),
    column("Modes", "CSIDriverSpec.volumeLifecycleModes"), AGE, cells=_driver_cells)
_NODES = table(
    column("Drivers", "Drivers indicates the number of CSI drivers registered on the node", type="integer"),
    AGE,
    cells=lambda obj, now: [len((obj.get("spec") or {}).get("drivers") or ()), age(obj, now)],
)
_ATTACHMENTS = table(
    Column("Attacher", "string", "name", DESCRIPTIONS["VolumeAttachmentSpec.attacher"]),
    column("PV", "VolumeAttachmentSource.persistentVolumeName"),
    column("Node", "VolumeAttachmentSpec.nodeName"),
    column("Attached", "VolumeAttachmentStatus.attached", type="boolean"),
    AGE,
    cells=_attachment_cells,
)
_CAPACITIES = table(
    column("StorageClassName", "CSIStorageCapacity.storageClassName"),
    column("Capacity", "CSIStorageCapacity.capacity"),
    cells=lambda obj, now: [obj.get("storageClassName") or "", obj.get("capacity") or "<unset>"],
)


def rows() -> tuple[Resource, ...]:
    row = STORAGE.row
    return (
        row(
            "CSIDriver",
            "csidrivers",
            CSIDriverStrategy(namespaced=False, generation=True, returns_deleted_object=True,
                              unconditional_update=False),
            namespaced=False,
            table=_DRIVERS,
        ),
        row(
            "CSINode",
            "csinodes",
            CSINodeStrategy(namespaced=False, returns_deleted_object=True, unconditional_update=False),
            namespaced=False,
            table=_NODES,
        ),
        row("CSIStorageCapacity", "csistoragecapacities", CSIStorageCapacityStrategy(unconditional_update=False),
            table=_CAPACITIES),
        row(
            "StorageClass",
            "storageclasses",
            StorageClassStrategy(namespaced=False, returns_deleted_object=True),
            namespaced=False,
            table=_CLASSES,
            short=("sc",),
        ),
        row(
            "VolumeAttachment",
            "volumeattachments",
            VolumeAttachmentStrategy(namespaced=False, status=True, returns_deleted_object=True,
                                     unconditional_update=False),
            namespaced=False,
            table=_ATTACHMENTS,
            subresources=(status_of("VolumeAttachment"),),
        ),
        row(
            "VolumeAttributesClass",
            "volumeattributesclasses",
            VolumeAttributesClassStrategy(namespaced=False),
            namespaced=False,
            table=_ATTRIBUTES,
            short=("vac",),
        ),
    )
