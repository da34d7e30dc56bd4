"""apiextensions.k8s.io/v1: CustomResourceDefinitions.

My job: their defaults and the rules of names, versions and scope. Schemas are judged where they are used.
"""

from typing import Any

from miniapiserver.errors import FieldError, invalid, not_supported, required
from miniapiserver.resources.columns import NAME_AND_CREATED
from miniapiserver.resources.kinds import Group, status_of
from miniapiserver.resources.metadata import metadata_of
from miniapiserver.resources.names import dns1035_label, dns_subdomain
from miniapiserver.resources.pods.values import objects
from miniapiserver.resources.resource import Resource
from miniapiserver.resources.strategy import ObjectStrategy

JSON = dict[str, Any]

APIEXTENSIONS = Group("apiextensions.k8s.io", "v1", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions")
_SCOPES = ("Cluster", "Namespaced")
_NO_SCHEMA = "schemas are required"


class CustomResourceDefinitionStrategy(ObjectStrategy):
    def default(self, obj: JSON) -> None:
        spec = obj["spec"] = obj.get("spec") or {}
        names = spec["names"] = spec.get("names") or {}
        if kind := names.get("kind"):
            names["singular"] = names.get("singular") or kind.lower()
            names["listKind"] = names.get("listKind") or f"{kind}List"
        if spec.get("conversion") is None:
            spec["conversion"] = {"strategy": "None"}
        webhook = (spec["conversion"].get("webhook") or {}).get("clientConfig") or {}
        if (service := webhook.get("service")) is not None and service.get("port") is None:
            service["port"] = 443

    def new_status(self, obj: JSON) -> JSON:
        stored = [version["name"] for version in objects((obj.get("spec") or {}).get("versions"))
                  if version.get("storage") and version.get("name")]
        return {"acceptedNames": {"kind": "", "plural": ""}, "conditions": None, "storedVersions": stored}

    def check(self, obj: JSON) -> list[FieldError]:
        spec = obj.get("spec") or {}
        group, names = spec.get("group") or "", spec.get("names") or {}
        name, wanted = metadata_of(obj).get("name") or "", f"{names.get('plural') or ''}.{group}"
        errors = (
            [invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')]
            if name and name != wanted
            else []
        )
        errors += _group_errors(group)
        scope = spec.get("scope") or ""
        if not scope:
            errors.append(required("spec.scope"))
        elif scope not in _SCOPES:
            errors.append(not_supported("spec.scope", scope, _SCOPES))
        errors += _version_errors(spec) + _name_errors(names)
        strategy = (spec.get("conversion") or {}).get("strategy")
        if strategy not in ("None", "Webhook"):
            errors.append(not_supported("spec.conversion.strategy", strategy or "", ("None", "Webhook")))
        return errors

    def check_update(self, obj: JSON, old: JSON) -> list[FieldError]:
        errors = self.check(obj)
        established = any(item.get("type") == "Established" and item.get("status") == "True"
                          for item in objects((old.get("status") or {}).get("conditions")))
        if not established:
            return errors
        spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
        if spec.get("scope") != old_spec.get("scope"):
            errors.append(invalid("spec.scope", spec.get("scope"), "field is immutable"))
        for key in ("kind",):
            new, before = ((item.get("names") or {}).get(key) for item in (spec, old_spec))
            if new != before:
                errors.append(invalid(f"spec.names.{key}", new, "field is immutable"))
        return errors


def _group_errors(group: str) -> list[FieldError]:
    if not group:
        return [required("spec.group")]
    if wrong := dns_subdomain(group):
        return [invalid("spec.group", group, ",".join(wrong))]
    return [] if "." in group else [invalid("spec.group", group, "should be a domain with at least one dot")]


def _version_errors(spec: JSON) -> list[FieldError]:
    versions = objects(spec.get("versions"))
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path, name = f"spec.versions[{index}]", version.get("name") or ""
        if wrong := dns1035_label(name):
            errors.append(invalid(f"{path}.name", name, ",".join(wrong)))
        if name in seen:
            errors.append(
                invalid("spec.versions", [item.get("name") for item in versions], "must contain unique version names")
            )
        seen.add(name)
        if (version.get("schema") or {}).get("openAPIV3Schema") is None:
            errors.append(required(f"{path}.schema.openAPIV3Schema", _NO_SCHEMA))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        errors.append(invalid("spec.versions", [version.get("name") for version in versions],
                              "must have exactly one version marked as storage version"))
    return errors


def _name_errors(names: JSON) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("plural", "singular", "kind", "listKind"):
        text = names.get(key) or ""
        if not text:
            errors.append(required(f"spec.names.{key}"))
        elif wrong := dns1035_label(text if key in ("plural", "singular") else text.lower()):
            words = ",".join(wrong)
            errors.append(
                invalid(
                    f"spec.names.{key}",
                    text,
                    words
                    if key in ("plural", "singular")
                    else f"may have mixed case, but should otherwise match: {words}",
                )
            )
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        errors.append(invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same"))
    for index, short in enumerate(names.get("shortNames") or ()):
        if wrong := dns1035_label(short or ""):
            errors.append(invalid(f"spec.names.shortNames[{index}]", short or "", ",".join(wrong)))
    return errors


def rows() -> tuple[Resource, ...]:
    kind = "CustomResourceDefinition"
    strategy = CustomResourceDefinitionStrategy(namespaced=False, status=True, generation=True,
                                                unconditional_update=False)
    return (APIEXTENSIONS.row(kind, "customresourcedefinitions", strategy, namespaced=False, table=NAME_AND_CREATED,
                              short=("crd", "crds"), categories=("api-extensions",), subresources=(status_of(kind),)),)
