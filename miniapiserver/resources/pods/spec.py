"""The pod spec as a whole.

My job: the rules of `ValidatePodSpec`, in upstream's order, for pods and pod templates alike. Parts live beside me:
`containers`, `volumes`, `scheduling`.
"""

from ipaddress import ip_address
from typing import Any

from miniapiserver.errors import FieldError, duplicate, forbidden_field, invalid, not_supported, required
from miniapiserver.resources.metadata import label_errors
from miniapiserver.resources.names import dns_label, dns_subdomain, label_key, range_words
from miniapiserver.resources.pods.containers import (
    PodFacts,
    container_list_errors,
    ephemeral_container_errors,
    id_errors,
    image_space_errors,
    init_container_errors,
    seccomp_errors,
)
from miniapiserver.resources.pods.scheduling import affinity_errors, spread_errors, toleration_errors
from miniapiserver.resources.pods.values import choice_errors, objects
from miniapiserver.resources.pods.volumes import volume_errors

JSON = dict[str, Any]

RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MAX_INT32 = 2**31 - 1


def pod_spec_errors(spec: JSON, path: str = "spec") -> list[FieldError]:
    errors, volumes = volume_errors(spec.get("volumes"), f"{path}.volumes")
    grace = spec.get("terminationGracePeriodSeconds")
    pod = PodFacts(volumes, spec.get("restartPolicy") or "", 0 if grace is None else grace)
    errors += container_list_errors(spec.get("containers"), pod, f"{path}.containers")
    if init := spec.get("initContainers"):
        errors += init_container_errors(init, spec.get("containers"), pod, f"{path}.initContainers")
    if ephemeral := spec.get("ephemeralContainers"):
        errors += ephemeral_container_errors(ephemeral, spec, pod, f"{path}.ephemeralContainers")
    errors += choice_errors(f"{path}.restartPolicy", spec.get("restartPolicy"), RESTART_POLICIES)
    errors += choice_errors(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES)
    if selector := spec.get("nodeSelector"):
        errors += label_errors(selector, f"{path}.nodeSelector")
    errors += _security_errors(spec, path)
    errors += [required(f"{path}.imagePullSecrets[{index}].name") for index, secret
               in enumerate(objects(spec.get("imagePullSecrets"))) if secret.get("name", "") is None]
    if affinity := spec.get("affinity"):
        errors += affinity_errors(affinity, f"{path}.affinity")
    errors += _dns_config_errors(spec, path)
    if gates := spec.get("schedulingGates"):
        errors += _gate_errors(gates, f"{path}.schedulingGates")
    if constraints := spec.get("topologySpreadConstraints"):
        errors += spread_errors(constraints, f"{path}.topologySpreadConstraints")
    errors += _name_errors(spec, path)
    if tolerations := spec.get("tolerations"):
        errors += toleration_errors(tolerations, f"{path}.tolerations")
    errors += _late_errors(spec, path)
    return errors


def _name_errors(spec: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("serviceAccountName", "nodeName"):
        if name := spec.get(key):
            errors += [invalid(f"{path}.{key}", name, words) for words in dns_subdomain(name)]
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MAX_INT32:
        errors.append(invalid(f"{path}.activeDeadlineSeconds", deadline, range_words(1, _MAX_INT32)))
    for key in ("hostname", "subdomain"):
        if name := spec.get(key):
            errors += [invalid(f"{path}.{key}", name, words) for words in dns_label(name)]
    return errors


def _late_errors(spec: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, alias in enumerate(objects(spec.get("hostAliases"))):
        where = f"{path}.hostAliases[{index}]"
        if not is_ip(alias.get("ip")):
            errors.append(invalid(f"{where}.ip", alias.get("ip") or "", IP_WORDS))
        for name in alias.get("hostnames") or ():
            errors += [invalid(f"{where}.hostnames", name or "", words) for words in dns_subdomain(name or "")]
    for key in ("priorityClassName", "runtimeClassName"):
        if name := spec.get(key):
            errors += [invalid(f"{path}.{key}", name, words) for words in dns_subdomain(name)]
    if (preemption := spec.get("preemptionPolicy")) is not None:
        errors += choice_errors(f"{path}.preemptionPolicy", preemption, ("PreemptLowerPriority", "Never"))
    if (system := spec.get("os")) is not None:
        errors += choice_errors(f"{path}.os", system.get("name"), ("linux", "windows"))
    return errors


IP_WORDS = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def is_ip(value: Any) -> bool:
    try:
        ip_address(value or "")
    except ValueError:
        return False
    return "%" not in value


def _security_errors(spec: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    context, where = spec.get("securityContext") or {}, f"{path}.securityContext"
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        errors.append(
            invalid(f"{where}.shareProcessNamespace", True, "ShareProcessNamespace and HostPID cannot both be enabled")
        )
    if spec.get("hostNetwork"):
        errors += _host_network_errors(spec, path)
    if not context:
        return errors
    errors += id_errors(context, ("fsGroup", "runAsUser", "runAsGroup"), where)
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        if not 0 <= (group or 0) <= _MAX_INT32:
            errors.append(invalid(f"{where}.supplementalGroups[{index}]", group, range_words(0, _MAX_INT32)))
    if (policy := context.get("fsGroupChangePolicy")) is not None and policy not in ("Always", "OnRootMismatch"):
        errors.append(not_supported(f"{where}.fsGroupChangePolicy", policy, ("Always", "OnRootMismatch")))
    if (policy := context.get("supplementalGroupsPolicy")) is not None and policy not in ("Merge", "Strict"):
        errors.append(not_supported(f"{where}.supplementalGroupsPolicy", policy, ("Merge", "Strict")))
    return errors + seccomp_errors(context.get("seccompProfile"), f"{where}.seccompProfile")


def _host_network_errors(spec: JSON, path: str) -> list[FieldError]:
    """On the host's network a container's port is the host's port."""
    errors: list[FieldError] = []
    for index, container in enumerate(objects(spec.get("containers"))):
        for position, port in enumerate(objects(container.get("ports"))):
            if (port.get("hostPort") or 0) != (port.get("containerPort") or 0):
                errors.append(
                    invalid(
                        f"{path}.containers[{index}].ports[{position}].containerPort",
                        port.get("containerPort") or 0,
                        "must match `hostPort` when `hostNetwork` is true",
                    )
                )
    return errors


def _dns_config_errors(spec: JSON, path: str) -> list[FieldError]:
    config = spec.get("dnsConfig")
    if spec.get("dnsPolicy") == "None":
        if config is None:
            return [required(f"{path}.dnsConfig", 'must provide `dnsConfig` when `dnsPolicy` is None')]
        if not config.get("nameservers"):
            return [
                required(
                    f"{path}.dnsConfig.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
                )
            ]
    if not config:
        return []
    where, errors = f"{path}.dnsConfig", []
    servers = config.get("nameservers") or ()
    if len(servers) > 3:
        errors.append(invalid(f"{where}.nameservers", servers, "must not have more than 3 nameservers"))
    errors += [invalid(f"{where}.nameservers[{index}]", server or "", IP_WORDS)
               for index, server in enumerate(servers) if not is_ip(server)]
    for index, option in enumerate(objects(config.get("options"))):
        if not option.get("name"):
            errors.append(required(f"{where}.options[{index}]", "must not be empty"))
    return errors


def _gate_errors(gates: Any, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, gate in enumerate(objects(gates)):
        name = gate.get("name") or ""
        errors += [invalid(f"{path}[{index}]", name, words) for words in label_key(name)]
        if name in seen:
            errors.append(duplicate(f"{path}[{index}]", name))
        seen.add(name)
    return errors


def pod_errors(spec: JSON) -> list[FieldError]:
    """A pod's spec: what a template is asked, and what only pods are asked."""
    errors = pod_spec_errors(spec)
    if not spec.get("serviceAccountName"):
        errors += _token_errors(spec)
    for key in ("containers", "initContainers"):
        for index, container in enumerate(objects(spec.get(key))):
            errors += image_space_errors(container, f"spec.{key}[{index}]")
    return errors


def _token_errors(spec: JSON) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, volume in enumerate(objects(spec.get("volumes"))):
        for position, source in enumerate(objects((volume.get("projected") or {}).get("sources"))):
            if source.get("serviceAccountToken") is not None:
                errors.append(forbidden_field(f"spec.volumes[{index}].projected.sources[{position}].serviceAccountToken",
                                              "must not be specified when serviceAccountName is not set"))
    return errors
