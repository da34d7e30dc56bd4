"""networking.k8s.io/v1: IngressClasses, Ingresses, IPAddresses, NetworkPolicies, ServiceCIDRs."""

from ipaddress import ip_network
from typing import Any

from miniapiserver.errors import FieldError, invalid, not_supported, required
from miniapiserver.resources.columns import AGE, NONE, age, column, joined, selector_text, table
from miniapiserver.resources.kinds import Group, select, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.names import (
    dns1035_label,
    dns_subdomain,
    domain_path,
    port_name,
    port_number,
    wildcard_dns_subdomain,
)
from miniapiserver.resources.pods.spec import is_ip
from miniapiserver.resources.pods.values import objects, port_or_name_errors
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.selectors import label_selector_errors
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

NETWORKING = Group("networking.k8s.io", "v1", "io.k8s.api.networking")
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_CIDR_WORDS = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_HOSTS_SHOWN = 3


def cidr_errors(cidr: str, path: str) -> list[FieldError]:
    try:
        ip_network(cidr, strict=False)
        fine = "/" in cidr
    except ValueError:
        fine = False
    return [] if fine else [invalid(path, cidr, _CIDR_WORDS)]


class IngressStrategy(ObjectStrategy):
    status_shape = (("loadBalancer", {}),)

    def default(self, obj: JSON) -> None:
        super().default(obj)
        obj["spec"] = obj.get("spec") or {}

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        rules, backend = objects(spec.get("rules")), spec.get("defaultBackend")
        errors: list[FieldError] = []
        if not rules and backend is None:
            errors.append(invalid("spec", rules or None, "either `defaultBackend` or `rules` must be specified"))
        if backend is not None:
            errors += _backend_errors(backend, "spec.defaultBackend")
        for index, rule in enumerate(rules):
            errors += _rule_errors(rule, f"spec.rules[{index}]")
        for index, tls in enumerate(objects(spec.get("tls"))):
            for position, host in enumerate(tls.get("hosts") or ()):
                check = wildcard_dns_subdomain if "*" in (host or "") else dns_subdomain
                path = f"spec.tls[{index}].hosts[{position}]"
                errors += [invalid(path, host or "", words) for words in check(host or "")]
        if (name := spec.get("ingressClassName")) is not None:
            errors += [invalid("spec.ingressClassName", name, words) for words in dns_subdomain(name)]
        return errors


def _rule_errors(rule: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if host := rule.get("host"):
        if is_ip(host):
            errors.append(invalid(f"{path}.host", host, "must be a DNS name, not an IP address"))
        check = wildcard_dns_subdomain if "*" in host else dns_subdomain
        errors += [invalid(f"{path}.host", host, words) for words in check(host)]
    if (http := rule.get("http")) is None:
        return errors
    paths = objects(http.get("paths"))
    if not paths:
        errors.append(required(f"{path}.http.paths"))
    for index, item in enumerate(paths):
        errors += _path_errors(item, f"{path}.http.paths[{index}]")
    return errors


def _path_errors(item: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    kind, text = item.get("pathType"), item.get("path") or ""
    if kind is None:
        errors.append(required(f"{path}.pathType", "pathType must be specified"))
    elif kind not in _PATH_TYPES:
        errors.append(not_supported(f"{path}.pathType", kind, _PATH_TYPES))
    elif kind != "ImplementationSpecific":
        if not text.startswith("/"):
            errors.append(invalid(f"{path}.path", text, "must be an absolute path"))
        elif "//" in text:
            errors.append(invalid(f"{path}.path", text, "must not contain '//'"))
    elif text and not text.startswith("/"):
        errors.append(invalid(f"{path}.path", text, "must be an absolute path"))
    return errors + _backend_errors(item.get("backend") or {}, f"{path}.backend")


def _backend_errors(backend: JSON, path: str) -> list[FieldError]:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        return [invalid(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return [required(f"{path}.resource.{key}") for key in ("kind", "name") if not resource.get(key)]
    if service is None:
        return [invalid(path, "", "resource or service backend is required")]
    return _service_backend_errors(service, path)


def _service_backend_errors(service: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if not (name := service.get("name")):
        errors.append(required(f"{path}.service.name"))
    else:
        errors += [invalid(f"{path}.service.name", name, words) for words in dns1035_label(name)]
    port = service.get("port") or {}
    text, number = port.get("name") or "", port.get("number") or 0
    if text and number:
        errors.append(invalid(path, "", "cannot set both port name & port number"))
    elif text:
        errors += [invalid(f"{path}.service.port.name", text, words) for words in port_name(text)]
    elif number:
        errors += [invalid(f"{path}.service.port.number", number, words) for words in port_number(number)]
    else:
        errors.append(required(path, "port name or number is required"))
    return errors


class IngressClassStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        parameters = (obj.get("spec") or {}).get("parameters")
        if parameters is not None and parameters.get("scope") is None:
            parameters["scope"] = "Cluster"

    def check(self, obj: JSON) -> list[FieldError]:
        controller = (obj.get("spec") or {}).get("controller") or ""
        if not controller:
            return [required("spec.controller")]
        errors = [invalid("spec.controller", part, words) for part, words in domain_path(controller)]
        return [FieldError("spec.controller", "FieldValueTooLong", "Too long: may not be more than 250 bytes"),
                *errors] if len(controller) > 250 else errors

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        new, before = ((item.get("spec") or {}).get("controller") for item in (obj, old))
        return self.check(obj) + ([] if new == before else [invalid("spec.controller", new, "field is immutable")])


class NetworkPolicyStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        spec["podSelector"] = spec.get("podSelector") or {}
        for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
            for port in (rule or {}).get("ports") or ():
                if port is not None and port.get("protocol") is None:
                    port["protocol"] = "TCP"
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        errors = label_selector_errors(spec.get("podSelector"), "spec.podSelector")
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for index, rule in enumerate(objects(spec.get(direction))):
                path = f"spec.{direction}[{index}]"
                for position, port in enumerate(objects(rule.get("ports"))):
                    errors += _policy_port_errors(port, f"{path}.ports[{position}]")
                for position, peer in enumerate(objects(rule.get(peers))):
                    errors += _peer_errors(peer, f"{path}.{peers}[{position}]")
        kinds = spec.get("policyTypes") or ()
        if len(kinds) > 2:
            return [*errors, invalid("spec.policyTypes", kinds, "may not specify more than two policyTypes")]
        return errors + [not_supported(f"spec.policyTypes[{index}]", kind or "", ("Ingress", "Egress"))
                         for index, kind in enumerate(kinds) if kind not in ("Ingress", "Egress")]


def _policy_port_errors(port: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if (protocol := port.get("protocol")) is not None and protocol not in _PROTOCOLS:
        errors.append(not_supported(f"{path}.protocol", protocol, _PROTOCOLS))
    number, end = port.get("port"), port.get("endPort")
    if number is not None:
        errors += port_or_name_errors(f"{path}.port", number)
        if end is not None:
            if isinstance(number, str):
                errors.append(invalid(f"{path}.endPort", end, "may not be specified when `port` is non-numeric"))
            elif end < number:
                errors.append(invalid(f"{path}.endPort", end, "must be greater than or equal to `port`"))
            errors += [invalid(f"{path}.endPort", end, words) for words in port_number(end)]
    elif end is not None:
        errors.append(invalid(f"{path}.endPort", end, "may not be specified when `port` is not specified"))
    return errors


def _peer_errors(peer: JSON, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    block, selectors = (
        peer.get("ipBlock"),
        [key for key in ("podSelector", "namespaceSelector") if peer.get(key) is not None],
    )
    for key in selectors:
        errors += label_selector_errors(peer[key], f"{path}.{key}")
    if block is not None:
        errors += (
            [required(f"{path}.ipBlock.cidr")]
            if not block.get("cidr")
            else cidr_errors(block["cidr"], f"{path}.ipBlock.cidr")
        )
        for index, other in enumerate(block.get("except") or ()):
            errors += cidr_errors(other or "", f"{path}.ipBlock.except[{index}]")
    if not selectors and block is None:
        errors.append(required(path, "must specify a peer"))
    elif selectors and block is not None:
        errors.append(
            FieldError(path, "FieldValueForbidden", "Forbidden: may not specify both ipBlock and another peer")
        )
    return errors


class IPAddressStrategy(ObjectStrategy):
    def check(self, obj: JSON) -> list[FieldError]:
        name, parent = metadata_of(obj).get("name") or "", (obj.get("spec") or {}).get("parentRef")
        errors = (
            []
            if is_ip(name)
            else [invalid("metadata.name", name, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
        )
        if parent is None:
            return [*errors, required("spec.parentRef")]
        return errors + [required(f"spec.parentRef.{key}") for key in ("resource", "name") if not parent.get(key)]

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        new, before = ((item.get("spec") or {}).get("parentRef") for item in (obj, old))
        if new == before:
            return self.check(obj)
        return [*self.check(obj), invalid("spec.parentRef", _internal_parent(new), "field is immutable")]


def _internal_parent(parent: JSON | None) -> JSON | None:
    if parent is None:
        return None
    return {key.capitalize(): parent.get(key) or "" for key in ("group", "resource", "namespace", "name")}


class ServiceCIDRStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        obj["spec"] = obj.get("spec") or {}

    def check(self, obj: JSON) -> list[FieldError]:
        cidrs = (obj.get("spec") or {}).get("cidrs") or []
        if not cidrs:
            return [required("spec.cidrs", "at least one CIDR required")]
        if len(cidrs) > 2:
            return [invalid("spec.cidrs", cidrs, "may only hold up to 2 values")]
        return [error for index, cidr in enumerate(cidrs) for error in cidr_errors(cidr or "", f"spec.cidrs[{index}]")]

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        """A second family may be added, nothing else changes."""
        new, before = ((item.get("spec") or {}).get("cidrs") or [] for item in (obj, old))
        if len(new) != len(before) and (len(before), len(new)) != (1, 2):
            return [*self.check(obj), invalid("spec.cidrs", new or None, "field is immutable")]
        changed = [invalid(f"spec.cidrs[{index}]", new[index], "field is immutable")
                   for index, cidr in enumerate(before) if new[index] != cidr]
        return self.check(obj) + changed


def _hosts(rules: list[JSON]) -> str:
    hosts = [rule["host"] for rule in rules[:_HOSTS_SHOWN] if rule.get("host")]
    if not hosts:
        return "*"
    more = f" + {len(rules) - _HOSTS_SHOWN} more..." if len(rules) > _HOSTS_SHOWN else ""
    return ",".join(hosts) + more


def _ingress_cells(obj: JSON, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    points = objects(((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress"))
    address = ",".join(sorted({point.get("ip") or point.get("hostname") or "" for point in points} - {""}))
    return [spec.get("ingressClassName") or NONE, _hosts(objects(spec.get("rules"))), address,
            "80, 443" if spec.get("tls") else "80", age(obj, now)]


def _class_cells(obj: JSON, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    ref, text = spec.get("parameters"), NONE
    if ref:
        group = f".{ref['apiGroup']}" if ref.get("apiGroup") else ""
        text = f"{ref.get('kind') or ''}{group}/{ref.get('name') or ''}"
    return [spec.get("controller") or "", text, age(obj, now)]


def _parent_text(obj: JSON) -> str:
    parent = (obj.get("spec") or {}).get("parentRef")
    if not parent:
        return NONE
    resource = ".".join(word for word in (parent.get("resource"), parent.get("group")) if word)
    return "/".join(word for word in (resource, parent.get("namespace"), parent.get("name")) if word)


_INGRESSES = table(
    column("Class", "The name of the IngressClass resource that should be used for additional configuration"),
    column("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
    column("Address", "Address is a list containing ingress points for the load-balancer"),
    column("Ports", "Ports of TLS configurations that open"), AGE, cells=_ingress_cells)
_CLASSES = table(
    column("Controller", "Controller that is responsible for handling this class"),
    column("Parameters", "A reference to a resource with additional parameters"), AGE, cells=_class_cells)
_POLICIES = table(
    column("Pod-Selector", "NetworkPolicySpec.podSelector"),
    AGE,
    cells=lambda obj, now: [selector_text((obj.get("spec") or {}).get("podSelector") or {}), age(obj, now)],
)
_ADDRESSES = table(
    column("ParentRef", "IPAddressSpec.parentRef"), AGE, cells=lambda obj, now: [_parent_text(obj), age(obj, now)]
)
_CIDRS = table(column("CIDRs", "ServiceCIDRSpec.cidrs"), AGE,
               cells=lambda obj, now: [joined((obj.get("spec") or {}).get("cidrs")), age(obj, now)])


def rows() -> tuple[Resource, ...]:
    row = NETWORKING.row
    parent: dict[str, tuple[str, ...]] = {f"spec.parentRef.{key}": ("spec", "parentRef", key)
                                          for key in ("group", "resource", "namespace", "name")}
    return (
        row(
            "IngressClass",
            "ingressclasses",
            IngressClassStrategy(namespaced=False, generation=True),
            namespaced=False,
            table=_CLASSES,
        ),
        row(
            "Ingress",
            "ingresses",
            IngressStrategy(status=True, generation=True),
            table=_INGRESSES,
            short=("ing",),
            subresources=(status_of("Ingress"),),
        ),
        row(
            "IPAddress",
            "ipaddresses",
            IPAddressStrategy(namespaced=False),
            namespaced=False,
            table=_ADDRESSES,
            short=("ip",),
            selectable=select(parent),
            fields=tuple(parent),
        ),
        row(
            "NetworkPolicy",
            "networkpolicies",
            NetworkPolicyStrategy(generation=True),
            table=_POLICIES,
            short=("netpol",),
        ),
        row(
            "ServiceCIDR",
            "servicecidrs",
            ServiceCIDRStrategy(namespaced=False, status=True),
            namespaced=False,
            table=_CIDRS,
            subresources=(status_of("ServiceCIDR"),),
        ),
    )
