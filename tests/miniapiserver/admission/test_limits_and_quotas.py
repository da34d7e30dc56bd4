"""LimitRanges, quotas and classes: what they set, what they refuse, and what they let pass."""

from typing import Any

import pytest
from admission_world import Stored, asked, creation, pod, wants

from miniapiserver.admission.interface import Operation
from miniapiserver.admission.limitranger import LimitRanger
from miniapiserver.admission.resourcequota import charge
from miniapiserver.admission.runtimeclasses import RuntimeClass
from miniapiserver.admission.storageclasses import DefaultStorageClass
from miniapiserver.errors import Forbidden
from wire import quota

JSON = dict[str, Any]


def ranger(**limit: Any) -> LimitRanger:
    return LimitRanger(Stored({("limitranges", "ns", "l"): {"metadata": {"name": "l"}, "spec": {
        "limits": [{"type": "Container"} | limit]}}}))


async def refusal(plugin: Any, attributes: Any) -> str:
    with pytest.raises(Forbidden) as error:
        await plugin.validate(attributes)
    return error.value.message


async def test_what_a_container_leaves_open_the_limit_range_sets() -> None:
    one = pod(containers=[wants(), wants({"cpu": "1"}, name="d")])
    await ranger(default={"cpu": "2"}, defaultRequest={"cpu": "100m"}).admit(creation("pods", one))
    assert [item["resources"] for item in one["spec"]["containers"]] == [
        {"requests": {"cpu": "100m"}, "limits": {"cpu": "2"}}, {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}]
    assert one["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c; cpu limit for container d")


async def test_updates_of_pods_are_left_alone() -> None:
    one = pod()
    await ranger(default={"cpu": "2"}).admit(asked(Operation.UPDATE, "pods", one, pod()))
    assert one == pod()


@pytest.mark.parametrize(("limit", "container", "why"), [
    ({"max": {"cpu": "1"}}, wants({"cpu": "1"}, {"cpu": "2"}),
     "maximum cpu usage per Container is 1, but limit is 2"),
    ({"max": {"cpu": "1"}}, wants({"cpu": "1"}), "maximum cpu usage per Container is 1.  No limit is specified"),
    ({"min": {"cpu": "1"}}, wants({"cpu": "500m"}), "minimum cpu usage per Container is 1, but request is 500m"),
    ({"min": {"cpu": "1"}}, wants(), "minimum cpu usage per Container is 1.  No request is specified"),
    ({"maxLimitRequestRatio": {"cpu": "2"}}, wants({"cpu": "1"}, {"cpu": "3"}),
     "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000")])
async def test_a_container_beyond_its_limits_is_refused(limit: JSON, container: JSON, why: str) -> None:
    attributes = creation("pods", pod(containers=[container]))
    assert await refusal(ranger(**limit), attributes) == f'pods "p" is forbidden: {why}'


async def test_a_container_within_its_limits_passes() -> None:
    plugin = ranger(min={"cpu": "1"}, max={"cpu": "4"}, maxLimitRequestRatio={"cpu": "2"})
    await plugin.validate(creation("pods", pod(containers=[wants({"cpu": "2"}, {"cpu": "4"})])))


async def test_a_pods_limit_is_about_the_sum_of_its_containers() -> None:
    plugin = ranger(type="Pod", max={"memory": "100Mi"})
    half = wants({"memory": "60Mi"}, {"memory": "60Mi"})
    await plugin.validate(creation("pods", pod(containers=[half])))
    assert "maximum memory usage per Pod is 100Mi, but limit is 120Mi" in await refusal(
        plugin, creation("pods", pod(containers=[half, half])))


async def test_a_claim_asks_for_no_more_than_its_limit() -> None:
    plugin = ranger(type="PersistentVolumeClaim", max={"storage": "1Gi"})

    def claim(storage: str) -> JSON:
        return {"metadata": {"name": "c", "namespace": "ns"}, "spec": {"resources": {"requests": {"storage": storage}}}}

    await plugin.validate(creation("persistentvolumeclaims", claim("1Gi")))
    assert "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi" in await refusal(
        plugin, creation("persistentvolumeclaims", claim("2Gi")))


def few(used: JSON, hard: JSON, **spec: Any) -> JSON:
    return {"metadata": {"name": "few"}, "spec": {"hard": hard} | spec, "status": {"hard": hard, "used": used}}


def charged(item: JSON, obj: JSON) -> JSON | None:
    attributes = creation("pods", obj)
    after = charge(item, attributes, quota.usage("pods", "", obj))
    used: JSON | None = after and after["status"]["used"]
    return used


def test_a_pod_is_charged_before_it_exists() -> None:
    hard = {"pods": "2", "requests.memory": "1Gi", "secrets": "1"}
    used = {"pods": "1", "requests.memory": "64Mi", "secrets": "0"}
    assert charged(few(used, hard), pod(containers=[wants({"memory": "64Mi"})])) == {
        "pods": "2", "requests.memory": "128Mi", "secrets": "0"}


@pytest.mark.parametrize(("used", "hard", "container", "why"), [
    ({"pods": "2"}, {"pods": "2"}, wants(),
     "exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2"),
    ({"requests.cpu": "1500m"}, {"requests.cpu": "2"}, wants({"cpu": "1"}),
     "exceeded quota: few, requested: requests.cpu=1, used: requests.cpu=1500m, limited: requests.cpu=2"),
    ({"limits.memory": "0"}, {"limits.memory": "1Gi"}, wants({"memory": "1Mi"}),
     "failed quota: few: must specify limits.memory for: c"),
    ({}, {"pods": "2"}, wants(), "status unknown for quota: few, resources: pods")])
def test_what_does_not_fit_is_refused_in_upstreams_words(used: JSON, hard: JSON, container: JSON, why: str) -> None:
    with pytest.raises(Forbidden) as error:
        charged(few(used, hard), pod(containers=[container]))
    assert error.value.message == f'pods "p" is forbidden: {why}'


@pytest.mark.parametrize(("scope", "obj", "counts"), [
    ("BestEffort", pod(), True), ("BestEffort", pod(containers=[wants({"cpu": "1"})]), False),
    ("NotBestEffort", pod(), False), ("Terminating", pod(activeDeadlineSeconds=5), True),
    ("Terminating", pod(), False), ("NotTerminating", pod(), True)])
def test_a_quota_counts_only_pods_in_its_scope(scope: str, obj: JSON, counts: bool) -> None:
    assert (charged(few({"pods": "0"}, {"pods": "1"}, scopes=[scope]), obj) is not None) == counts


def test_a_pod_that_has_ended_is_only_an_object() -> None:
    assert quota.usage("pods", "", pod() | {"status": {"phase": "Failed"}}) == {"count/pods": quota.ONE}


def test_init_containers_count_as_the_largest_of_them_and_sidecars_with_the_rest() -> None:
    sidecar = wants({"cpu": "1"}, name="s") | {"restartPolicy": "Always"}
    one = pod(containers=[wants({"cpu": "1"})], initContainers=[sidecar, wants({"cpu": "5"}, name="i")])
    assert quota.usage("pods", "", one)["requests.cpu"] == 6 * quota.ONE


def test_a_load_balancer_counts_its_node_ports() -> None:
    service = {"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}}
    used = quota.usage("services", "", service)
    assert (used["services.nodeports"], used["services.loadbalancers"]) == (2 * quota.ONE, quota.ONE)


async def test_a_claim_without_a_class_gets_the_default_one() -> None:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    classes: dict[tuple[str, str, str], JSON] = {
        ("storageclasses.storage.k8s.io", "", name): {"metadata": {
            "name": name, "creationTimestamp": created, "annotations": annotations}}
        for name, created in (("old", "2020-01-01T00:00:00Z"), ("new", "2024-01-01T00:00:00Z"))}
    plugin = DefaultStorageClass(Stored(classes))
    claim: JSON = {"metadata": {"name": "c", "namespace": "ns"}, "spec": {}}
    await plugin.admit(creation("persistentvolumeclaims", claim))
    assert claim["spec"] == {"storageClassName": "new"}
    none: JSON = {"metadata": {"name": "c", "namespace": "ns"}, "spec": {"storageClassName": ""}}
    await plugin.admit(creation("persistentvolumeclaims", none))
    assert none["spec"] == {"storageClassName": ""}


async def test_overhead_comes_from_the_runtime_class_and_from_nobody_else() -> None:
    plugin = RuntimeClass(Stored({("runtimeclasses.node.k8s.io", "", "vm"): {
        "metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}}}}))
    one = pod(runtimeClassName="vm")
    await plugin.admit(creation("pods", one))
    assert (one["spec"]["overhead"], one["spec"]["nodeSelector"]) == ({"cpu": "250m"}, {"vm": "yes"})
    assert "without corresponding RuntimeClass" in await refusal(
        plugin, creation("pods", pod(overhead={"cpu": "1"})))
    with pytest.raises(Forbidden, match="not found"):
        await plugin.admit(creation("pods", pod(runtimeClassName="other")))
