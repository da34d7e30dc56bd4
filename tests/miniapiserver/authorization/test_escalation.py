"""Nobody grants what he does not have; each refusal with its twin."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rbac_world import World, rule, user

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization.always import AlwaysAllow
from miniapiserver.authorization.escalation import EscalationCheck
from miniapiserver.errors import Forbidden, NotFound

JSON = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"
ADA = UserInfo("ada", groups=("staff", "system:authenticated"))


@pytest.fixture
def world() -> World:
    """Ada may read pods everywhere, and everything about deployments in `here`."""
    made = World()
    made.cluster_role("reader", rule("get list", "pods"))
    made.role("here", "deployer", rule("*", "deployments", "apps"))
    made.bind("b", "ClusterRole", "reader", user("ada"))
    made.bind("rb", "Role", "deployer", user("ada"), namespace="here")
    return made


def cluster_role(*rules: JSON, **more: Any) -> JSON:
    return {"metadata": {"name": "new"}, "rules": list(rules)} | more


def role(namespace: str, *rules: JSON) -> JSON:
    return {"metadata": {"name": "new", "namespace": namespace}, "rules": list(rules)}


def binding(kind: str, name: str, namespace: str = "") -> JSON:
    metadata = {"name": "new", "namespace": namespace} if namespace else {"name": "new"}
    return {"metadata": metadata, "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name}, "subjects": [user("x")]}


async def check(world: World, resource: str, obj: JSON, old: JSON | None = None, who: UserInfo = ADA) -> None:
    await EscalationCheck(world.rbac, world.rbac).check(who, resource, obj, old)


async def test_a_role_of_ones_own_rules_may_be_made(world: World) -> None:
    await check(world, "clusterroles", cluster_role(rule("get", "pods")))
    await check(world, "roles", role("here", rule("delete", "deployments", "apps"), rule("list", "pods")))
    await check(world, "clusterroles", cluster_role())


async def test_a_role_of_more_is_refused_in_upstreams_words(world: World) -> None:
    wanted = cluster_role(rule("get list watch delete", "pods"), rule("get", "secrets", names="s"),
                          {"verbs": ["get"], "nonResourceURLs": ["/metrics"]})
    with pytest.raises(Forbidden) as error:
        await check(world, "clusterroles", wanted)
    assert error.value.message == (
        'clusterroles.rbac.authorization.k8s.io "new" is forbidden: user "ada" (groups=["staff" '
        '"system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
        '{APIGroups:[""], Resources:["pods"], Verbs:["watch" "delete"]}\n'
        '{APIGroups:[""], Resources:["secrets"], ResourceNames:["s"], Verbs:["get"]}\n'
        '{NonResourceURLs:["/metrics"], Verbs:["get"]}')


async def test_what_is_held_in_one_namespace_is_not_held_in_another(world: World) -> None:
    with pytest.raises(Forbidden):
        await check(world, "roles", role("there", rule("get", "deployments", "apps")))
    with pytest.raises(Forbidden):
        await check(world, "clusterroles", cluster_role(rule("get", "deployments", "apps")))


async def test_named_objects_do_not_cover_all_of_them(world: World) -> None:
    world.cluster_role("reader", rule("get", "pods", names="a b"))
    await check(world, "clusterroles", cluster_role(rule("get", "pods", names="a")))
    with pytest.raises(Forbidden):
        await check(world, "clusterroles", cluster_role(rule("get", "pods")))
    with pytest.raises(Forbidden):
        await check(world, "clusterroles", cluster_role(rule("get", "pods", names="c")))


async def test_a_wildcard_is_covered_by_a_wildcard_only(world: World) -> None:
    with pytest.raises(Forbidden):
        await check(world, "clusterroles", cluster_role(rule("*", "pods")))
    world.cluster_role("reader", rule("*", "pods"))
    await check(world, "clusterroles", cluster_role(rule("*", "pods")))
    world.cluster_role("reader", rule("*", "*/log"))
    await check(world, "clusterroles", cluster_role(rule("get", "pods/log")))
    with pytest.raises(Forbidden):
        await check(world, "clusterroles", cluster_role(rule("get", "log")))


async def test_masters_may_grant_everything(world: World) -> None:
    root = UserInfo("root", groups=("system:masters",))
    await check(world, "clusterroles", cluster_role(rule("*", "*", "*")), who=root)
    with pytest.raises(Forbidden):
        await check(world, "clusterroles", cluster_role(rule("*", "*", "*")))


async def test_the_verb_escalate_lifts_the_check_where_it_was_given(world: World) -> None:
    world.cluster_role("reader", rule("escalate", "clusterroles", GROUP, names="new"))
    wanted = cluster_role(rule("delete", "nodes"))
    await check(world, "clusterroles", wanted, old=cluster_role())
    with pytest.raises(Forbidden):
        await check(world, "clusterroles", wanted)  # a create has no name yet
    world.cluster_role("reader", rule("escalate", "clusterroles", GROUP))
    await check(world, "clusterroles", wanted)


async def test_a_write_of_the_garbage_collector_grants_nothing(world: World) -> None:
    old = cluster_role(rule("delete", "nodes"))
    new = old | {"metadata": {"name": "new", "finalizers": ["x"], "ownerReferences": [{"uid": "u"}]}}
    await check(world, "clusterroles", new, old=old)
    with pytest.raises(Forbidden):
        await check(world, "clusterroles", new | {"rules": [rule("delete", "nodes pods")]}, old=old)


async def test_an_aggregation_rule_needs_everything(world: World) -> None:
    wanted = cluster_role(aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]})
    with pytest.raises(Forbidden, match="must have cluster-admin privileges to use the aggregationRule"):
        await check(world, "clusterroles", wanted)
    with pytest.raises(Forbidden):  # taking it away, too: whoever does could write rules instead
        await check(world, "clusterroles", cluster_role(), old=wanted)
    world.cluster_role("reader", rule("*", "*", "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]})
    await check(world, "clusterroles", wanted)


async def test_binding_a_role_needs_its_rules(world: World) -> None:
    world.cluster_role("strong", rule("delete", "nodes"))
    await check(world, "clusterrolebindings", binding("ClusterRole", "reader"))
    await check(world, "rolebindings", binding("Role", "deployer", "here"))
    with pytest.raises(Forbidden, match=r'clusterrolebindings.* "new" is forbidden: user "ada"'):
        await check(world, "clusterrolebindings", binding("ClusterRole", "strong"))
    with pytest.raises(Forbidden):
        await check(world, "rolebindings", binding("ClusterRole", "strong", "here"))


async def test_the_verb_bind_lifts_the_check_for_that_role_and_namespace(world: World) -> None:
    world.cluster_role("strong", rule("delete", "nodes"))
    world.cluster_role("stronger", rule("delete", "nodes"))
    world.role("here", "binder", rule("bind", "clusterroles", GROUP, names="strong"))
    world.bind("binder", "Role", "binder", user("ada"), namespace="here")
    await check(world, "rolebindings", binding("ClusterRole", "strong", "here"))
    for resource, obj in (("rolebindings", binding("ClusterRole", "stronger", "here")),
                          ("rolebindings", binding("ClusterRole", "strong", "there")),
                          ("clusterrolebindings", binding("ClusterRole", "strong"))):
        with pytest.raises(Forbidden):
            await check(world, resource, obj)


async def test_a_binding_to_no_role_is_not_found_unless_bind_was_given(world: World) -> None:
    with pytest.raises(NotFound, match=r'clusterrole\.rbac\.authorization\.k8s\.io "gone" not found'):
        await check(world, "clusterrolebindings", binding("ClusterRole", "gone"))
    world.cluster_role("reader", rule("bind", "clusterroles", GROUP))
    await check(world, "clusterrolebindings", binding("ClusterRole", "gone"))


async def test_when_everything_is_allowed_so_is_escalation(world: World) -> None:
    await EscalationCheck(AlwaysAllow(), world.rbac).check(
        ADA, "clusterroles", cluster_role(rule("*", "*", "*")), None)
