"""Containers of every sort.

My job: what one container may say, and how names and host ports of many must differ. Words and order as upstream's
`validateContainers`, `validateInitContainers` and `validateEphemeralContainers`.
"""

from dataclasses import dataclass
from typing import Any

from miniapiserver.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid,
    not_found_field,
    not_supported,
    required,
)
from miniapiserver.resources.names import dns_label, port_name, port_number, range_words
from miniapiserver.resources.pods.env import env_errors, env_from_errors
from miniapiserver.resources.pods.probes import lifecycle_errors, liveness_errors, readiness_errors, startup_errors
from miniapiserver.resources.pods.resources import requirement_errors
from miniapiserver.resources.pods.values import choice_errors, descending_path_errors, objects

JSON = dict[str, Any]

PROTOCOLS = ("SCTP", "TCP", "UDP")
_MESSAGE_POLICIES = ("FallbackToLogsOnError", "File")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_RESTART_POLICIES = ("Always", "Never", "OnFailure")
_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_MAX_ID = 2**31 - 1
_PROBES = (("livenessProbe", liveness_errors), ("readinessProbe", readiness_errors), ("startupProbe", startup_errors))
_ONLY_SIDECARS = "may not be set for init containers without restartPolicy=Always"
_NOT_EPHEMERAL = ("ports", "resources", "resizePolicy", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle",
                  "restartPolicy", "restartPolicyRules")


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What containers need to know about the pod around them."""

    volumes: frozenset[str]
    restart_policy: str
    grace: int


def container_list_errors(containers: Any, pod: PodFacts, path: str) -> list[FieldError]:
    listed = objects(containers)
    if not listed:
        return [required(path)]
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, container in enumerate(listed):
        where = f"{path}[{index}]"
        errors += container_errors(container, pod, where)
        errors += _duplicate_name(container, names, where)
        errors += _lifecycle_and_probes(container, pod, where)
        if policy := container.get("restartPolicy"):
            errors += choice_errors(f"{where}.restartPolicy", policy, _RESTART_POLICIES)
    return errors + host_port_conflicts(listed, path)


def init_container_errors(containers: Any, others: Any, pod: PodFacts, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    names = {container.get("name") or "" for container in objects(others)}
    for index, container in enumerate(objects(containers)):
        where = f"{path}[{index}]"
        errors += container_errors(container, pod, where)
        if policy := container.get("restartPolicy"):
            errors += choice_errors(f"{where}.restartPolicy", policy, _RESTART_POLICIES)
        errors += _duplicate_name(container, names, where)
        errors += host_port_conflicts([container], path)
        if container.get("restartPolicy") == "Always":
            errors += _lifecycle_and_probes(container, pod, where)
        else:
            errors += [
                forbidden_field(f"{where}.{key}", _ONLY_SIDECARS)
                for key in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
                if container.get(key) is not None
            ]
    return errors


def ephemeral_container_errors(containers: Any, spec: JSON, pod: PodFacts, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    others = {
        container.get("name") or "" for key in ("containers", "initContainers") for container in objects(spec.get(key))
    }
    names = set(others)
    for index, container in enumerate(objects(containers)):
        where = f"{path}[{index}]"
        errors += container_errors(container, pod, where)
        errors += image_space_errors(container, where)
        errors += _duplicate_name(container, names, where)
        if (target := container.get("targetContainerName")) and target not in others:
            errors.append(not_found_field(f"{where}.targetContainerName", target))
        errors += [forbidden_field(f"{where}.{key}", "cannot be set for an Ephemeral Container")
                   for key in _NOT_EPHEMERAL if container.get(key)]
        for position, mount in enumerate(objects(container.get("volumeMounts"))):
            errors += [
                forbidden_field(f"{where}.volumeMounts[{position}].{key}", "cannot be set for an Ephemeral Container")
                for key in ("subPath", "subPathExpr")
                if mount.get(key)
            ]
    return errors


def _duplicate_name(container: JSON, names: set[str], path: str) -> list[FieldError]:
    name = container.get("name") or ""
    if name in names:
        return [duplicate(f"{path}.name", name)]
    if name:
        names.add(name)
    return []


def _lifecycle_and_probes(container: JSON, pod: PodFacts, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if (lifecycle := container.get("lifecycle")) is not None:
        errors += lifecycle_errors(lifecycle, pod.grace, f"{path}.lifecycle")
    for key, rule in _PROBES:
        if (probe := container.get(key)) is not None:
            errors += rule(probe, f"{path}.{key}")
    return errors


def image_space_errors(container: JSON, path: str) -> list[FieldError]:
    image = container.get("image") or ""
    return (
        [invalid(f"{path}.image", image, "must not have leading or trailing whitespace")]
        if image != image.strip()
        else []
    )


def container_errors(container: JSON, pod: PodFacts, path: str) -> list[FieldError]:
    """What holds for containers of every sort."""
    errors: list[FieldError] = []
    if not (name := container.get("name")):
        errors.append(required(f"{path}.name"))
    else:
        errors += [invalid(f"{path}.name", name, words) for words in dns_label(name)]
    if not container.get("image"):
        errors.append(required(f"{path}.image"))
    errors += choice_errors(
        f"{path}.terminationMessagePolicy", container.get("terminationMessagePolicy"), _MESSAGE_POLICIES
    )
    if ports := container.get("ports"):
        errors += _port_errors(ports, f"{path}.ports")
    if env := container.get("env"):
        errors += env_errors(env, f"{path}.env")
    if sources := container.get("envFrom"):
        errors += env_from_errors(sources, f"{path}.envFrom")
    if mounts := container.get("volumeMounts"):
        errors += _mount_errors(mounts, container, pod, f"{path}.volumeMounts")
    if devices := container.get("volumeDevices"):
        errors += _device_errors(devices, container, pod, f"{path}.volumeDevices")
    errors += choice_errors(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULL_POLICIES)
    if resources := container.get("resources"):
        errors += requirement_errors(resources, f"{path}.resources")
    if policies := container.get("resizePolicy"):
        errors += _resize_policy_errors(policies, f"{path}.resizePolicy", pod)
    if context := container.get("securityContext"):
        errors += _security_errors(context, f"{path}.securityContext")
    return errors


def _port_errors(ports: Any, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(objects(ports)):
        where = f"{path}[{index}]"
        if name := port.get("name"):
            if wrong := port_name(name):
                errors += [invalid(f"{where}.name", name, words) for words in wrong]
            elif name in names:
                errors.append(duplicate(f"{where}.name", name))
            names.add(name)
        if not (number := port.get("containerPort")):
            errors.append(required(f"{where}.containerPort"))
        else:
            errors += [invalid(f"{where}.containerPort", number, words) for words in port_number(number)]
        if host := port.get("hostPort"):
            errors += [invalid(f"{where}.hostPort", host, words) for words in port_number(host)]
        errors += choice_errors(f"{where}.protocol", port.get("protocol"), PROTOCOLS)
    return errors


def host_port_conflicts(containers: list[JSON], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    taken: set[str] = set()
    for index, container in enumerate(containers):
        for position, port in enumerate(objects(container.get("ports"))):
            if not (host := port.get("hostPort")):
                continue
            key = f"{port.get('protocol') or ''}/{port.get('hostIP') or ''}/{host}"
            if key in taken:
                errors.append(duplicate(f"{path}[{index}].ports[{position}].hostPort", key))
            taken.add(key)
    return errors


def _mount_errors(mounts: Any, container: JSON, pod: PodFacts, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    devices = objects(container.get("volumeDevices"))
    device_names, device_paths = {item.get("name") for item in devices}, {item.get("devicePath") for item in devices}
    for index, mount in enumerate(objects(mounts)):
        where, name, target = f"{path}[{index}]", mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errors.append(required(f"{where}.name"))
        if name not in pod.volumes:
            errors.append(not_found_field(f"{where}.name", name))
        if not target:
            errors.append(required(f"{where}.mountPath"))
        if target in seen:
            errors.append(invalid(f"{where}.mountPath", target, "must be unique"))
        seen.add(target)
        if name in device_names:
            errors.append(invalid(f"{where}.name", name, "must not already exist in volumeDevices"))
        if target in device_paths:
            errors.append(invalid(f"{where}.mountPath", target, "must not already exist as a path in volumeDevices"))
        errors += _sub_path_errors(mount, where, path)
        errors += _propagation_errors(mount, container, path, where)
    return errors


def _sub_path_errors(mount: JSON, where: str, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if sub_path := mount.get("subPath"):
        errors += descending_path_errors(f"{path}.subPath", sub_path)  # upstream leaves the index out here
    if expression := mount.get("subPathExpr"):
        if mount.get("subPath"):
            errors.append(invalid(f"{where}.subPathExpr", expression, "subPathExpr and subPath are mutually exclusive"))
        errors += descending_path_errors(f"{path}.subPathExpr", expression)
    return errors


def _propagation_errors(mount: JSON, container: JSON, path: str, where: str) -> list[FieldError]:
    errors: list[FieldError] = []
    propagation = mount.get("mountPropagation")
    if propagation is not None and propagation not in _PROPAGATIONS:
        errors.append(not_supported(f"{path}.mountPropagation", propagation, _PROPAGATIONS))
    if propagation == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        errors.append(forbidden_field(f"{path}.mountPropagation",
                                      "Bidirectional mount propagation is available only to privileged containers"))
    if (recursive := mount.get("recursiveReadOnly")) not in (None, "Disabled"):
        if recursive not in ("Enabled", "IfPossible"):
            errors.append(not_supported(f"{where}.recursiveReadOnly", recursive, ("Disabled", "Enabled", "IfPossible")))
        elif not mount.get("readOnly"):
            errors.append(forbidden_field(f"{where}.recursiveReadOnly", "may only be specified when readOnly is true"))
    return errors


def _device_errors(devices: Any, container: JSON, pod: PodFacts, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    paths: set[str] = set()
    names: set[str] = set()
    for index, device in enumerate(objects(devices)):
        where, name, target = f"{path}[{index}]", device.get("name") or "", device.get("devicePath") or ""
        if not name:
            errors.append(required(f"{where}.name"))
        if name in names:
            errors.append(invalid(f"{where}.name", name, "must be unique"))
        if name not in pod.volumes:
            errors.append(not_found_field(f"{where}.name", name))
        if not target:
            errors.append(required(f"{where}.devicePath"))
        if target in paths:
            errors.append(invalid(f"{where}.devicePath", target, "must be unique"))
        errors += descending_path_errors(f"{where}.devicePath", target.lstrip("/"))
        names.add(name)
        paths.add(target)
    return errors


def _resize_policy_errors(policies: Any, path: str, pod: PodFacts) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for policy in objects(policies):
        name, restart = policy.get("resourceName") or "", policy.get("restartPolicy")
        if name in seen:
            errors.append(duplicate(path, name))
        seen.add(name)
        errors += choice_errors(path, name, ("cpu", "memory"))
        errors += choice_errors(path, restart, ("NotRequired", "RestartContainer"))
        if pod.restart_policy == "Never" and restart not in ("NotRequired", None):
            errors.append(invalid(path, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
    return errors


def id_errors(context: JSON, keys: tuple[str, ...], path: str) -> list[FieldError]:
    """User and group ids."""
    return [invalid(f"{path}.{key}", context[key], range_words(0, _MAX_ID))
            for key in keys if context.get(key) is not None and not 0 <= context[key] <= _MAX_ID]


def seccomp_errors(profile: Any, path: str) -> list[FieldError]:
    if profile is None:
        return []
    kind, local = profile.get("type"), profile.get("localhostProfile")
    if kind == "Localhost":
        if local is None:
            return [required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost")]
        return descending_path_errors(f"{path}.localhostProfile", local)
    errors = (
        [invalid(f"{path}.localhostProfile", profile, "can only be set when seccomp type is Localhost")]
        if local
        else []
    )
    return errors + choice_errors(f"{path}.type", kind, ("Localhost", "RuntimeDefault", "Unconfined"))


def _security_errors(context: JSON, path: str) -> list[FieldError]:
    errors = id_errors(context, ("runAsUser", "runAsGroup"), path)
    if (mount := context.get("procMount")) is not None and mount not in ("Default", "Unmasked"):
        errors.append(not_supported(f"{path}.procMount", mount, ("Default", "Unmasked")))
    errors += seccomp_errors(context.get("seccompProfile"), f"{path}.seccompProfile")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            errors.append(
                invalid(path, context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
            )
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            errors.append(
                invalid(
                    path, context, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
                )
            )
    return errors
