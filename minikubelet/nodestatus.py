"""The node object and its status, as this kubelet reports them.

My job: configuration, machine and runtime in, JSON out (upstream kubelet_node_status.go, nodestatus/setters.go).
Pure. Neighbours: `node` sends what I make. Rule: a condition keeps its transition time while its status stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minikubelet import quantity
from minikubelet.config import Config
from minikubelet.machine import Machine, Pressure
from minikubelet.runtime.interface import Capabilities
from minikubelet.version import KUBELET_VERSION, RUNTIME_VERSION

JSON = dict[str, Any]

DECLARED_FEATURES = ["ExtendWebSocketsToKubelet"]
EVICTION_MEMORY = 100 * 2**20


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: bool
    reason: str
    message: str


def node_object(config: Config, machine: Machine, status: JSON) -> JSON:
    """The Node to register."""
    labels = {
        "kubernetes.io/hostname": config.node_name, "kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture, "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": machine.architecture,
    } | dict(config.node_labels)
    annotations = {"volumes.kubernetes.io/controller-managed-attach-detach": "true",
                   "alpha.kubernetes.io/provided-node-ip": config.node_ip}
    spec: JSON = {}
    if cidr := config.kubelet.pod_cidr:
        spec |= {"podCIDR": cidr, "podCIDRs": [cidr]}
    if config.kubelet.provider_id:
        spec["providerID"] = config.kubelet.provider_id
    if taints := config.kubelet.register_with_taints:
        spec["taints"] = [dict(taint) for taint in taints]
    return {"kind": "Node", "apiVersion": "v1",
            "metadata": {"name": config.node_name, "labels": labels, "annotations": annotations},
            "spec": spec, "status": status}


def node_status(config: Config, machine: Machine, conditions: list[JSON], images: Sequence[JSON], port: int) -> JSON:
    return {
        "addresses": [{"type": "InternalIP", "address": config.node_ip},
                      {"type": "Hostname", "address": config.node_name}],
        "capacity": capacity(config, machine),
        "allocatable": allocatable(config, machine),
        "conditions": conditions,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": _node_info(machine),
        "images": list(images),
        "declaredFeatures": DECLARED_FEATURES,
    }


def _node_info(machine: Machine) -> JSON:
    return {
        "machineID": machine.machine_id, "systemUUID": machine.machine_id, "bootID": machine.boot_id,
        "kernelVersion": machine.kernel_version, "osImage": machine.os_image,
        "containerRuntimeVersion": RUNTIME_VERSION, "kubeletVersion": KUBELET_VERSION, "kubeProxyVersion": "",
        "operatingSystem": "linux", "architecture": machine.architecture,
    }


def capacity(config: Config, machine: Machine) -> JSON:
    return {
        "cpu": quantity.format_cpu(machine.cpu_millis),
        "ephemeral-storage": quantity.format_kibibytes(machine.disk),
        "memory": quantity.format_kibibytes(machine.memory),
        "pods": str(config.kubelet.max_pods),
    }


def allocatable(config: Config, machine: Machine) -> JSON:
    """Capacity less what is reserved and what upstream keeps free before evicting."""
    reserved = (config.kubelet.system_reserved, config.kubelet.kube_reserved)
    cpu = machine.cpu_millis - sum(quantity.milli(part["cpu"]) for part in reserved if "cpu" in part)
    held = sum(quantity.whole(part["memory"]) for part in reserved if "memory" in part)
    memory = machine.memory - EVICTION_MEMORY - held
    return {
        "cpu": quantity.format_cpu(max(cpu, 0)),
        "ephemeral-storage": str(machine.disk * 9 // 10),
        "memory": quantity.format_kibibytes(max(memory, 0)),
        "pods": str(config.kubelet.max_pods),
    }


def conditions(pressure: Pressure, capabilities: Capabilities, not_ready: str, old: Sequence[JSON],
               now: str) -> list[JSON]:
    """`not_ready`: why the node cannot run pods, empty if it can. `old` is what was reported before."""
    isolated = capabilities.mounts and capabilities.pids
    found = [
        _pressure("MemoryPressure", pressure.memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory",
                  ("kubelet has insufficient memory available", "kubelet has sufficient memory available")),
        _pressure("DiskPressure", pressure.disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure",
                  ("kubelet has disk pressure", "kubelet has no disk pressure")),
        _pressure("PIDPressure", pressure.pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID",
                  ("kubelet has insufficient PID available", "kubelet has sufficient PID available")),
        # Ours: a reader of `kubectl describe node` learns what stands between pods and host.
        Condition("ContainerIsolation", isolated, "Namespaces" if isolated else "PlainProcesses", capabilities.words),
        Condition("Ready", not not_ready, "KubeletNotReady" if not_ready else "KubeletReady",
                  not_ready or "kubelet is posting ready status"),
    ]
    before = {item["type"]: item for item in old}
    return [_as_json(condition, before.get(condition.type), now) for condition in found]


def _pressure(kind: str, present: bool, yes: str, no: str, messages: tuple[str, str]) -> Condition:
    return Condition(kind, present, yes if present else no, messages[0] if present else messages[1])


def _as_json(condition: Condition, old: JSON | None, now: str) -> JSON:
    word = "True" if condition.status else "False"
    since = old["lastTransitionTime"] if old and old.get("status") == word else now
    return {"type": condition.type, "status": word, "lastHeartbeatTime": now, "lastTransitionTime": since,
            "reason": condition.reason, "message": condition.message}


def same_but_heartbeat(left: JSON, right: JSON) -> bool:
    return _without_heartbeat(left) == _without_heartbeat(right)


def _without_heartbeat(status: JSON) -> JSON:
    stripped = [{key: value for key, value in item.items() if key != "lastHeartbeatTime"}
                for item in status.get("conditions") or ()]
    return status | {"conditions": stripped}
