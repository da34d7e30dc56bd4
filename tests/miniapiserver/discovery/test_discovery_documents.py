"""Discovery documents of the built-in table. Expected entries were recorded from Kubernetes v1.36."""

import gzip
import hashlib
import json
from typing import Any

import pytest

from miniapiserver.endpoints.discovery import Documents, storage_version_hash
from miniapiserver.errors import NotAcceptable
from miniapiserver.resources.resource import TypeTable
from miniapiserver.resources.rows import all_rows

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
ALL = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@pytest.fixture
def table() -> TypeTable:
    return TypeTable(all_rows())


@pytest.fixture
def documents(table: TypeTable) -> Documents:
    return Documents(table, "192.0.2.2", 6443)


def body(documents: Documents, path: str, accept: str = "") -> Any:
    found = documents.answer(path, accept)
    assert found is not None
    return json.loads(found.body)


def entry(documents: Documents, path: str, name: str) -> Any:
    return next(item for item in body(documents, path)["resources"] if item["name"] == name)


def test_the_legacy_root_names_its_version_and_address(documents: Documents) -> None:
    assert body(documents, "/api") == {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "192.0.2.2:6443"}],
    }


def test_groups_come_in_kubernetes_order_with_their_preferred_version(documents: Documents) -> None:
    groups = body(documents, "/apis")["groups"]
    assert [group["name"] for group in groups[:4]] == [
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
    ]
    autoscaling = next(group for group in groups if group["name"] == "autoscaling")
    assert autoscaling == {
        "name": "autoscaling",
        "preferredVersion": {"groupVersion": "autoscaling/v2", "version": "v2"},
        "versions": [
            {"groupVersion": "autoscaling/v2", "version": "v2"},
            {"groupVersion": "autoscaling/v1", "version": "v1"},
        ],
    }
    assert body(documents, "/apis/autoscaling") == {"kind": "APIGroup", "apiVersion": "v1"} | autoscaling


def test_resources_are_listed_with_their_subresources_as_recorded(documents: Documents) -> None:
    assert entry(documents, "/api/v1", "pods") == {
        "name": "pods",
        "singularName": "pod",
        "namespaced": True,
        "kind": "Pod",
        "verbs": ALL,
        "shortNames": ["po"],
        "categories": ["all"],
        "storageVersionHash": "xPOwRZ+Yhw8=",
    }
    assert entry(documents, "/api/v1", "pods/eviction") == {
        "name": "pods/eviction",
        "singularName": "",
        "namespaced": True,
        "group": "policy",
        "version": "v1",
        "kind": "Eviction",
        "verbs": ["create"],
    }
    assert entry(documents, "/apis/apps/v1", "deployments/scale") == {
        "name": "deployments/scale",
        "singularName": "",
        "namespaced": True,
        "group": "autoscaling",
        "version": "v1",
        "kind": "Scale",
        "verbs": ["get", "patch", "update"],
    }
    assert "storageVersionHash" not in entry(documents, "/api/v1", "componentstatuses")


def test_names_are_sorted_and_the_core_list_has_no_api_version(documents: Documents) -> None:
    core, apps = body(documents, "/api/v1"), body(documents, "/apis/apps/v1")
    assert ("apiVersion" in core, apps["apiVersion"]) == (False, "v1")
    for listed in (core, apps):
        names = [item["name"].split("/")[0] for item in listed["resources"]]
        assert names == sorted(names)


def test_storage_version_hashes_name_the_stored_kind(documents: Documents) -> None:
    assert storage_version_hash("apps", "v1", "Deployment") == "8aSe+NMegvE="
    stored = entry(documents, "/apis/autoscaling/v2", "horizontalpodautoscalers")["storageVersionHash"]
    converted = entry(documents, "/apis/autoscaling/v1", "horizontalpodautoscalers")["storageVersionHash"]
    assert stored == converted == "qwQve8ut294="


@pytest.mark.parametrize("path", ["/apis/nope", "/api/v9", "/apis/apps/v9", "/apis/a/b/c/d"])
def test_what_is_not_served_has_no_document(documents: Documents, path: str) -> None:
    assert documents.answer(path, "") is None


def test_unknown_paths_do_not_fill_the_memory(documents: Documents) -> None:
    for number in range(2000):
        documents.answer(f"/apis/nope{number}", "")
    assert len(documents._documents) <= 501


def test_the_aggregated_document_says_all_at_once(documents: Documents) -> None:
    found = documents.answer("/apis", f"{V2},{V2BETA1},application/json")
    assert found is not None
    assert found.content_type == V2
    assert found.etag == f'"{hashlib.sha512(found.body).hexdigest().upper()}"'
    assert found.gzipped is not None and gzip.decompress(found.gzipped) == found.body
    parsed = json.loads(found.body)
    assert (parsed["kind"], parsed["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    apps = next(item for item in parsed["items"] if item["metadata"]["name"] == "apps")
    assert apps["versions"][0]["freshness"] == "Current"
    deployments = next(item for item in apps["versions"][0]["resources"] if item["resource"] == "deployments")
    assert deployments == {
        "resource": "deployments",
        "responseKind": {"group": "", "kind": "Deployment", "version": ""},
        "scope": "Namespaced",
        "singularResource": "deployment",
        "shortNames": ["deploy"],
        "categories": ["all"],
        "verbs": ALL,
        "subresources": [
            {
                "subresource": "scale",
                "responseKind": {"group": "autoscaling", "kind": "Scale", "version": "v1"},
                "verbs": ["get", "patch", "update"],
            },
            {
                "subresource": "status",
                "responseKind": {"group": "", "kind": "Deployment", "version": ""},
                "verbs": ["get", "patch", "update"],
            },
        ],
    }


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (V2BETA1, "APIGroupDiscoveryList"),
        (f"{V2BETA1},application/json", "APIGroupDiscoveryList"),
        ("", "APIGroupList"),
        ("*/*", "APIGroupList"),
        ("application/json, */*", "APIGroupList"),
        ("application/vnd.kubernetes.protobuf,application/json", "APIGroupList"),
        (f"{V2.replace('v=v2', 'v=v7')},application/json", "APIGroupList"),
    ],
)
def test_each_client_gets_the_first_form_it_names(documents: Documents, accept: str, kind: str) -> None:
    assert body(documents, "/apis", accept)["kind"] == kind


@pytest.mark.parametrize(
    "accept", ["application/json;as=BogusForm", V2.replace("v=v2", "v=v7"), "text/html", "application/json;v=v2"]
)
def test_a_form_nobody_knows_is_406(documents: Documents, accept: str) -> None:
    with pytest.raises(NotAcceptable):
        documents.answer("/apis", accept)


def test_a_changed_table_changes_the_documents(documents: Documents, table: TypeTable) -> None:
    assert any(item["name"] == "leases" for item in body(documents, "/apis/coordination.k8s.io/v1")["resources"])
    table.remove("coordination.k8s.io", "v1", "leases")
    assert documents.answer("/apis/coordination.k8s.io/v1", "") is None
