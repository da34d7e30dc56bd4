"""Services and EndpointSlices as the API server stores them, with what a test does not name filled in."""

from collections.abc import Sequence
from typing import Any

JSON = dict[str, Any]


def service(name: str = "web", ports: Sequence[JSON] = ({"port": 80},), *, ip: str = "127.96.7.7",
            labels: JSON | None = None, **spec: Any) -> JSON:
    return {"metadata": {"namespace": "default", "name": name, "labels": labels or {}},
            "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
                     "ports": [{"protocol": "TCP"} | port for port in ports]} | spec}


def endpoint(address: str, node: str = "node-1", hints: JSON | None = None, **conditions: bool | None) -> JSON:
    found: JSON = {"addresses": [address], "nodeName": node, "conditions": conditions}
    return found | ({"hints": hints} if hints else {})


def slice_of(service_name: str, endpoints: Sequence[JSON], port: int = 8080, *, port_name: str = "", name: str = "a",
             labels: JSON | None = None) -> JSON:
    return {"metadata": {"namespace": "default", "name": f"{service_name}-{name}",
                         "labels": {"kubernetes.io/service-name": service_name} | (labels or {})},
            "addressType": "IPv4", "endpoints": list(endpoints),
            "ports": [{"name": port_name, "port": port, "protocol": "TCP"}]}
