"""apiregistration.k8s.io/v1: APIServices."""

from typing import Any

from miniapiserver.errors import FieldError, invalid, required
from miniapiserver.resources.columns import AGE, age, column, table
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.names import dns1035_label, dns_subdomain
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

APIREGISTRATION = Group("apiregistration.k8s.io", "v1", "io.k8s.kube-aggregator.pkg.apis.apiregistration")


class APIServiceStrategy(ObjectStrategy):
    def finalizer_rules(self, meta: JSON) -> list[FieldError]:
        return []  # the aggregator validates with the rules that custom resources have, too

    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        for key in ("groupPriorityMinimum", "versionPriority"):
            spec[key] = spec.get(key) or 0
        if (service := spec.get("service")) is not None and service.get("port") is None:
            service["port"] = 443

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        group, version, name = spec.get("group") or "", spec.get("version") or "", metadata_of(obj).get("name") or ""
        errors: list[FieldError] = []
        if name and name != f"{version}.{group}":
            errors.append(invalid("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{version}.{group}"'))
        errors += [invalid("spec.group", group, words) for words in dns_subdomain(group)] if group else []
        errors += [invalid("spec.version", version, words) for words in dns1035_label(version)]
        for key, high in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
            if not 0 < (value := spec.get(key) or 0) <= high:
                errors.append(invalid(f"spec.{key}", value, f"must be positive and less than {high}"))
        return errors + _service_errors(spec)


def _service_errors(spec: JSON) -> list[FieldError]:
    service = spec.get("service")
    if service is None:
        words = "must be false for local APIServices"
        return [invalid("spec.insecureSkipTLSVerify", True, words)] if spec.get("insecureSkipTLSVerify") else []
    errors = [required(f"spec.service.{key}") for key in ("namespace", "name") if not service.get(key)]
    port = service.get("port")
    if port is not None and not 1 <= port <= 65535:
        errors.append(invalid("spec.service.port", port, "port is not valid: must be between 1 and 65535, inclusive"))
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        errors.append(invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))
    return errors


def _available(obj: JSON) -> str:
    condition = next(
        (item for item in objects((obj.get("status") or {}).get("conditions")) if item.get("type") == "Available"), None
    )
    if condition is None:
        return "Unknown"
    reason = condition.get("reason")
    return "True" if condition.get("status") == "True" else f"{condition.get('status') or ''} ({reason or ''})"


def _service_text(obj: JSON) -> str:
    service = (obj.get("spec") or {}).get("service")
    return f"{service.get('namespace') or ''}/{service.get('name') or ''}" if service else "Local"


_TABLE = table(
    column("Service", "The reference to the service that hosts this API endpoint."),
    column("Available", "Whether this service is available."), AGE,
    cells=lambda obj, now: [_service_text(obj), _available(obj), age(obj, now)])


def rows() -> tuple[Resource, ...]:
    strategy = APIServiceStrategy(namespaced=False, status=True, unconditional_update=False)
    return (APIREGISTRATION.row("APIService", "apiservices", strategy, namespaced=False, table=_TABLE,
                                categories=("api-extensions",), subresources=(status_of("APIService"),)),)
