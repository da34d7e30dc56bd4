"""Services.

My job: what a Service may say, its defaults, and which addresses and node ports an update keeps. Which ones are free,
and who gets them, is `registry.allocation`'s.
"""

from ipaddress import ip_address
from typing import Any

from miniapiserver.errors import FieldError, duplicate, forbidden_field, invalid, not_supported, required
from miniapiserver.resources.columns import AGE, NONE, UNKNOWN, age, column, labels_text, table
from miniapiserver.resources.kinds import PROXY_VERBS, Group, select, status_of
from miniapiserver.resources.metadata import label_errors
from miniapiserver.resources.names import dns_label, dns_subdomain, label_key, label_name, port_number, range_words
from miniapiserver.resources.pods.spec import IP_WORDS, is_ip
from miniapiserver.resources.pods.values import choice_errors, objects, port_or_name_errors
from miniapiserver.resources.resource import Resource, Subresource, WriteContext
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_WITH_NODE_PORTS = ("NodePort", "LoadBalancer")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_AFFINITY_SECONDS = 10800
_MAX_AFFINITY_SECONDS = 86400


class ServiceStrategy(ObjectStrategy):
    status_shape = (("loadBalancer", {}),)

    def default(self, obj: JSON) -> None:
        super().default(obj)
        spec = obj["spec"] = obj.get("spec") or {}
        for key, value in (("sessionAffinity", "None"), ("type", "ClusterIP")):
            spec[key] = spec.get(key) or value
        _default_affinity(spec)
        for port in spec.get("ports") or ():
            if port is not None:
                port["protocol"] = port.get("protocol") or "TCP"
                if port.get("targetPort") in (None, 0, ""):
                    port["targetPort"] = port.get("port") or 0
        kind = spec["type"]
        if kind in _WITH_NODE_PORTS and not spec.get("externalTrafficPolicy"):
            spec["externalTrafficPolicy"] = "Cluster"
        if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is None:
            spec["allocateLoadBalancerNodePorts"] = True
        if kind != "ExternalName" and spec.get("internalTrafficPolicy") is None:
            spec["internalTrafficPolicy"] = "Cluster"
        _default_addresses(spec)

    def prepare_for_create(self, obj: JSON, context: WriteContext) -> None:
        super().prepare_for_create(obj, context)
        _default_families(obj["spec"])

    def prepare_for_update(self, obj: JSON, old: JSON, context: WriteContext) -> None:
        super().prepare_for_update(obj, old, context)
        keep_allocations(obj.setdefault("spec", {}), old.get("spec") or {})

    def check(self, obj: JSON) -> list[FieldError]:
        return service_errors(obj.get("spec") or {})

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        return _address_change_errors(obj.get("spec") or {}, old.get("spec") or {}) + self.check(obj)

    def warnings(self, obj: JSON) -> list[str]:
        spec = obj.get("spec") or {}
        texts: list[str] = []
        if spec.get("loadBalancerIP"):
            texts.append("spec.loadBalancerIP is deprecated since v1.24")
        if spec.get("type") == "ExternalName" and spec.get("externalIPs"):
            texts.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
        return texts


def _default_affinity(spec: JSON) -> None:
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
        return
    config = spec["sessionAffinityConfig"] = spec.get("sessionAffinityConfig") or {}
    client = config["clientIP"] = config.get("clientIP") or {}
    if client.get("timeoutSeconds") is None:
        client["timeoutSeconds"] = _AFFINITY_SECONDS


def _default_addresses(spec: JSON) -> None:
    """clusterIP and the first of clusterIPs are one thing under two names."""
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    elif spec.get("clusterIPs") and "clusterIP" not in spec:
        spec["clusterIP"] = spec["clusterIPs"][0] or ""


def _default_families(spec: JSON) -> None:
    """One family, IPv4 unless an address says otherwise. Headless Services without selector may live in both."""
    if spec.get("type") == "ExternalName":
        return
    if not spec.get("ipFamilyPolicy"):
        two = len(spec.get("ipFamilies") or ()) > 1 or len(spec.get("clusterIPs") or ()) > 1
        bare = spec.get("clusterIP") == "None" and not spec.get("selector")
        spec["ipFamilyPolicy"] = "RequireDualStack" if two or bare else "SingleStack"
    if not spec.get("ipFamilies"):
        address = next((item for item in spec.get("clusterIPs") or () if is_ip(item)), "0.0.0.0")
        spec["ipFamilies"] = [f"IPv{ip_address(address).version}"]
        if spec["ipFamilyPolicy"] == "RequireDualStack" and spec.get("clusterIP") == "None":
            spec["ipFamilies"] = ["IPv4", "IPv6"]


def keep_allocations(spec: JSON, old: JSON) -> None:
    """What was allocated stays when an update leaves it out (upstream `patchAllocatedValues`)."""
    if spec.get("type") == "ExternalName":
        if old.get("type") != "ExternalName":
            for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
                if spec.get(key) == old.get(key):
                    spec.pop(key, None)
        return
    if old.get("type") == "ExternalName":
        _default_families(spec)
        return
    _follow_address(spec, old)
    for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if not spec.get(key) and old.get(key):
            spec[key] = old[key]
    if spec.get("type") in _WITH_NODE_PORTS and old.get("type") in _WITH_NODE_PORTS:
        before = {(port.get("protocol"), port.get("port")): port.get("nodePort") for port in objects(old.get("ports"))}
        for port in spec.get("ports") or ():
            if port and not port.get("nodePort") and (kept := before.get((port.get("protocol"), port.get("port")))):
                port["nodePort"] = kept
    elif spec.get("type") == "ClusterIP" and old.get("type") in _WITH_NODE_PORTS:
        _drop_node_ports(spec, old)
    if spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
        if not spec.get("healthCheckNodePort") and old.get("healthCheckNodePort"):
            spec["healthCheckNodePort"] = old["healthCheckNodePort"]
    elif spec.get("healthCheckNodePort") == old.get("healthCheckNodePort"):
        spec.pop("healthCheckNodePort", None)


def _follow_address(spec: JSON, old: JSON) -> None:
    """A client that only knows clusterIP means clusterIPs with it (upstream `normalizeClusterIPs`)."""
    address = spec.get("clusterIP")
    if address and address != old.get("clusterIP") and spec.get("clusterIPs") == old.get("clusterIPs"):
        spec["clusterIPs"] = [address]


def _drop_node_ports(spec: JSON, old: JSON) -> None:
    """A Service that stops having node ports lets those go that nobody changed."""
    held = {port.get("nodePort") for port in objects(old.get("ports"))}
    for port in spec.get("ports") or ():
        if port and port.get("nodePort") in held:
            port.pop("nodePort", None)
    for key in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts"):
        if spec.get(key) == old.get(key):
            spec.pop(key, None)


def service_errors(spec: JSON) -> list[FieldError]:
    errors: list[FieldError] = []
    kind, ports = spec.get("type") or "", objects(spec.get("ports"))
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless and kind != "ExternalName":
        errors.append(required("spec.ports"))
    if kind == "LoadBalancer":
        if headless:
            errors.append(invalid("spec.clusterIPs[0]", "None", "may not be set to 'None' for LoadBalancer services"))
    elif kind == "NodePort":
        if headless:
            errors.append(invalid("spec.clusterIPs[0]", "None", "may not be set to 'None' for NodePort services"))
    elif kind == "ExternalName":
        errors += _external_name_errors(spec)
    several, names = len(ports) > 1, set[str]()
    for index, port in enumerate(ports):
        errors += _port_errors(port, several, headless, names, f"spec.ports[{index}]")
    errors += _duplicate_port_errors(ports)
    if selector := spec.get("selector"):
        errors += label_errors(selector, "spec.selector")
    errors += _affinity_errors(spec)
    errors += choice_errors("spec.type", kind, TYPES)
    errors += _cluster_ip_errors(spec)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        errors += _external_ip_errors(address or "", f"spec.externalIPs[{index}]")
    return errors + _traffic_errors(spec)


def _external_name_errors(spec: JSON) -> list[FieldError]:
    errors: list[FieldError] = []
    if spec.get("clusterIPs"):
        errors.append(forbidden_field("spec.clusterIPs", "may not be set when type is 'ExternalName'"))
    if spec.get("ipFamilies"):
        errors.append(forbidden_field("spec.ipFamilies", "may not be set when type is 'ExternalName'"))
    if spec.get("ipFamilyPolicy") is not None:
        errors.append(forbidden_field("spec.ipFamilyPolicy", "may not be set when type is 'ExternalName'"))
    name = (spec.get("externalName") or "").removesuffix(".")
    if not name:
        return [*errors, required("spec.externalName")]
    return errors + [invalid("spec.externalName", name, words) for words in dns_subdomain(name)]


def _port_errors(port: JSON, several: bool, headless: bool, names: set[str], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    name = port.get("name") or ""
    if several and not name:
        errors.append(required(f"{path}.name"))
    elif name:
        errors += [invalid(f"{path}.name", name, words) for words in dns_label(name)]
        if name in names:
            errors.append(duplicate(f"{path}.name", name))
        names.add(name)
    number = port.get("port") or 0
    errors += [invalid(f"{path}.port", number, words) for words in port_number(number)]
    errors += choice_errors(f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
    errors += port_or_name_errors(f"{path}.targetPort", port.get("targetPort"))
    if (app := port.get("appProtocol")) is not None:
        errors += [invalid(f"{path}.appProtocol", app, words) for words in label_key(app)]
    return errors


def _duplicate_port_errors(ports: list[JSON]) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("port", "nodePort"):
        seen: set[tuple[Any, Any]] = set()
        for index, port in enumerate(ports):
            if key == "nodePort" and not port.get(key):
                continue
            pair = (port.get("protocol"), port.get(key))
            if pair in seen:
                if key == "nodePort":
                    errors.append(duplicate(f"spec.ports[{index}].nodePort", pair[1]))
                else:
                    errors.append(duplicate(f"spec.ports[{index}]", _internal_port(*pair)))
            seen.add(pair)
    return errors


def _internal_port(protocol: Any, number: Any) -> JSON:
    """Upstream's key of a port, as its internal struct prints."""
    numbers = {"Port": number or 0, "TargetPort": 0, "NodePort": 0}
    return {"Name": "", "Protocol": protocol or "", "AppProtocol": None} | numbers


def _affinity_errors(spec: JSON) -> list[FieldError]:
    affinity, config = spec.get("sessionAffinity"), spec.get("sessionAffinityConfig")
    errors = choice_errors("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    where = "spec.sessionAffinityConfig"
    if affinity == "ClientIP":
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
        if seconds is None or not 0 < seconds <= _MAX_AFFINITY_SECONDS:
            errors.append(invalid(f"{where}.clientIP.timeoutSeconds", seconds,
                                  f"must be greater than 0 and less than {_MAX_AFFINITY_SECONDS}"))
    elif affinity == "None" and config is not None:
        errors.append(forbidden_field(where, "must not be set when session affinity is None"))
    return errors


def _cluster_ip_errors(spec: JSON) -> list[FieldError]:
    errors: list[FieldError] = []
    addresses = spec.get("clusterIPs") or []
    if addresses and (spec.get("clusterIP") or "") != (addresses[0] or ""):
        errors.append(invalid("spec.clusterIPs", addresses, "first value must match `clusterIP`"))
    for index, address in enumerate(addresses):
        if address != "None" and not is_ip(address):
            errors.append(invalid(f"spec.clusterIPs[{index}]", address or "", IP_WORDS))
        elif address == "None" and index:
            errors.append(invalid(f"spec.clusterIPs[{index}]", address, IP_WORDS))
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in ("IPv4", "IPv6"):
            errors.append(not_supported(f"spec.ipFamilies[{index}]", family or "", ("IPv4", "IPv6")))
        elif family == "IPv6" and not _may_have_both_families(spec):
            errors.append(invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster"))
    policy = spec.get("ipFamilyPolicy")
    if policy == "RequireDualStack" and not _may_have_both_families(spec):
        errors.append(invalid("spec.ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services"))
    if policy is not None and policy not in ("SingleStack", "PreferDualStack", "RequireDualStack"):
        errors.append(
            not_supported("spec.ipFamilyPolicy", policy, ("PreferDualStack", "RequireDualStack", "SingleStack"))
        )
    if len(addresses) > 2:
        errors.append(invalid("spec.clusterIPs", addresses, "may only hold up to 2 values"))
    return errors


def _may_have_both_families(spec: JSON) -> bool:
    """Addresses here are IPv4; a Service without addresses and selector is its owner's business."""
    return spec.get("clusterIP") == "None" and not spec.get("selector")


def _external_ip_errors(address: str, path: str) -> list[FieldError]:
    if not is_ip(address):
        return [invalid(path, address, IP_WORDS)]
    found = ip_address(address)
    for wrong, words in ((found.is_unspecified, "may not be unspecified (0.0.0.0 or ::)"),
                         (found.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
                         (found.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
                         (found.is_multicast, "may not be in the multicast range (224.0.0.0/4, ff00::/8)")):
        if wrong:
            return [invalid(path, address, words)]
    return []


def _traffic_errors(spec: JSON) -> list[FieldError]:
    errors: list[FieldError] = []
    kind, external, internal = spec.get("type"), spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy")
    outside = kind in _WITH_NODE_PORTS or bool(spec.get("externalIPs"))
    if external and not outside:
        errors.append(
            invalid("spec.externalTrafficPolicy", external, "may only be set for externally-accessible services")
        )
    elif external and external not in ("Cluster", "Local"):
        errors.append(not_supported("spec.externalTrafficPolicy", external, ("Cluster", "Local")))
    if internal is None and kind != "ExternalName":
        errors.append(required("spec.internalTrafficPolicy"))
    elif internal is not None and internal not in ("Cluster", "Local"):
        errors.append(not_supported("spec.internalTrafficPolicy", internal, ("Cluster", "Local")))
    if (check := spec.get("healthCheckNodePort") or 0) < 0 or check > 65535:
        errors.append(invalid("spec.healthCheckNodePort", check, range_words(1, 65535)))
    elif check and not (kind == "LoadBalancer" and external == "Local"):
        errors.append(invalid("spec.healthCheckNodePort", check,
                              "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
    return errors


def _address_change_errors(spec: JSON, old: JSON) -> list[FieldError]:
    """An address, once given, stays with its Service for as long as it has any."""
    if "ExternalName" in (spec.get("type"), old.get("type")):
        return []
    new, before = spec.get("clusterIPs") or [], old.get("clusterIPs") or []
    if before and before[0] and (not new or new[0] != before[0]):
        if not new:
            return [invalid("spec.clusterIPs[0]", new, "primary clusterIP can not be unset")]
        return [invalid("spec.clusterIPs[0]", new, "may not change once set")]
    return []


def _external_ip(spec: JSON, status: JSON) -> str:
    kind, outside = spec.get("type"), [address or "" for address in spec.get("externalIPs") or ()]
    if kind == "ExternalName":
        return spec.get("externalName") or ""
    if kind in ("ClusterIP", "NodePort"):
        return ",".join(outside) or NONE
    if kind != "LoadBalancer":
        return UNKNOWN
    points = sorted({point.get("ip") or point.get("hostname") or "" for point
                     in objects((status.get("loadBalancer") or {}).get("ingress"))} - {""})
    return ",".join([*points, *outside]) or "<pending>"


def _ports_text(spec: JSON) -> str:
    return ",".join(f"{port.get('port') or 0}{':' + str(port['nodePort']) if port.get('nodePort') else ''}"
                    f"/{port.get('protocol') or ''}" for port in objects(spec.get("ports"))) or NONE


def _cells(obj: JSON, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    addresses = spec.get("clusterIPs") or ()
    return [
        spec.get("type") or "",
        (addresses[0] if addresses else spec.get("clusterIP")) or NONE,
        _external_ip(spec, obj.get("status") or {}),
        _ports_text(spec),
        age(obj, now),
        labels_text(spec.get("selector")),
    ]


_TABLE = table(
    column("Type", "ServiceSpec.type"), column("Cluster-IP", "ServiceSpec.clusterIP"),
    column("External-IP", "ServiceSpec.externalIPs"), column("Port(s)", "ServiceSpec.ports"), AGE,
    column("Selector", "ServiceSpec.selector", wide=True), cells=_cells)

_FIELDS: dict[str, tuple[str, ...]] = {"spec.clusterIP": ("spec", "clusterIP"), "spec.type": ("spec", "type")}


def service_row(group: Group) -> Resource:
    strategy = ServiceStrategy(names=label_name, status=True, create_on_update=True, returns_deleted_object=True)
    return group.row("Service", "services", strategy, table=_TABLE, short=("svc",), categories=("all",),
                     subresources=(Subresource("proxy", "ServiceProxyOptions", PROXY_VERBS), status_of("Service")),
                     selectable=select(_FIELDS), fields=tuple(_FIELDS))
