"""Binding, eviction, deletion and scale: decisions about pods, without pods."""

from typing import Any

import pytest

from miniapiserver.errors import Conflict, PlainInternal, TooManyRequests
from miniapiserver.resources.pods.binding import bind, binding_errors
from miniapiserver.resources.pods.deletion import grace_for
from miniapiserver.resources.pods.eviction import decide, evicted
from miniapiserver.resources.scale import scale_errors, scale_from, scale_into
from tests.miniapiserver.resources.writes import NOW, words


def pod(**parts: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p1", "namespace": "n", "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    } | parts


def test_binding_assigns_an_unassigned_pod() -> None:
    binding = {"metadata": {"name": "p1"}, "target": {"kind": "Node", "name": "node-1"}}
    bound = bind(pod(status={"phase": "Pending"}), binding, NOW)
    assert bound["spec"]["nodeName"] == "node-1"
    assert bound["status"]["conditions"] == [
        {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": NOW}]
    with pytest.raises(Conflict) as refused:
        bind(bound, binding, NOW)
    assert refused.value.status() | {"metadata": {}} == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Conflict", "code": 409,
        "message": 'Operation cannot be fulfilled on pods/binding "p1": pod p1 is already assigned to node "node-1"',
        "details": {"name": "p1", "kind": "pods/binding"}}


def test_a_binding_names_a_node() -> None:
    assert words(binding_errors({"target": {"kind": "Rack"}})) == [
        'target.kind: Unsupported value: "Rack": supported values: "Node", "<empty>"', "target.name: Required value"]


@pytest.mark.parametrize(("changes", "options", "grace"), [
    ({}, {}, 0),  # nobody runs it
    ({"spec": {"nodeName": "n"}, "status": {"phase": "Succeeded"}}, {}, 0),
    ({"spec": {"nodeName": "n"}}, {}, 30),
    ({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}}, {}, 5),
    ({"spec": {"nodeName": "n"}}, {"gracePeriodSeconds": 7}, 7),
    ({"spec": {"nodeName": "n"}}, {"gracePeriodSeconds": 0}, 0),
])
def test_grace(changes: dict[str, Any], options: dict[str, Any], grace: int) -> None:
    assert grace_for(pod(**changes), options) == grace


def test_a_second_delete_may_only_hurry() -> None:
    going = pod(spec={"nodeName": "n"}, metadata={"deletionTimestamp": NOW, "deletionGracePeriodSeconds": 10})
    assert grace_for(going, {"gracePeriodSeconds": 60}) == 10
    assert grace_for(going, {"gracePeriodSeconds": 2}) == 2
    assert grace_for(going, {}) == 10


def budget(allowed: int, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "b", "namespace": "n", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "x"}}},
        "status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2}
        | status,
    }


def test_a_budget_pays_for_an_eviction() -> None:
    spent = decide(pod(), [budget(2)], NOW).budget
    assert spent is not None
    assert spent["status"]["disruptionsAllowed"] == 1
    assert spent["status"]["disruptedPods"] == {"p1": NOW}


def test_an_empty_budget_refuses() -> None:
    with pytest.raises(TooManyRequests) as refused:
        decide(pod(), [budget(0)], NOW)
    assert refused.value.message == "Cannot evict pod as it would violate the pod's disruption budget."
    assert refused.value.status()["details"] == {"causes": [{
        "reason": "DisruptionBudget", "message": "The disruption budget b needs 2 healthy pods and has 2 currently"}]}


def test_a_budget_that_was_not_looked_at_asks_for_patience() -> None:
    with pytest.raises(TooManyRequests) as refused:
        decide(pod(), [budget(1, observedGeneration=0)], NOW)
    assert refused.value.retry_after == 10


def test_two_budgets_are_one_too_many() -> None:
    with pytest.raises(PlainInternal, match="more than one PodDisruptionBudget"):
        decide(pod(), [budget(1), budget(1)], NOW)


@pytest.mark.parametrize(
    "free",
    [
        {"status": {"phase": "Pending"}},
        {"metadata": {"name": "p1", "deletionTimestamp": NOW}},
        {"metadata": {"name": "p1", "namespace": "elsewhere", "labels": {"app": "x"}}},
    ],
)
def test_a_pod_that_no_budget_protects(free: dict[str, Any]) -> None:
    assert decide(pod(**free), [budget(0)], NOW).budget is None


def test_an_unready_pod_may_go_while_the_rest_is_healthy() -> None:
    assert decide(pod(status={"phase": "Running"}), [budget(0)], NOW).budget is None
    with pytest.raises(TooManyRequests):
        decide(pod(status={"phase": "Running"}), [budget(0, currentHealthy=1)], NOW)


def test_an_evicted_pod_says_why() -> None:
    assert evicted(pod(), NOW)["status"]["conditions"][-1]["type"] == "DisruptionTarget"


def test_scale_shows_and_sets_replicas() -> None:
    deployment = {"metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}},
                  "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "x"}}}, "status": {"replicas": 2}}
    scale = scale_from(deployment)
    assert scale == {"kind": "Scale", "apiVersion": "autoscaling/v1",
                     "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7"},
                     "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "app=x"}}
    assert scale_into(deployment, {"spec": {"replicas": 5}})["spec"]["replicas"] == 5
    assert words(scale_errors({"spec": {"replicas": -1}})) == [
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0"]


def test_scale_of_a_replication_controller_reads_its_plain_selector() -> None:
    assert scale_from({"metadata": {"name": "r"}, "spec": {"selector": {"a": "b"}}})["status"]["selector"] == "a=b"
