"""Types as OpenAPI schemas.

My job: a type of the schema table as a definition of OpenAPI 2 or 3, with the `x-kubernetes-*` extensions that
kubectl's patches, validation and `explain` read, and every type it leads to. Pure; the documents are `openapi`'s.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from miniapiserver.resources.descriptions import DESCRIPTIONS
from miniapiserver.schema import types
from miniapiserver.schema.types import Field, Kind, Type, TypeSchema

JSON = dict[str, Any]
GVK = tuple[str, str, str]

_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_CRD: Final = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
_SCALARS: Final[dict[Kind, JSON]] = {
    Kind.STRING: {"type": "string"}, Kind.BOOL: {"type": "boolean"},
    Kind.INT32: {"type": "integer", "format": "int32"}, Kind.INT64: {"type": "integer", "format": "int64"},
    Kind.DOUBLE: {"type": "number", "format": "double"}, Kind.BYTES: {"type": "string", "format": "byte"},
}
#: Kinds that are definitions of their own: name, form in OpenAPI 2, form in OpenAPI 3, description.
_NAMED: Final[dict[Kind, tuple[str, JSON, JSON, str]]] = {
    Kind.TIME: (_META + "Time", *2 * ({"type": "string", "format": "date-time"},), "A time in RFC 3339 form."),
    Kind.MICRO_TIME: (_META + "MicroTime", *2 * ({"type": "string", "format": "date-time"},),
                      "A time in RFC 3339 form, with microseconds."),
    Kind.DURATION: (_META + "Duration", *2 * ({"type": "string"},), "A duration such as 1h30m."),
    Kind.QUANTITY: ("io.k8s.apimachinery.pkg.api.resource.Quantity", {"type": "string"},
                    {"oneOf": [{"type": "string"}, {"type": "number"}]},
                    "A number with a suffix, such as 500m or 2Gi."),
    Kind.INT_OR_STRING: ("io.k8s.apimachinery.pkg.util.intstr.IntOrString",
                         {"type": "string", "format": "int-or-string"},
                         {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
                         "A number or a name."),
    Kind.RAW: ("io.k8s.apimachinery.pkg.runtime.RawExtension", *2 * ({"type": "object"},), "Any object."),
    Kind.FIELDS: (_META + "FieldsV1", *2 * ({"type": "object"},), "A set of fields."),
    Kind.ANY: (_CRD + "JSON", {}, {}, "Any JSON value."),
    Kind.SCHEMA_OR_ARRAY: (_CRD + "JSONSchemaPropsOrArray", {}, {}, "A schema, or a list of schemas."),
    Kind.SCHEMA_OR_BOOL: (_CRD + "JSONSchemaPropsOrBool", {}, {}, "A schema, or a boolean."),
    Kind.SCHEMA_OR_STRINGS: (_CRD + "JSONSchemaPropsOrStringArray", {}, {}, "A schema, or a list of strings."),
}
_TYPE_META: Final = {
    "apiVersion": "The version of this representation of the object.",
    "kind": "The kind of the object. Cannot be updated.",
    "metadata": "Standard object metadata.",
    "spec": "What is wanted.",
    "status": "What was last observed. Read-only.",
}


class Definitions:
    """The definitions one document needs: those asked for and all they refer to."""

    def __init__(self, version: int, kinds: Mapping[str, Sequence[GVK]]) -> None:
        self._version = version
        self._kinds = kinds
        self._prefix = "#/definitions/" if version == 2 else "#/components/schemas/"
        self.found: dict[str, JSON] = {}

    def add(self, names: Iterable[str]) -> None:
        """Add the types of these names (and of theirs)."""
        for name in names:
            self._add_type(types.find(name))

    def reference(self, type_name: str) -> JSON:
        """A `$ref` to a type's definition."""
        return {"$ref": self._prefix + types.find(type_name).definition_name}

    def _add_type(self, schema: TypeSchema) -> None:
        name = schema.definition_name
        if name in self.found:
            return
        definition = self.found[name] = {}  # before its fields: types refer to themselves
        definition |= self._description(schema) | {"type": "object"}
        properties = {field.name: self._property(schema, field) for field in schema.fields.values()}
        required = sorted(field.name for field in schema.fields.values() if field.required)
        if properties:
            definition["properties"] = properties
        if required:
            definition["required"] = required
        if schema.atomic:
            definition["x-kubernetes-map-type"] = "atomic"
        if schema.preserve_unknown:
            definition["x-kubernetes-preserve-unknown-fields"] = True
        if kinds := self._kinds.get(schema.name):
            definition["x-kubernetes-group-version-kind"] = [
                {"group": group, "kind": kind, "version": version} for group, version, kind in sorted(kinds)]

    def _description(self, schema: TypeSchema) -> JSON:
        kinds = self._kinds.get(schema.name, ())
        if len(kinds) != 1:
            return {}
        group, version, kind = kinds[0]
        place = f"{group}/{version}" if group else f"the core API, {version}"
        return {"description": f"{kind} is a kind of {place}."}

    def _property(self, schema: TypeSchema, field: Field) -> JSON:
        value = self._value(field.type)
        described = DESCRIPTIONS.get(f"{schema.go_name}.{field.name}") or \
            (_TYPE_META.get(field.name, "") if schema.has_type_meta else "")
        if "$ref" in value and self._version == 3:
            # A $ref has no siblings in OpenAPI 3.0; upstream wraps it the same way.
            is_plain_struct = field.type.kind is Kind.STRUCT and not field.pointer
            value = {"allOf": [value]} | ({"default": {}} if is_plain_struct else {})
        if described:
            value["description"] = described
        if field.default is not None:
            value["default"] = field.default
        return value | _extensions(field)

    def _value(self, of: Type) -> JSON:
        if of.kind in _SCALARS:
            return dict(_SCALARS[of.kind])
        if of.kind in _NAMED:
            name, two, three, description = _NAMED[of.kind]
            self.found.setdefault(name, {"description": description} | (two if self._version == 2 else three))
            if of.kind.value.startswith("Schema"):
                self.add(["apiextensions.v1.JSONSchemaProps"])
            return {"$ref": self._prefix + name}
        if of.kind is Kind.STRUCT:
            self._add_type(of.struct)
            return self.reference(of.struct_name)
        inner = self._value(of.of)
        if "$ref" in inner and self._version == 3:
            inner = {"allOf": [inner]} | ({"default": {}} if of.of.kind is Kind.STRUCT else {})
        return {"type": "array", "items": inner} if of.kind is Kind.LIST else \
            {"type": "object", "additionalProperties": inner}


def _extensions(field: Field) -> JSON:
    found: JSON = {}
    if field.type.kind is Kind.LIST:
        if field.list_type != "atomic":
            found["x-kubernetes-list-type"] = field.list_type
        elif "merge" not in field.patch_strategy and field.name != "items":  # upstream says nothing of a List's items
            found["x-kubernetes-list-type"] = "atomic"
        if field.list_keys:
            found["x-kubernetes-list-map-keys"] = list(field.list_keys)
    elif field.type.kind is Kind.MAP and field.atomic:
        found["x-kubernetes-map-type"] = "atomic"
    if field.merge_key:
        found["x-kubernetes-patch-merge-key"] = field.merge_key
    if field.patch_strategy:
        found["x-kubernetes-patch-strategy"] = ",".join(field.patch_strategy)
    return found
