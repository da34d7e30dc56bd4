"""ObjectMeta, in upstream's words."""

from typing import Any

import pytest

from miniapiserver.resources.metadata import metadata_errors, metadata_update_errors
from miniapiserver.resources.names import (
    config_key,
    dns_label,
    env_name,
    label_key,
    label_value,
    path_segment_name,
    port_name,
    subdomain_name,
)
from tests.miniapiserver.resources.writes import created, message, updated, words

LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def errors_of(**meta: Any) -> list[str]:
    return words(metadata_errors({"name": "a", "namespace": "n"} | meta, True, subdomain_name))


def test_namespace_name_is_a_label() -> None:
    _, errors = created("namespaces", {"metadata": {"name": "Bad_Name"}})
    assert message("namespaces", errors, "Bad_Name") == (
        f'Namespace "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": {LABEL_WORDS}')


def test_object_without_name_says_what_is_required() -> None:
    _, errors = created("configmaps", {})
    assert message("configmaps", errors, "") == (
        'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required')


def test_rbac_names_are_path_segments() -> None:
    assert path_segment_name("system:node") == []
    assert path_segment_name("a/b%") == ["may not contain '/'", "may not contain '%'"]
    assert path_segment_name("..") == ["may not be '..'"]
    assert path_segment_name("..", True) == []


def test_namespaced_object_needs_a_namespace_and_a_cluster_object_may_not_have_one() -> None:
    assert words(metadata_errors({"name": "a"}, True, subdomain_name)) == ["metadata.namespace: Required value"]
    assert words(metadata_errors({"name": "a", "namespace": "b"}, False, subdomain_name)) == [
        "metadata.namespace: Forbidden: not allowed on this type"]


def test_generate_name_may_end_in_a_dash() -> None:
    assert errors_of(generateName="gen-") == []
    assert errors_of(generateName="Gen")[0].startswith(
        'metadata.generateName: Invalid value: "Gen": a lowercase RFC 1123'
    )


def test_labels_are_checked_key_and_value() -> None:
    assert errors_of(labels={"a/b/c": "x"})[0].startswith(
        'metadata.labels: Invalid value: "a/b/c": a valid label key must consist'
    )
    assert errors_of(labels={"a": "b c"}) == [
        'metadata.labels: Invalid value: "b c": a valid label must be an empty string or consist '
        'of alphanumeric characters, '
        "'-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  "
        "or 'my_value',  or '12345', "
        "regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    ]
    assert errors_of(labels={"app.kubernetes.io/name": "x"}) == []


def test_annotations_have_a_size_limit() -> None:
    assert errors_of(annotations={"a": "x" * 300_000}) == [
        "metadata.annotations: Too long: may not be more than 262144 bytes"
    ]
    assert errors_of(annotations={"UPPER/Case": "fine"}) == []


def test_owner_references_are_complete_and_have_one_controller() -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": True}
    assert errors_of(ownerReferences=[owner]) == []
    assert errors_of(ownerReferences=[{"apiVersion": "v1"}]) == [
        f"metadata.ownerReferences[0].{key}: Required value: must not be empty" for key in ("kind", "name", "uid")]
    assert errors_of(ownerReferences=[owner, owner])[0].endswith(
        'Only one reference can have Controller set to true. Found "true" in references for Pod/p and Pod/p')


def test_finalizers_exclude_each_other() -> None:
    assert errors_of(finalizers=["orphan", "foregroundDeletion"])[0].endswith(
        "finalizer orphan and foregroundDeletion cannot be both set")


def test_uid_and_name_do_not_change() -> None:
    old = {"name": "a", "namespace": "n", "uid": "1"}
    assert words(metadata_update_errors(old | {"uid": "2"}, old)) == [
        'metadata.uid: Invalid value: "2": field is immutable'
    ]
    assert metadata_update_errors(dict(old), old) == []


def test_no_finalizer_is_added_to_an_object_that_is_going() -> None:
    old = {"name": "a", "namespace": "n", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}
    assert words(metadata_update_errors(old | {"finalizers": ["a/b", "c/d"]}, old)) == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being "
        "deleted, found new finalizers "
        '[]string{"c/d"}'
    ]
    assert metadata_update_errors(old | {"finalizers": []}, old) == []


def test_update_repeats_causes_as_upstream_and_says_them_once_in_the_message() -> None:
    old, _ = created("configmaps", {"metadata": {"name": "a"}})
    _, errors = updated("configmaps", old, {"metadata": {"labels": {"a": "b c"}}})
    assert len(errors) > 1
    assert message("configmaps", errors, "a").count("b c") == 1


@pytest.mark.parametrize(
    ("rule", "fine", "wrong"),
    [
        (dns_label, "a-1", "a.b"),
        (label_key, "example.com/Name_1", "/x"),
        (label_value, "", "-a"),
        (port_name, "http", "80"),
        (config_key, "a.b_C-1", ".."),
        (env_name, "my var!", "a=b"),
    ],
)
def test_syntaxes(rule: Any, fine: str, wrong: str) -> None:
    assert rule(fine) == []
    assert rule(wrong) != []
