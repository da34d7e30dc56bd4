"""The packaged type table: complete, consistent, cheap to open."""

import subprocess
import sys

import pytest

from miniapiserver.resources.rows import all_rows
from miniapiserver.schema import types
from miniapiserver.schema.types import Kind, Type, UnknownType


def leaves(of: Type) -> Type:
    return leaves(of.element) if of.element else of


def test_every_type_of_the_table_loads_and_refers_only_to_types_of_the_table() -> None:
    for name in types.names():
        for field in types.find(name).fields.values():
            of = leaves(field.type)
            assert of.kind is not Kind.STRUCT or of.struct.name


def test_every_row_has_its_type_and_so_have_its_subresources() -> None:
    for row in all_rows():
        assert types.for_kind(row.group, row.version, row.kind) is types.find(row.type_name), row.plural


def test_options_exist_in_every_group_and_version() -> None:
    assert types.for_kind("apps", "v1", "DeleteOptions") is types.find("meta.v1.DeleteOptions")
    assert types.for_kind("example.com", "v7", "PatchOptions") is types.find("meta.v1.PatchOptions")


def test_long_and_short_names_find_the_same_type() -> None:
    pod = types.find("io.k8s.api.core.v1.Pod")
    assert pod is types.find("core.v1.Pod")
    assert pod.definition_name == "io.k8s.api.core.v1.Pod"
    meta = types.find("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
    assert meta.definition_name == "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def test_a_name_nobody_knows_is_refused() -> None:
    with pytest.raises(UnknownType):
        types.find("core.v1.Nope")
    assert types.for_kind("", "v1", "Nope") is None


def test_inlined_structs_are_fields_of_their_parent_and_keep_their_number() -> None:
    volume = types.find("core.v1.Volume")
    assert {"name", "emptyDir", "configMap"} <= set(volume.fields)
    assert volume.inlined == {2: "core.v1.VolumeSource"}
    assert set(volume.own) == {"name"}


def test_list_and_patch_semantics_are_known() -> None:
    spec = types.find("core.v1.PodSpec").fields
    assert (spec["containers"].list_type, spec["containers"].list_keys) == ("map", ("name",))
    assert (spec["volumes"].merge_key, spec["volumes"].patch_strategy) == ("name", ("merge", "retainKeys"))
    assert spec["nodeSelector"].atomic and spec["tolerations"].list_type == "atomic"
    assert types.find("core.v1.Container").fields["ports"].list_keys == ("containerPort", "protocol")
    assert types.find("meta.v1.ObjectMeta").fields["finalizers"].list_type == "set"


def test_what_go_always_prints_is_known() -> None:
    assert types.find("core.v1.Pod").fields["status"].always
    assert types.find("rbac.v1.Role").fields["rules"].always
    assert not types.find("core.v1.PodSpec").fields["securityContext"].always
    assert not types.find("meta.v1.ObjectMeta").fields["creationTimestamp"].always


def test_a_crd_adds_and_removes_a_type() -> None:
    schema = types.TypeSchema("com.example.v1.Widget", {}, preserve_unknown=True)
    types.add(schema, "example.com", "v1", "Widget")
    assert types.for_kind("example.com", "v1", "Widget") is schema
    assert schema.definition_name == "com.example.v1.Widget"
    types.remove("com.example.v1.Widget")
    assert types.for_kind("example.com", "v1", "Widget") is None


def test_opening_the_table_loads_no_type_that_is_not_asked_for() -> None:
    code = (
        "from miniapiserver.schema import types; types.for_kind('', 'v1', 'ConfigMap');"
        "print(types._load.cache_info().currsize)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 5
