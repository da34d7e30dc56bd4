"""Bootstrap tokens sign and go, quotas are counted, aggregated roles are written out."""

import base64
from typing import Any

import pytest
import yaml
from objects import StillInformers

from certs.discovery import is_signed
from minicontroller.actions import After, Create, Delete, Update
from minicontroller.bootstraptokens import INFO, BootstrapSigner, TokenCleaner
from minicontroller.clusterroleaggregation import ClusterRoleAggregation
from minicontroller.resourcequota import ResourceQuotas, counted, needs_count

JSON = dict[str, Any]
NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z
SECRET = "0123456789abcdef"


def token(token_id: str = "abcdef", **changes: str) -> JSON:
    data = {"token-id": token_id, "token-secret": SECRET, "usage-bootstrap-signing": "true"} | changes
    return {"metadata": {"name": f"bootstrap-token-{token_id}", "namespace": "kube-system", "uid": f"u-{token_id}"},
            "type": "bootstrap.kubernetes.io/token",
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items() if value}}


def signer(*tokens: JSON) -> tuple[StillInformers, BootstrapSigner]:
    informers = StillInformers()
    controller = BootstrapSigner(informers, lambda: NOW, "https://api:6443", "CA\n")
    informers.put("secrets", *tokens)
    return informers, controller


def info(data: dict[str, str]) -> JSON:
    return {"metadata": {"name": "cluster-info", "namespace": "kube-public", "uid": "u"}, "data": data}


async def test_cluster_info_is_made_and_signed_by_every_token_that_may() -> None:
    _, controller = signer(token(), token("fedcba", **{"usage-bootstrap-signing": ""}))
    [made] = controller.plan(INFO)
    assert isinstance(made, Create)
    data = made.body["data"]
    assert set(data) == {"kubeconfig", "jws-kubeconfig-abcdef"}
    assert is_signed(data["kubeconfig"], data["jws-kubeconfig-abcdef"], "abcdef", SECRET)
    [cluster] = yaml.safe_load(data["kubeconfig"])["clusters"]
    assert cluster == {"name": "", "cluster": {"server": "https://api:6443", "certificate-authority-data": "Q0EK"}}


async def test_what_is_right_is_left_alone_and_what_changed_is_signed_again() -> None:
    informers, controller = signer(token())
    [made] = controller.plan(INFO)
    assert isinstance(made, Create)
    informers.put("configmaps", info(made.body["data"]))
    assert list(controller.plan(INFO)) == []
    informers.put("configmaps", info(made.body["data"] | {"kubeconfig": "somebody's own", "note": "kept"}))
    [update] = controller.plan(INFO)
    assert isinstance(update, Update)
    assert is_signed("somebody's own", update.body["data"]["jws-kubeconfig-abcdef"], "abcdef", SECRET)
    assert update.body["data"]["note"] == "kept"


@pytest.mark.parametrize("gone", [
    token(expiration="2023-11-14T22:13:20Z"), token(expiration="garbage"), token(**{"usage-bootstrap-signing": "yes"}),
    token(**{"token-id": "other1"}), {**token(), "metadata": token()["metadata"] | {"namespace": "default"}}])
async def test_a_signature_goes_with_its_token(gone: JSON) -> None:
    informers, controller = signer(gone)
    informers.put("configmaps", info({"kubeconfig": "k", "jws-kubeconfig-abcdef": "old"}))
    [update] = controller.plan(INFO)
    assert isinstance(update, Update)
    assert update.body["data"] == {"kubeconfig": "k"}


async def test_a_token_is_deleted_when_its_time_is_over_and_not_before() -> None:
    informers = StillInformers()
    controller = TokenCleaner(informers, lambda: NOW)
    informers.put("secrets", token("aaaaaa", expiration="2023-11-14T22:13:30Z"), token("bbbbbb"),
                  token("cccccc", expiration="2023-11-14T22:13:20Z"), token("dddddd", expiration="soon"))
    plans = {key[1][-6:]: list(controller.plan(key)) for key in informers.collections["secrets"].objects}
    assert plans["aaaaaa"] == [After(10.0)]
    assert plans["bbbbbb"] == []
    path = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-"
    assert plans["cccccc"] == [Delete(f"{path}cccccc", "u-cccccc")]
    assert plans["dddddd"] == [Delete(f"{path}dddddd", "u-dddddd")]


def quota_of(hard: JSON, status: JSON | None = None, **spec: Any) -> JSON:
    return {"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": hard} | spec, "status": status or {}}


def pod(name: str, cpu: str = "100m", phase: str = "Running") -> JSON:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu}}}
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {"containers": [container]},
            "status": {"phase": phase}}


def test_pods_that_have_ended_are_not_counted_except_as_objects() -> None:
    item = quota_of({"pods": "5", "requests.cpu": "2", "count/pods": "9"})
    used = counted(item, "pods", "", [pod("a"), pod("b", "1"), pod("c", phase="Succeeded")])
    assert used == {"pods": 2 * 10**9, "requests.cpu": 1100 * 10**6, "count/pods": 3 * 10**9}


def test_a_quota_is_counted_when_its_status_does_not_speak_of_its_spec() -> None:
    assert needs_count(quota_of({"pods": "1"}))
    assert needs_count(quota_of({"pods": "2"}, {"hard": {"pods": "1"}, "used": {"pods": "0"}}))
    assert not needs_count(quota_of({"pods": "1"}, {"hard": {"pods": "1"}, "used": {"pods": "0"}}))


async def test_a_charge_at_admission_is_no_reason_to_count_and_a_pod_that_went_is() -> None:
    informers = StillInformers()
    controller = ResourceQuotas(informers, lambda: NOW)
    settled = quota_of({"pods": "1"}, {"hard": {"pods": "1"}, "used": {"pods": "0"}})
    informers.put("resourcequotas", settled)
    assert await controller.queue.next() == ("ns", "q")
    informers.put("resourcequotas", settled | {"status": {"hard": {"pods": "1"}, "used": {"pods": "1"}}})
    informers.put("pods", pod("a"))
    assert not controller.queue._ready
    informers.put("pods", pod("a", phase="Failed"))
    assert await controller.queue.next() == ("ns", "q")


async def test_an_aggregated_role_is_written_out_once() -> None:
    informers = StillInformers()
    controller = ClusterRoleAggregation(informers)
    rule = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
    whole: JSON = {"metadata": {"name": "whole", "uid": "u"}, "rules": None, "aggregationRule": {
        "clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]}}
    parts = [{"metadata": {"name": name, "labels": {"part": part}}, "rules": [rule]}
             for name, part in (("a", "yes"), ("b", "yes"), ("c", "no"))]
    informers.put("clusterroles.rbac.authorization.k8s.io", whole, *parts)
    [update] = controller.plan(("", "whole"))
    assert isinstance(update, Update) and update.body["rules"] == [rule]
    informers.put("clusterroles.rbac.authorization.k8s.io", whole | {"rules": [rule]})
    assert list(controller.plan(("", "whole"))) == []
    assert list(controller.plan(("", "a"))) == []
