"""The `*_SERVICE_HOST` / `*_PORT` variables containers find services by.

My job: Services in, variables out (upstream `pkg/kubelet/envvars`). Pure. Neighbours: `environment` merges me under
the container's own variables. `default/kubernetes` is always there, a namespace's own services if the pod wants
links.
"""

from collections.abc import Iterable
from typing import Any

JSON = dict[str, Any]

KUBERNETES = ("default", "kubernetes")


def service_environment(services: Iterable[JSON], namespace: str, *, links: bool) -> dict[str, str]:
    chosen: dict[str, JSON] = {}
    for service in services:
        meta = service["metadata"]
        where, name = meta.get("namespace", ""), meta["name"]
        if (service.get("spec") or {}).get("clusterIP") in (None, "", "None"):
            continue
        # A service called `kubernetes` in the pod's own namespace wins over the master service, as upstream.
        if (links and where == namespace) or ((where, name) == KUBERNETES and name not in chosen):
            chosen[name] = service
    environment: dict[str, str] = {}
    for name in sorted(chosen):
        environment |= _variables(chosen[name])
    return environment


def _variables(service: JSON) -> dict[str, str]:
    prefix = _name(service["metadata"]["name"])
    address = str(service["spec"]["clusterIP"])
    ports = service["spec"].get("ports") or []
    if not ports:
        return {f"{prefix}_SERVICE_HOST": address}
    variables = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
    for port in ports:
        if port.get("name"):
            variables[f"{prefix}_SERVICE_PORT_{_name(port['name'])}"] = str(port["port"])
    for index, port in enumerate(ports):
        variables |= _port_variables(prefix, _bracketed(address), address, port, is_first=index == 0)
    return variables


def _port_variables(prefix: str, host: str, address: str, port: JSON, *, is_first: bool) -> dict[str, str]:
    protocol = str(port.get("protocol") or "TCP")
    number = str(port["port"])
    url = f"{protocol.lower()}://{host}:{number}"
    key = f"{prefix}_PORT_{number}_{protocol.upper()}"
    return ({f"{prefix}_PORT": url} if is_first else {}) | {
        key: url, f"{key}_PROTO": protocol.lower(), f"{key}_PORT": number, f"{key}_ADDR": address}


def _name(text: str) -> str:
    return text.upper().replace("-", "_")


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
