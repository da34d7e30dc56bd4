"""discovery.k8s.io/v1: EndpointSlices."""

from typing import Any

from miniapiserver.errors import FieldError, duplicate, forbidden_field, invalid, not_supported, required, too_many
from miniapiserver.resources.columns import AGE, age, column, table
from miniapiserver.resources.endpoints import PROTOCOLS, Networks, endpoint_ip_errors, more
from miniapiserver.resources.kinds import Group
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.names import dns_label, dns_subdomain, label_key, port_number
from miniapiserver.resources.pods.values import choice_errors, objects
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

DISCOVERY = Group("discovery.k8s.io", "v1", "io.k8s.api.discovery")
_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_UNSET = "<unset>"


class EndpointSliceStrategy(ObjectStrategy):
    def __init__(self, exempt: Networks = ()) -> None:
        super().__init__(generation=True)
        self.exempt = exempt

    def default(self, obj: JSON) -> None:
        obj["endpoints"] = obj.get("endpoints") or []
        for endpoint in obj["endpoints"]:
            if endpoint is not None:
                endpoint["conditions"] = endpoint.get("conditions") or {}
        for port in obj.get("ports") or ():
            if port is not None:
                port["name"] = port.get("name") or ""
                port["protocol"] = port.get("protocol") or "TCP"
        if "ports" not in obj:
            obj["ports"] = None

    def check(self, obj: JSON) -> list[FieldError]:
        kind = obj.get("addressType") or ""
        errors = choice_errors("addressType", kind, _ADDRESS_TYPES)
        endpoints, ports = objects(obj.get("endpoints")), objects(obj.get("ports"))
        if len(endpoints) > 1000:
            errors.append(too_many("endpoints", len(endpoints), 1000))
        for index, endpoint in enumerate(endpoints):
            errors += _endpoint_errors(endpoint, kind, f"endpoints[{index}]", self.exempt)
        return errors + _port_errors(ports)

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        errors = self.check(obj)
        if obj.get("addressType") != old.get("addressType"):
            errors.append(invalid("addressType", obj.get("addressType") or "", "field is immutable"))
        return errors

    def content_changed(self, obj: JSON, old: JSON) -> bool:
        keys = ("endpoints", "ports", "addressType")
        labels = (metadata_of(obj).get("labels") or {}) != (metadata_of(old).get("labels") or {})
        return labels or any((obj.get(key) or None) != (old.get(key) or None) for key in keys)


def _endpoint_errors(endpoint: JSON, kind: str, path: str, exempt: Networks) -> list[FieldError]:
    errors: list[FieldError] = []
    addresses = endpoint.get("addresses") or ()
    if not addresses:
        errors.append(required(f"{path}.addresses", "must contain at least 1 address"))
    elif len(addresses) > 100:
        errors.append(too_many(f"{path}.addresses", len(addresses), 100))
    for index, address in enumerate(addresses):
        where = f"{path}.addresses[{index}]"
        if kind == "FQDN":
            errors += [invalid(where, address or "", words) for words in dns_subdomain(address or "")]
        else:
            errors += endpoint_ip_errors(address or "", where, exempt)
            if kind in ("IPv4", "IPv6") and is_family_wrong(address or "", kind):
                errors.append(invalid(where, address, f"must be an {kind} address"))
    if (node := endpoint.get("nodeName")) is not None:
        errors += [invalid(f"{path}.nodeName", node, words) for words in dns_subdomain(node)]
    if (topology := endpoint.get("deprecatedTopology")) and "kubernetes.io/hostname" in topology:
        errors.append(forbidden_field(f"{path}.deprecatedTopology[kubernetes.io/hostname]", "may not be set"))
    if (host := endpoint.get("hostname")) is not None:
        errors += [invalid(f"{path}.hostname", host, words) for words in dns_label(host)]
    return errors


def is_family_wrong(address: str, kind: str) -> bool:
    return (":" in address) != (kind == "IPv6")


def _port_errors(ports: list[JSON]) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    if len(ports) > 20000:
        return [too_many("ports", len(ports), 20000)]
    for index, port in enumerate(ports):
        where, name = f"ports[{index}]", port.get("name") or ""
        if name:
            errors += [invalid(f"{where}.name", name, words) for words in dns_label(name)]
        if name in names:
            errors.append(duplicate(f"{where}.name", name))
        names.add(name)
        if not port.get("protocol"):
            errors.append(required(f"{where}.protocol"))
        elif port["protocol"] not in PROTOCOLS:
            errors.append(not_supported(f"{where}.protocol", port["protocol"], PROTOCOLS))
        if (number := port.get("port")) is not None:
            errors += [invalid(f"{where}.port", number, words) for words in port_number(number)]
        if (app := port.get("appProtocol")) is not None:
            errors += [invalid(f"{where}.appProtocol", app, words) for words in label_key(app)]
    return errors


def _ports_text(obj: JSON) -> str:
    ports = objects(obj.get("ports"))
    shown = [str(port["port"]) if port.get("port") is not None else (port.get("name") or "*") for port in ports]
    return more(shown, len(shown)) if shown else _UNSET


def _endpoints_text(obj: JSON) -> str:
    found = [address or "" for endpoint in objects(obj.get("endpoints")) for address in endpoint.get("addresses") or ()]
    return more(found, len(found)) if found else _UNSET


_TABLE = table(
    column("AddressType", "EndpointSlice.addressType"), column("Ports", "EndpointSlice.ports"),
    column("Endpoints", "EndpointSlice.endpoints"), AGE,
    cells=lambda obj, now: [obj.get("addressType") or "", _ports_text(obj), _endpoints_text(obj), age(obj, now)])


def rows(exempt: Networks = ()) -> tuple[Resource, ...]:
    return (DISCOVERY.row("EndpointSlice", "endpointslices", EndpointSliceStrategy(exempt), table=_TABLE),)
