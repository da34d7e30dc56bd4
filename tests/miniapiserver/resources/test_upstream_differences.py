"""Answers of a kube-apiserver 1.36.2 that ours once gave otherwise, found by asking both the same."""

from typing import Any

import pytest

from tests.miniapiserver.resources.writes import created, words

POD = {"containers": [{"name": "c", "image": "x"}]}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": POD}
SELECTOR = {"matchLabels": {"a": "b"}}


def test_a_default_request_is_the_default_limit_even_when_that_is_the_maximum() -> None:
    limits = [{"type": "Container", "max": {"cpu": "2"}}]
    obj, errors = created("limitranges", {"metadata": {"name": "l"}, "spec": {"limits": limits}})
    assert not errors
    assert obj["spec"]["limits"][0]["defaultRequest"] == {"cpu": "2"} == obj["spec"]["limits"][0]["default"]


def test_a_job_without_labels_has_those_of_its_pods() -> None:
    spec = {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {**POD, "restartPolicy": "Never"}}}
    obj, _ = created("jobs", {"metadata": {"name": "j"}, "spec": spec}, "batch")
    assert obj["metadata"]["labels"] == obj["spec"]["template"]["metadata"]["labels"]
    assert obj["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "j"
    obj, _ = created("jobs", {"metadata": {"name": "j", "labels": {"own": "1"}}, "spec": spec}, "batch")
    assert obj["metadata"]["labels"] == {"own": "1"}


def test_a_stateful_set_has_no_max_unavailable_while_its_gate_is_off() -> None:
    for rolling in ({}, {"maxUnavailable": 2}):
        spec = {"selector": SELECTOR, "template": TEMPLATE, "updateStrategy": {"rollingUpdate": rolling}}
        obj, _ = created("statefulsets", {"metadata": {"name": "s"}, "spec": spec}, "apps")
        assert obj["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}


def test_a_negative_grace_is_a_second() -> None:
    spec = {**POD, "terminationGracePeriodSeconds": -1}
    obj, errors = created("pods", {"metadata": {"name": "p"}, "spec": spec})
    assert not errors
    assert obj["spec"]["terminationGracePeriodSeconds"] == 1


@pytest.mark.parametrize(("target", "wrong"), [
    ({"kind": "Deployment", "name": "d"}, 'Invalid value: "": apiVersion must specify API group'),
    ({"kind": "Deployment", "name": "d", "apiVersion": "a/b/c"},
     'Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c'),
    ({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, ""),
    ({"kind": "ReplicationController", "name": "d", "apiVersion": "v1"}, ""),
])  # fmt: skip
def test_what_is_scaled_names_its_group(target: dict[str, Any], wrong: str) -> None:
    spec = {"scaleTargetRef": target, "maxReplicas": 2}
    _, errors = created("horizontalpodautoscalers", {"metadata": {"name": "h"}, "spec": spec}, "autoscaling")
    assert words(errors) == ([f"spec.scaleTargetRef.apiVersion: {wrong}"] if wrong else [])
