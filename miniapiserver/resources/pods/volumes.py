"""Volumes of a pod.

My job: what may stand in `spec.volumes`, source by source. Words as upstream's `validateVolumeSource`.
"""

from collections.abc import Callable
from typing import Any

from miniapiserver.errors import FieldError, duplicate, forbidden_field, invalid, not_supported, required
from miniapiserver.resources.names import dns_label, dns_subdomain
from miniapiserver.resources.pods.env import VOLUME_FIELDS, field_reference_errors, resource_reference_errors
from miniapiserver.resources.pods.values import (
    backstep_errors,
    file_path_errors,
    mode_errors,
    objects,
)
from miniapiserver.resources.quantity import BadQuantity, parse

JSON = dict[str, Any]
Rule = Callable[[JSON, str], list[FieldError]]

_HOST_PATH_TYPES = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
_MAX_EXPIRATION = 1 << 32


def volume_errors(volumes: Any, path: str) -> tuple[list[FieldError], frozenset[str]]:
    """What is wrong, and the names of the volumes that are right."""
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, volume in enumerate(objects(volumes)):
        where, name = f"{path}[{index}]", volume.get("name") or ""
        found = _source_errors(volume, where)
        found += (
            [invalid(f"{where}.name", name, words) for words in dns_label(name)]
            if name
            else [required(f"{where}.name")]
        )
        if name in names:
            found.append(duplicate(f"{where}.name", name))
        if found:
            errors += found
        else:
            names.add(name)
    return errors, frozenset(names)


def _source_errors(volume: JSON, path: str) -> list[FieldError]:
    present = [key for key, source in volume.items() if key != "name" and source is not None]
    if not present:
        return [required(path, "must specify a volume type")]
    errors: list[FieldError] = []
    ordered = sorted(present, key=lambda key: _ORDER.get(key, len(_ORDER)))
    for position, key in enumerate(ordered):
        if position:
            errors.append(forbidden_field(f"{path}.{key}", "may not specify more than 1 volume type"))
        elif rule := _RULES.get(key):
            errors += rule(volume[key], f"{path}.{key}")
    return errors


def _needs(*keys: str) -> Rule:
    return lambda source, path: [required(f"{path}.{key}") for key in keys if not source.get(key)]


def _empty_dir(source: JSON, path: str) -> list[FieldError]:
    try:
        fine = parse(source.get("sizeLimit")) >= 0
    except BadQuantity:
        fine = False
    return [] if fine else [forbidden_field(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]


def _host_path(source: JSON, path: str) -> list[FieldError]:
    where = source.get("path") or ""
    errors = backstep_errors(f"{path}.path", where) if where else [required(f"{path}.path")]
    if (kind := source.get("type") or "") not in _HOST_PATH_TYPES:
        errors.append(not_supported(f"{path}.type", kind, _HOST_PATH_TYPES))
    return errors


def _nfs(source: JSON, path: str) -> list[FieldError]:
    errors = _needs("server", "path")(source, path)
    if (where := source.get("path")) and not where.startswith("/"):
        errors.append(invalid(f"{path}.path", where, "must be an absolute path"))
    return errors


def _items(source: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(objects(source.get("items"))):
        where = f"{path}.items[{index}]"
        errors += [] if item.get("key") else [required(f"{where}.key")]
        target = item.get("path") or ""
        errors += file_path_errors(f"{where}.path", target) if target else [required(f"{where}.path")]
        errors += mode_errors(f"{where}.mode", item.get("mode"))
    return errors


def _secret(source: JSON, path: str) -> list[FieldError]:
    return (_needs("secretName")(source, path) + mode_errors(f"{path}.defaultMode", source.get("defaultMode"))
            + _items(source, path))


def _config_map(source: JSON, path: str) -> list[FieldError]:
    return (_needs("name")(source, path) + mode_errors(f"{path}.defaultMode", source.get("defaultMode"))
            + _items(source, path))


def _downward_file(item: JSON, path: str) -> list[FieldError]:
    target = item.get("path") or ""
    errors = file_path_errors(f"{path}.path", target) if target else [required(f"{path}.path")]
    if (field := item.get("fieldRef")) is not None:
        errors += field_reference_errors(field, VOLUME_FIELDS, f"{path}.fieldRef")
        if item.get("resourceFieldRef") is not None:
            errors.append(
                invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
            )
    elif (resource := item.get("resourceFieldRef")) is not None:
        errors += resource_reference_errors(resource, f"{path}.resourceFieldRef", in_volume=True)
    else:
        errors.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    return errors + mode_errors(f"{path}.mode", item.get("mode"))


def _downward(source: JSON, path: str) -> list[FieldError]:
    errors = mode_errors(f"{path}.defaultMode", source.get("defaultMode"))
    for item in objects(source.get("items")):
        errors += _downward_file(item, path)  # upstream names no index here
    return errors


def _token(source: JSON, path: str) -> list[FieldError]:
    seconds = source.get("expirationSeconds") or 0
    errors: list[FieldError] = []
    if seconds < 600:
        errors.append(invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
    if seconds > _MAX_EXPIRATION:
        errors.append(
            invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
        )
    target = source.get("path") or ""
    return errors + (file_path_errors(f"{path}.path", target) if target else [required(f"{path}.path")])


def _named_items(source: JSON, path: str) -> list[FieldError]:
    return _needs("name")(source, path) + _items(source, path)


def _downward_projection(source: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(objects(source.get("items"))):
        errors += _downward_file(item, f"{path}.items[{index}]")
    return errors


_PROJECTIONS: dict[str, Rule] = {
    "secret": _named_items,
    "configMap": _named_items,
    "downwardAPI": _downward_projection,
    "serviceAccountToken": _token,
    "clusterTrustBundle": _needs("path"),
    "podCertificate": _needs("signerName", "keyType"),
}


def _projected(source: JSON, path: str) -> list[FieldError]:
    errors = mode_errors(f"{path}.defaultMode", source.get("defaultMode"))
    for index, projection in enumerate(objects(source.get("sources"))):
        where = f"{path}.sources[{index}]"
        present = [key for key in _PROJECTIONS if projection.get(key) is not None]
        for position, key in enumerate(present):
            if position:
                errors.append(forbidden_field(f"{where}.{key}", "may not specify more than 1 volume type per source"))
            else:
                errors += _PROJECTIONS[key](projection[key], f"{where}.{key}")
    return errors


def _csi(source: JSON, path: str) -> list[FieldError]:
    driver = source.get("driver") or ""
    if not driver:
        return [required(f"{path}.driver")]
    return [invalid(f"{path}.driver", driver, words) for words in dns_subdomain(driver.lower())]


def _ephemeral(source: JSON, path: str) -> list[FieldError]:
    if source.get("volumeClaimTemplate") is None:
        return [required(f"{path}.volumeClaimTemplate")]
    spec = source["volumeClaimTemplate"].get("spec") or {}
    return [] if spec.get("accessModes") else [required(f"{path}.volumeClaimTemplate.spec.accessModes",
                                                        "at least 1 access mode is required")]


#: In the order in which upstream looks for them
_RULES: dict[str, Rule] = {
    "emptyDir": _empty_dir,
    "hostPath": _host_path,
    "gitRepo": _needs("repository"),
    "gcePersistentDisk": _needs("pdName"),
    "awsElasticBlockStore": _needs("volumeID"),
    "secret": _secret,
    "nfs": _nfs,
    "iscsi": _needs("targetPortal", "iqn"),
    "glusterfs": _needs("endpoints", "path"),
    "flocker": lambda source, path: [],
    "persistentVolumeClaim": _needs("claimName"),
    "rbd": _needs("monitors", "image"),
    "cinder": _needs("volumeID"),
    "cephfs": _needs("monitors"),
    "quobyte": _needs("registry", "volume"),
    "downwardAPI": _downward,
    "fc": lambda source, path: [],
    "flexVolume": _needs("driver"),
    "configMap": _config_map,
    "azureFile": _needs("secretName", "shareName"),
    "vsphereVolume": _needs("volumePath"),
    "photonPersistentDisk": _needs("pdID"),
    "portworxVolume": _needs("volumeID"),
    "azureDisk": _needs("diskName", "diskURI"),
    "storageos": lambda source, path: [],
    "projected": _projected,
    "scaleIO": _needs("gateway", "system", "volumeName"),
    "csi": _csi,
    "ephemeral": _ephemeral,
    "image": lambda source, path: [],
}
_ORDER = {key: position for position, key in enumerate(_RULES)}
