"""The type table as a whole."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniapiserver.errors import Invalid
from miniapiserver.resources.resource import ALL_VERBS, Resource, TypeTable, WriteContext
from miniapiserver.resources.rows import all_rows
from miniapiserver.resources.strategy import ObjectStrategy
from tests.miniapiserver.resources.anyobject import any_object, changed

ROWS = all_rows()
NEVER_STORED = {"bindings", "componentstatuses", "selfsubjectreviews", "tokenreviews", "localsubjectaccessreviews",
                "selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews"}


def test_groups_stand_in_discoverys_order() -> None:
    groups = list(dict.fromkeys(row.group for row in ROWS))
    assert groups == [
        "",
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "storage.k8s.io",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "scheduling.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
        "discovery.k8s.io",
        "resource.k8s.io",
        "flowcontrol.apiserver.k8s.io",
    ]


def test_core_resources_and_subresources_are_those_of_kubernetes() -> None:
    names = [name for row in ROWS if not row.group
             for name in (row.plural, *(f"{row.plural}/{sub.name}" for sub in row.subresources))]
    assert names == [
        "bindings", "componentstatuses", "configmaps", "endpoints", "events", "limitranges", "namespaces",
        "namespaces/finalize", "namespaces/status", "nodes", "nodes/proxy", "nodes/status", "persistentvolumeclaims",
        "persistentvolumeclaims/status", "persistentvolumes", "persistentvolumes/status", "pods", "pods/attach",
        "pods/binding", "pods/ephemeralcontainers", "pods/eviction", "pods/exec", "pods/log", "pods/portforward",
        "pods/proxy", "pods/resize", "pods/status", "podtemplates", "replicationcontrollers",
        "replicationcontrollers/scale", "replicationcontrollers/status", "resourcequotas", "resourcequotas/status",
        "secrets", "serviceaccounts", "serviceaccounts/token", "services", "services/proxy", "services/status"]


def test_category_all_is_what_kubectl_get_all_shows() -> None:
    assert {row.plural for row in ROWS if "all" in row.categories} == {
        "pods", "replicationcontrollers", "services", "daemonsets", "deployments", "replicasets", "statefulsets",
        "horizontalpodautoscalers", "cronjobs", "jobs"}


def test_reviews_and_bindings_are_never_stored() -> None:
    assert {row.plural for row in ROWS if not row.storage} == NEVER_STORED


def test_namespaces_cannot_be_deleted_as_a_collection() -> None:
    verbs = {row.plural: row.verbs for row in ROWS if row.storage}
    assert "deletecollection" not in verbs.pop("namespaces")
    assert set(verbs.values()) == {ALL_VERBS}


def test_both_event_groups_share_one_storage() -> None:
    events = [row for row in ROWS if row.plural == "events"]
    assert [row.storage for row in events] == ["events", "events"]
    assert [row.conversion is None for row in events] == [True, False]
    assert {row.ttl for row in events} == {3600.0}


def test_kinds_that_put_creates() -> None:
    assert {row.plural for row in ROWS if row.strategy.allow_create_on_update} == {
        "services", "endpoints", "events", "leases", "limitranges", "roles", "rolebindings", "clusterroles",
        "clusterrolebindings", "runtimeclasses"}


def test_kinds_whose_delete_answers_the_object() -> None:
    assert {row.plural for row in ROWS if row.strategy.returns_deleted_object} == {
        "pods",
        "services",
        "namespaces",
        "serviceaccounts",
        "persistentvolumes",
        "persistentvolumeclaims",
        "podtemplates",
        "resourcequotas",
        "storageclasses",
        "csidrivers",
        "csinodes",
        "volumeattachments",
        "deviceclasses",
        "resourceclaims",
        "resourceclaimtemplates",
        "resourceslices",
    }


def test_kinds_that_must_be_read_before_they_are_written() -> None:
    assert {row.plural for row in ROWS if not row.strategy.allow_unconditional_update} == {
        "leases", "runtimeclasses", "poddisruptionbudgets", "csidrivers", "csinodes", "csistoragecapacities",
        "volumeattachments", "customresourcedefinitions", "apiservices", "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings", "mutatingwebhookconfigurations", "validatingadmissionpolicies",
        "validatingadmissionpolicybindings", "validatingwebhookconfigurations"}


def test_kinds_whose_dependents_survive_by_default() -> None:
    survive = {row.plural for row in ROWS if row.strategy.default_propagation == "orphan"}
    assert survive == {"jobs", "replicationcontrollers"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.group}/{row.version}/{row.plural}")
def test_row_is_consistent(row: Resource) -> None:
    assert isinstance(row.strategy, ObjectStrategy)
    if row.storage:
        assert row.strategy.namespaced == row.namespaced
    assert row.strategy.has_status == any(sub.name == "status" for sub in row.subresources)
    assert row.table.columns[0].name == "Name" or row.kind == "Event"
    assert TypeTable([row]).find(row.group, row.version, row.plural) is row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.group}/{row.version}/{row.plural}")
@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_any_object_gets_field_errors_and_never_an_exception(row: Resource, seed: int) -> None:
    rand = random.Random(seed)
    obj = any_object(row.type_name, rand)
    old = any_object(row.type_name, rand) if seed % 2 else changed(obj, row.type_name, rand)
    for subresource in ("", *(sub.name for sub in row.subresources)):
        new, before = json.loads(json.dumps(obj)), json.loads(json.dumps(old))
        context = WriteContext(now="2026-01-01T00:00:00Z", subresource=subresource)
        row.strategy.default(new)
        row.strategy.default(before)
        if subresource:
            row.strategy.prepare_for_status_update(new, before, context)
            errors = row.strategy.validate_status_update(new, before)
        else:
            first = json.loads(json.dumps(new))
            row.strategy.prepare_for_create(first, context)
            row.strategy.validate(first)
            row.strategy.prepare_for_update(new, before, context)
            errors = row.strategy.validate_update(new, before)
        if errors:
            Invalid.fields(row.kind, row.group, "x", errors).status()
        row.strategy.warnings(new)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.group}/{row.version}/{row.plural}")
@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_defaults_of_what_has_its_defaults_change_nothing(row: Resource, seed: int) -> None:
    obj = any_object(row.type_name, random.Random(seed))
    row.strategy.default(obj)
    once = json.dumps(obj)
    row.strategy.default(obj)
    assert json.dumps(obj) == once


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.group}/{row.version}/{row.plural}")
@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_any_object_has_a_cell_for_every_column_and_a_value_for_every_field(row: Resource, seed: int) -> None:
    obj = any_object(row.type_name, random.Random(seed))
    cells = row.table.cells(obj, 1.8e9)
    assert len(cells) == len(row.table.columns)
    assert all(isinstance(cell, str | int | bool) for cell in cells)
    fields = row.selectable_fields(obj)
    assert set(row.field_names) <= set(fields)
    assert all(isinstance(value, str) for value in fields.values())
