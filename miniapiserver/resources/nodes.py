"""Nodes."""

from ipaddress import ip_network
from typing import Any

from miniapiserver.errors import FieldError, duplicate, forbidden_field, invalid
from miniapiserver.resources.columns import AGE, NONE, UNKNOWN, age, column, table
from miniapiserver.resources.kinds import PROXY_VERBS, Group, select, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.names import label_key, label_value
from miniapiserver.resources.pods.scheduling import taint_effect_errors
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.quantity import canonicalize
from miniapiserver.resources.resource import Resource, Subresource, WriteContext
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

_INFO = ("architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "kubeletVersion",
         "machineID", "operatingSystem", "osImage", "systemUUID")
_ROLE_PREFIX, _ROLE = "node-role.kubernetes.io/", "kubernetes.io/role"


class NodeStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        if spec.get("podCIDR") and spec["podCIDR"] != (spec.get("podCIDRs") or [""])[0]:
            spec["podCIDRs"] = [spec["podCIDR"]]
        elif spec.get("podCIDRs") and not spec.get("podCIDR"):
            spec["podCIDR"] = spec["podCIDRs"][0] or ""
        status = obj["status"] = obj.get("status") or {}
        endpoints = status["daemonEndpoints"] = status.get("daemonEndpoints") or {}
        endpoint = endpoints["kubeletEndpoint"] = endpoints.get("kubeletEndpoint") or {}
        if endpoint.get("Port") is None:
            endpoint["Port"] = 0
        status["nodeInfo"] = dict.fromkeys(_INFO, "") | {
            key: value for key, value in (status.get("nodeInfo") or {}).items() if value is not None
        }
        canonicalize(status.get("capacity"))
        canonicalize(status.get("allocatable"))
        if status.get("capacity") and not status.get("allocatable"):
            status["allocatable"] = dict(status["capacity"])

    def prepare_for_create(self, obj: JSON, context: WriteContext) -> None:
        """A kubelet says its status when it registers: it is kept."""

    def prepare_for_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        super().prepare_for_update(obj, old, context)
        if "status" in old:
            obj["status"] = old["status"]

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = _taint_errors(spec.get("taints"), "metadata.taints")
        cidrs = spec.get("podCIDRs") or []
        for index, cidr in enumerate(cidrs):
            errors += _cidr_errors(cidr or "", f"spec.podCIDRs[{index}]")
        if len(cidrs) > 2:
            errors.append(invalid("spec.podCIDRs", cidrs, "may specify no more than one CIDR for each IP family"))
        return errors

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
        errors = self.check(obj)
        if old_spec.get("podCIDRs") and spec.get("podCIDRs") != old_spec["podCIDRs"]:
            errors.append(
                forbidden_field("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid')
            )
        if old_spec.get("providerID") and spec.get("providerID") != old_spec["providerID"]:
            errors.append(
                forbidden_field("spec.providerID", 'node updates may not change providerID except from "" to valid')
            )
        return errors

    def check_status(self, obj: JSON, old: JSON) -> list[FieldError]:
        errors: list[FieldError] = []
        seen: set[tuple[Any, Any]] = set()
        for index, address in enumerate(objects((obj.get("status") or {}).get("addresses"))):
            pair = (address.get("type"), address.get("address"))
            if pair in seen:
                errors.append(duplicate(f"status.addresses[{index}]", {"Type": pair[0], "Address": pair[1]}))
            seen.add(pair)
        return errors


def _cidr_errors(cidr: str, path: str) -> list[FieldError]:
    try:
        ip_network(cidr, strict=False)
        fine = "/" in cidr
    except ValueError:
        fine = False
    return [] if fine else [invalid(path, cidr, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]


def _taint_errors(taints: Any, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[Any, Any]] = set()
    for index, taint in enumerate(objects(taints)):
        where, key, value = f"{path}[{index}]", taint.get("key") or "", taint.get("value") or ""
        errors += [invalid(f"{where}.key", key, words) for words in label_key(key)]
        if wrong := label_value(value):
            errors.append(invalid(f"{where}.value", value, ";".join(wrong)))
        errors += taint_effect_errors(taint.get("effect"), f"{where}.effect")
        pair = (key, taint.get("effect"))
        if pair in seen:
            errors.append(FieldError(where, "FieldValueDuplicate", "Duplicate value: " + _taint_text(taint)
                                     + ": taints must be unique by key and effect pair"))
        seen.add(pair)
    return errors


def _taint_text(taint: JSON) -> str:
    words = [
        f'"{name}":"{taint.get(key) or ""}"' for name, key in (("Key", "key"), ("Value", "value"), ("Effect", "effect"))
    ]
    return "{" + ",".join([*words, '"TimeAdded":null']) + "}"


def node_status_word(node: JSON) -> str:
    """Ready, NotReady or Unknown, and whether it is cordoned."""
    ready = next(
        (item for item in objects((node.get("status") or {}).get("conditions")) if item.get("type") == "Ready"), None
    )
    word = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return f"{word},SchedulingDisabled" if (node.get("spec") or {}).get("unschedulable") else word


def node_roles(node: JSON) -> str:
    labels = metadata_of(node).get("labels") or {}
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    if labels.get(_ROLE):
        roles.add(labels[_ROLE])
    return ",".join(sorted(roles - {""})) or NONE


def _address(status: JSON, kind: str) -> str:
    return next(
        (item.get("address") or "" for item in objects(status.get("addresses")) if item.get("type") == kind), NONE
    )


def _cells(node: JSON, now: float) -> list[Any]:
    status = node.get("status") or {}
    info = status.get("nodeInfo") or {}
    return [node_status_word(node), node_roles(node), age(node, now), info.get("kubeletVersion") or "",
            _address(status, "InternalIP"), _address(status, "ExternalIP"), info.get("osImage") or UNKNOWN,
            info.get("kernelVersion") or UNKNOWN, info.get("containerRuntimeVersion") or UNKNOWN]


_TABLE = table(
    column("Status", "The status of the node"), column("Roles", "The roles of the node"), AGE,
    column("Version", "NodeSystemInfo.kubeletVersion"), column("Internal-IP", "NodeStatus.addresses", wide=True),
    column("External-IP", "NodeStatus.addresses", wide=True), column("OS-Image", "NodeSystemInfo.osImage", wide=True),
    column("Kernel-Version", "NodeSystemInfo.kernelVersion", wide=True),
    column("Container-Runtime", "NodeSystemInfo.containerRuntimeVersion", wide=True), cells=_cells)


def node_row(group: Group) -> Resource:
    fields: dict[str, tuple[str, ...]] = {"spec.unschedulable": ("spec", "unschedulable")}
    return group.row(
        "Node",
        "nodes",
        NodeStrategy(namespaced=False, status=True),
        namespaced=False,
        table=_TABLE,
        short=("no",),
        subresources=(Subresource("proxy", "NodeProxyOptions", PROXY_VERBS), status_of("Node")),
        selectable=select(fields, {"spec.unschedulable": "false"}),
        fields=tuple(fields),
    )
