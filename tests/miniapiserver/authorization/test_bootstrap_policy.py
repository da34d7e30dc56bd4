"""The default policy as objects, and how it is put back."""

from copy import deepcopy
from typing import Any

import pytest

from miniapiserver.authorization import bootstrap_policy
from miniapiserver.authorization.bootstrap_policy import reconcile

JSON = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"


def by_name(plural: str) -> dict[str, JSON]:
    objects = bootstrap_policy.objects()[f"{plural}.{GROUP}"]
    return {f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}".removeprefix("/"): obj
            for obj in objects}


def test_every_default_is_marked_and_kubeadms_are_not() -> None:
    for objects in bootstrap_policy.objects().values():
        for obj in objects:
            marked = (obj["metadata"].get("labels") or {}).get("kubernetes.io/bootstrapping") == "rbac-defaults"
            updated = obj["metadata"].get("annotations") == {"rbac.authorization.kubernetes.io/autoupdate": "true"}
            assert marked is updated is not obj["metadata"]["name"].startswith("kubeadm:")


def test_names_are_unique_and_every_binding_finds_its_role() -> None:
    for storage, objects in bootstrap_policy.objects().items():
        names = [(obj["metadata"].get("namespace"), obj["metadata"]["name"]) for obj in objects]
        assert len(set(names)) == len(names), storage
    cluster_roles, roles = by_name("clusterroles"), by_name("roles")
    for obj in [*by_name("clusterrolebindings").values(), *by_name("rolebindings").values()]:
        reference = obj["roleRef"]
        where = cluster_roles if reference["kind"] == "ClusterRole" else roles
        prefix = "" if reference["kind"] == "ClusterRole" else obj["metadata"]["namespace"] + "/"
        assert prefix + reference["name"] in where


def test_lists_in_rules_are_sorted_as_upstream_sorts_them() -> None:
    for obj in [*by_name("clusterroles").values(), *by_name("roles").values()]:
        for rule in obj["rules"]:
            assert all(values == sorted(values) and values for values in rule.values())


def test_aggregated_roles_carry_their_union_and_their_labels() -> None:
    roles = by_name("clusterroles")
    view, edit, admin = roles["view"], roles["edit"], roles["admin"]
    assert view["rules"] == roles["system:aggregate-to-view"]["rules"]
    assert all(rule in edit["rules"] for rule in view["rules"])
    assert all(rule in admin["rules"] for rule in edit["rules"])
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert admin["aggregationRule"] == {"clusterRoleSelectors": [
        {"matchLabels": {"rbac.authorization.k8s.io/aggregate-to-admin": "true"}}]}


def test_fresh_objects_every_time() -> None:
    by_name("clusterroles")["cluster-admin"]["rules"].clear()
    assert by_name("clusterroles")["cluster-admin"]["rules"]


@pytest.fixture
def wanted() -> JSON:
    return by_name("clusterroles")["system:node-problem-detector"]


def test_what_is_whole_stays_as_it_is(wanted: JSON) -> None:
    found = deepcopy(wanted)
    found["metadata"] |= {"uid": "u", "resourceVersion": "5"}
    assert reconcile(found, wanted) is None


def test_missing_rules_labels_and_annotations_come_back_and_extra_ones_stay(wanted: JSON) -> None:
    extra = {"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"]}
    found = deepcopy(wanted) | {"rules": [extra]}
    found["metadata"] |= {"labels": {"mine": "x"}, "annotations": {"note": "y"}}
    result = reconcile(found, wanted)
    assert result is not None
    assert result["rules"][0] == extra
    assert {"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]} in result["rules"]
    assert result["metadata"]["labels"] == {"mine": "x", "kubernetes.io/bootstrapping": "rbac-defaults"}
    assert result["metadata"]["annotations"] == {
        "note": "y", "rbac.authorization.kubernetes.io/autoupdate": "true"}
    assert reconcile(result, wanted) is None


def test_a_role_that_opted_out_is_left_alone(wanted: JSON) -> None:
    found = deepcopy(wanted) | {"rules": []}
    found["metadata"]["annotations"] = {"rbac.authorization.kubernetes.io/autoupdate": "false"}
    assert reconcile(found, wanted) is None
    del found["metadata"]["annotations"]
    assert reconcile(found, wanted) is not None


def test_missing_subjects_come_back() -> None:
    wanted = by_name("clusterrolebindings")["system:public-info-viewer"]
    found = deepcopy(wanted)
    found["subjects"] = [{"kind": "User", "name": "x", "apiGroup": GROUP}]
    result = reconcile(found, wanted)
    assert result is not None
    assert [subject["name"] for subject in result["subjects"]] == [
        "x", "system:authenticated", "system:unauthenticated"]


def test_kubeadms_objects_are_made_once_and_never_put_back() -> None:
    wanted = by_name("clusterrolebindings")["kubeadm:kubelet-bootstrap"]
    assert reconcile(deepcopy(wanted) | {"subjects": []}, wanted) is None
