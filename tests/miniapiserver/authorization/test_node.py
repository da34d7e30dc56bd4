"""What a kubelet may reach: each refusal with its twin."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization.graph import NodeGraph
from miniapiserver.authorization.interface import Attributes, Decision, Verdict
from miniapiserver.authorization.node import NodeAuthorizer
from miniapiserver.storage.sqlite import SQLiteStorage
from miniapiserver.watchcache import WatchCache, WatchCaches

JSON = dict[str, Any]

POD: JSON = {
    "serviceAccountName": "robot", "imagePullSecrets": [{"name": "pull"}],
    "initContainers": [
        {"name": "i", "envFrom": [{"secretRef": {"name": "from"}}, {"configMapRef": {"name": "cfrom"}}]}],
    "containers": [{"name": "c", "env": [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cenv", "key": "k"}}}]}],
    "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "debug"}}]}],
    "volumes": [{"name": "s", "secret": {"secretName": "vol"}}, {"name": "m", "configMap": {"name": "cvol"}},
                {"name": "p", "projected": {
                    "sources": [{"secret": {"name": "proj"}}, {"configMap": {"name": "cproj"}}]}},
                {"name": "csi", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}],
    "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}, {"name": "made", "resourceClaimTemplateName": "t"}]}

REACHED = [("secrets", name) for name in ("pull", "from", "env", "debug", "vol", "proj", "csi")] + [
    ("configmaps", name) for name in ("cfrom", "cenv", "cvol", "cproj")] + [
    ("persistentvolumeclaims", "claim"), ("persistentvolumeclaims", "p1-scratch"), ("serviceaccounts", "robot"),
    ("resourceclaims", "gpu"), ("resourceclaims", "p1-made")]


class Cluster:
    """Node n1 runs pod p1; the caches feed the graph as in the server."""

    def __init__(self, caches: WatchCaches) -> None:
        self.caches = {name: caches.cache(name, lambda obj: {}) for name in NodeGraph.RESOURCES}
        self.authorizer = NodeAuthorizer(NodeGraph(self.caches))

    async def put(self, storage: str, metadata: JSON, **content: Any) -> None:
        cache: WatchCache = self.caches[storage]
        key = cache.key(metadata.get("namespace", ""), metadata["name"])
        value = orjson.dumps({"kind": "X", "apiVersion": "v1", "metadata": metadata} | content)
        held = cache.get(key)
        if held is None:
            await cache.create(key, value)
        else:
            await cache.update(key, value, expected=held.revision)

    async def pod(self, name: str, node: str, **more: Any) -> None:
        await self.put("pods", {"name": name, "namespace": "default"} | more.pop("metadata", {}),
                       spec=POD | {"nodeName": node},
                       status={"resourceClaimStatuses": [{"name": "made", "resourceClaimName": "p1-made"}]})

    async def ask(self, verb: str, resource: str, name: str = "", *, node: str = "n1", namespace: str = "default",
                  **more: str) -> Verdict:
        group = GROUPS.get(resource, "")
        user = UserInfo(f"system:node:{node}", groups=("system:nodes", "system:authenticated"))
        return await self.authorizer.authorize(Attributes(
            user, verb, True, namespace, group, "v1", resource, name=name, **more))

    async def may(self, verb: str, resource: str, name: str = "", **more: str) -> bool:
        return (await self.ask(verb, resource, name, **more)).decision is Decision.ALLOW


GROUPS = {"leases": "coordination.k8s.io", "csinodes": "storage.k8s.io", "volumeattachments": "storage.k8s.io",
          "resourceclaims": "resource.k8s.io", "resourceslices": "resource.k8s.io",
          "certificatesigningrequests": "certificates.k8s.io", "tokenreviews": "authentication.k8s.io"}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with SQLiteStorage(tmp_path / "state.db") as storage, WatchCaches(storage) as caches:
        made = Cluster(caches)
        await made.authorizer._graph.start()
        await made.pod("p1", "n1")
        yield made


@pytest.mark.parametrize(("resource", "name"), REACHED)
async def test_a_node_reaches_what_its_pods_name_and_no_other_node_does(
        cluster: Cluster, resource: str, name: str) -> None:
    assert await cluster.may("get", resource, name)
    refused = await cluster.ask("get", resource, name, node="n2")
    assert (refused.decision, refused.reason) == (
        Decision.NO_OPINION, "no relationship found between node 'n2' and this object")
    assert not await cluster.may("get", resource, name, namespace="other")
    assert not await cluster.may("get", resource, "unknown")


async def test_only_named_secrets_can_be_listed_and_watched(cluster: Cluster) -> None:
    assert await cluster.may("watch", "secrets", "vol")
    assert await cluster.may("list", "configmaps", "cvol")
    assert (await cluster.ask("list", "secrets")).reason == "No Object name found"
    assert (await cluster.ask("list", "secrets", "vol", namespace="")).reason == (
        "can only read namespaced object of this type")
    assert (await cluster.ask("update", "secrets", "vol")).reason == "can only read resources of this type"
    assert (await cluster.ask("get", "secrets", "vol", subresource="x")).reason == "cannot read subresource"


async def test_access_ends_with_the_pod_and_moves_with_it(cluster: Cluster) -> None:
    await cluster.pod("p2", "n2")
    assert await cluster.may("get", "secrets", "vol", node="n2")
    pods = cluster.caches["pods"]
    held = pods.get(pods.key("default", "p1"))
    assert held
    await pods.delete(held.key, expected=held.revision)
    assert not await cluster.may("get", "secrets", "vol")
    assert await cluster.may("get", "secrets", "vol", node="n2")


async def test_a_pod_without_a_node_opens_nothing(cluster: Cluster) -> None:
    await cluster.put("pods", {"name": "p3", "namespace": "new"}, spec=POD)
    assert not await cluster.may("get", "secrets", "vol", namespace="new")
    await cluster.put("pods", {"name": "p3", "namespace": "new"}, spec=POD | {"nodeName": "n1"})
    assert await cluster.may("get", "secrets", "vol", namespace="new")


async def test_a_mirror_pod_opens_nothing_but_itself(cluster: Cluster) -> None:
    await cluster.pod("mirror", "n3", metadata={"annotations": {"kubernetes.io/config.mirror": "x"}})
    assert not await cluster.may("get", "secrets", "vol", node="n3")
    assert await cluster.may("get", "pods", "mirror", node="n3")
    await cluster.pod("plain", "n3")
    assert await cluster.may("get", "secrets", "vol", node="n3")


async def test_volumes_are_reached_through_their_claims(cluster: Cluster) -> None:
    spec = {"claimRef": {"namespace": "default", "name": "claim"}, "csi": {
        "driver": "d", "nodeStageSecretRef": {"name": "stage", "namespace": "storage"},
        "controllerPublishSecretRef": {"name": "controller", "namespace": "storage"}}}
    await cluster.put("persistentvolumes", {"name": "pv"}, spec=spec)
    assert await cluster.may("get", "persistentvolumes", "pv", namespace="")
    assert await cluster.may("get", "secrets", "stage", namespace="storage")
    assert not await cluster.may("get", "secrets", "controller", namespace="storage")
    assert not await cluster.may("get", "persistentvolumes", "pv", namespace="", node="n2")
    assert (await cluster.ask("list", "persistentvolumes", namespace="")).reason == (
        "can only get individual resources of this type")


async def test_attachments_and_slices_belong_to_the_node_they_name(cluster: Cluster) -> None:
    await cluster.put("volumeattachments.storage.k8s.io", {"name": "va"}, spec={"nodeName": "n1"})
    await cluster.put("resourceslices.resource.k8s.io", {"name": "sl"}, spec={"nodeName": "n1"})
    for verb, resource, name in (("get", "volumeattachments", "va"), ("update", "resourceslices", "sl")):
        assert await cluster.may(verb, resource, name, namespace="")
        assert not await cluster.may(verb, resource, name, namespace="", node="n2")
    assert await cluster.may("deletecollection", "resourceslices", namespace="", field_selector="spec.nodeName=n1")
    assert not await cluster.may("deletecollection", "resourceslices", namespace="", field_selector="spec.nodeName=n2")
    assert not await cluster.may("deletecollection", "resourceslices", namespace="")


async def test_pods_can_be_listed_by_ones_own_node_name_only(cluster: Cluster) -> None:
    assert await cluster.may("list", "pods", namespace="", field_selector="spec.nodeName=n1")
    assert await cluster.may("watch", "pods", namespace="", field_selector="status.phase!=Failed,spec.nodeName==n1")
    for selector in ("", "spec.nodeName=n2", "spec.nodeName!=n1", "metadata.name=x", "spec.nodeName=n1\\,x", "garbage"):
        refused = await cluster.ask("list", "pods", namespace="", field_selector=selector)
        assert refused.reason == "can only list/watch pods with spec.nodeName field selector"
    assert await cluster.may("get", "pods", "p1")
    assert await cluster.may("list", "pods", "p1", field_selector="metadata.name=p1")
    assert not await cluster.may("get", "pods", "p1", node="n2")
    assert not await cluster.may("deletecollection", "pods")
    assert not await cluster.may("update", "pods", "p1")
    assert not await cluster.may("create", "pods", "p1", subresource="exec")


async def test_a_node_reads_only_its_own_node(cluster: Cluster) -> None:
    assert await cluster.may("get", "nodes", "n1", namespace="")
    assert (await cluster.ask("get", "nodes", "n2", namespace="")).reason == (
        "node 'n1' cannot read 'n2', only its own Node object")
    assert (await cluster.ask("list", "nodes", namespace="")).reason == (
        "node 'n1' cannot read all nodes, only its own Node object")
    assert await cluster.may("patch", "nodes", "n1", namespace="", subresource="status")
    assert not await cluster.may("delete", "nodes", "n1", namespace="")
    assert not await cluster.may("get", "nodes", "n1", namespace="", subresource="proxy")


async def test_a_lease_is_the_nodes_own_in_its_namespace(cluster: Cluster) -> None:
    assert await cluster.may("update", "leases", "n1", namespace="kube-node-lease")
    assert await cluster.may("create", "leases", namespace="kube-node-lease")
    assert (await cluster.ask("update", "leases", "n2", namespace="kube-node-lease")).reason == (
        "can only access node lease with the same name as the requesting node")
    assert (await cluster.ask("get", "leases", "n1", namespace="kube-system")).reason == (
        'can only access leases in the "kube-node-lease" system namespace')
    assert not await cluster.may("list", "leases", namespace="kube-node-lease")


async def test_tokens_are_made_for_accounts_of_ones_own_pods(cluster: Cluster) -> None:
    assert await cluster.may("create", "serviceaccounts", "robot", subresource="token")
    assert not await cluster.may("create", "serviceaccounts", "robot", subresource="token", node="n2")
    assert not await cluster.may("create", "serviceaccounts", "other", subresource="token")
    assert not await cluster.may("create", "serviceaccounts", "robot")
    assert not await cluster.may("delete", "serviceaccounts", "robot")


async def test_claim_status_is_written_for_ones_own_claims(cluster: Cluster) -> None:
    assert await cluster.may("patch", "persistentvolumeclaims", "claim", subresource="status")
    assert not await cluster.may("patch", "persistentvolumeclaims", "claim", subresource="status", node="n2")
    assert not await cluster.may("patch", "persistentvolumeclaims", "claim")


async def test_other_resources_follow_the_fixed_rules(cluster: Cluster) -> None:
    assert await cluster.may("create", "certificatesigningrequests", namespace="")
    assert await cluster.may("create", "tokenreviews", namespace="")
    assert await cluster.may("list", "services", namespace="")
    assert not await cluster.may("create", "services")
    assert not await cluster.may("create", "certificatesigningrequests", namespace="", subresource="approval")
    assert await cluster.may("get", "csinodes", "n1", namespace="")
    assert not await cluster.may("get", "csinodes", "n2", namespace="")


@pytest.mark.parametrize(("name", "groups"), [
    ("system:node:n1", ("system:authenticated",)), ("n1", ("system:nodes",)), ("admin", ("system:masters",))])
async def test_only_a_node_by_name_and_group_is_a_node(
        cluster: Cluster, name: str, groups: tuple[str, ...]) -> None:
    asked = Attributes(UserInfo(name, groups=groups), "get", namespace="default", resource="secrets", name="vol")
    assert await cluster.authorizer.authorize(asked) == Verdict(Decision.NO_OPINION)
    twin = Attributes(UserInfo("system:node:n1", groups=("system:nodes",)), "get", namespace="default",
                      resource="secrets", name="vol")
    assert (await cluster.authorizer.authorize(twin)).decision is Decision.ALLOW


async def test_a_node_without_a_name_is_nobody(cluster: Cluster) -> None:
    verdict = await cluster.ask("get", "secrets", "vol", node="")
    assert (verdict.decision, verdict.reason) == (Decision.NO_OPINION, 'unknown node for user "system:node:"')


async def test_a_nodes_rules_cannot_be_listed(cluster: Cluster) -> None:
    found = cluster.authorizer.rules_for(UserInfo("system:node:n1", groups=("system:nodes",)), "default")
    assert (found.incomplete, found.error) == (True, "node authorizer does not support user rule resolution")
    assert not cluster.authorizer.rules_for(UserInfo("ada"), "default").incomplete


async def test_caches_that_were_reset_are_read_again(cluster: Cluster) -> None:
    assert await cluster.may("get", "secrets", "vol")
    pods = cluster.caches["pods"]
    pods.reset()
    assert await cluster.may("get", "secrets", "vol")
