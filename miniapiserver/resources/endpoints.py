"""Endpoints, the old form of EndpointSlices."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from miniapiserver.errors import FieldError, invalid, required
from miniapiserver.resources.columns import AGE, NONE, age, column, table
from miniapiserver.resources.kinds import Group
from miniapiserver.resources.names import dns_label, label_key, port_number
from miniapiserver.resources.pods.spec import IP_WORDS, is_ip
from miniapiserver.resources.pods.values import choice_errors, objects
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

PROTOCOLS = ("SCTP", "TCP", "UDP")
_SHOWN = 3
Networks = Sequence[IPv4Network | IPv6Network]
_DEPRECATED = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"


def endpoint_ip_errors(address: str, path: str, exempt: Networks = ()) -> list[FieldError]:
    if not is_ip(address):
        return [invalid(path, address, IP_WORDS)]
    found = ip_address(address)
    if any(found in network for network in exempt):
        return []
    for wrong, words in ((found.is_unspecified, f"may not be unspecified ({address})"),
                         (found.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
                         (found.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
                         (found.is_multicast and str(found).startswith(("224.0.0.", "ff02:")),
                          "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")):
        if wrong:
            return [invalid(path, address, words)]
    return []


class EndpointsStrategy(ObjectStrategy):
    """`exempt` are networks whose addresses are fine even on loopback: pods of the local profile live there."""

    def __init__(self, exempt: Networks = ()) -> None:
        super().__init__(create_on_update=True)
        self.exempt = exempt


    def default(self, obj: JSON) -> None:
        for subset in obj.get("subsets") or ():
            for port in (subset or {}).get("ports") or ():
                if port is not None:
                    port["protocol"] = port.get("protocol") or "TCP"

    def check(self, obj: JSON) -> list[FieldError]:
        errors: list[FieldError] = []
        for index, subset in enumerate(objects(obj.get("subsets"))):
            errors += self._subset_errors(subset, f"subsets[{index}]")
        return errors

    def _subset_errors(self, subset: JSON, path: str) -> list[FieldError]:
        errors: list[FieldError] = []
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for index, address in enumerate(objects(subset.get(key))):
                where = f"{path}.{key}[{index}]"
                errors += endpoint_ip_errors(address.get("ip") or "", f"{where}.ip", self.exempt)
                if host := address.get("hostname"):
                    errors += [invalid(f"{where}.hostname", host, words) for words in dns_label(host)]
        ports = objects(subset.get("ports"))
        for index, port in enumerate(ports):
            errors += _port_errors(port, len(ports) > 1, f"{path}.ports[{index}]")
        return errors

    def warnings(self, obj: JSON) -> list[str]:
        return [_DEPRECATED]


def _port_errors(port: JSON, needs_name: bool, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if name := port.get("name"):
        errors += [invalid(f"{path}.name", name, words) for words in dns_label(name)]
    elif needs_name:
        errors.append(required(f"{path}.name"))
    errors += [invalid(f"{path}.port", port.get("port") or 0, words) for words in port_number(port.get("port") or 0)]
    errors += choice_errors(f"{path}.protocol", port.get("protocol"), PROTOCOLS)
    if (app := port.get("appProtocol")) is not None:
        errors += [invalid(f"{path}.appProtocol", app, words) for words in label_key(app)]
    return errors


def host_port(address: str, port: Any) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def more(shown: list[str], total: int) -> str:
    """The first three, and how many there are beyond."""
    text = ",".join(shown[:_SHOWN])
    return f"{text} + {total - _SHOWN} more..." if total > _SHOWN else text


def _endpoints_text(obj: JSON) -> str:
    subsets = objects(obj.get("subsets"))
    if not subsets:
        return NONE
    found: list[str] = []
    for subset in subsets:
        addresses = [address.get("ip") or "" for address in objects(subset.get("addresses"))]
        if not subset.get("ports"):  # headless Services without ports
            found += addresses
        found += [
            host_port(address, port.get("port") or 0) for port in objects(subset.get("ports")) for address in addresses
        ]
    return more(found, len(found))


_TABLE = table(column("Endpoints", "Endpoints.subsets"), AGE,
               cells=lambda obj, now: [_endpoints_text(obj), age(obj, now)])


def endpoints_row(group: Group, exempt: Networks = ()) -> Resource:
    return group.row("Endpoints", "endpoints", EndpointsStrategy(exempt), table=_TABLE, short=("ep",))
