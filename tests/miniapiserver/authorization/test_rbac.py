"""RBAC decisions. Each refusal has its twin that is allowed."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rbac_world import GROUP, World, rule, user

from miniapiserver.authentication.interface import UserInfo
from miniapiserver.authorization.interface import Attributes

JSON = dict[str, Any]


@pytest.fixture
def world() -> World:
    return World()


def test_a_cluster_role_binding_reaches_everywhere_and_a_role_binding_its_namespace(world: World) -> None:
    world.cluster_role("reader", rule("get", "pods"))
    world.bind("all", "ClusterRole", "reader", user("ada"))
    world.bind("here", "ClusterRole", "reader", user("bob"), namespace="here")
    assert world.may("ada", "get", "pods", namespace="anywhere")
    assert world.may("ada", "get", "pods")
    assert world.may("bob", "get", "pods", namespace="here")
    assert not world.may("bob", "get", "pods", namespace="there")
    assert not world.may("bob", "get", "pods")
    assert not world.may("eve", "get", "pods", namespace="here")


@pytest.mark.parametrize(("given", "asked", "allowed"), [
    (rule("get", "pods"), ("get", "pods", "", ""), True),
    (rule("get", "pods"), ("list", "pods", "", ""), False),
    (rule("*", "pods"), ("anything", "pods", "", ""), True),
    (rule("get", "*"), ("get", "pods", "log", ""), True),
    (rule("get", "pods"), ("get", "pods", "log", ""), False),
    (rule("get", "pods/log"), ("get", "pods", "log", ""), True),
    (rule("get", "pods/log"), ("get", "pods", "", ""), False),
    (rule("get", "pods/*"), ("get", "pods", "log", ""), False),
    (rule("get", "*/log"), ("get", "pods", "log", ""), True),
    (rule("get", "*/log"), ("get", "pods", "exec", ""), False),
    (rule("get", "*/log"), ("get", "log", "", ""), False),
    (rule("get", "pods", "apps"), ("get", "pods", "", ""), False),
    (rule("get", "pods", "apps"), ("get", "pods", "", "apps"), True),
    (rule("get", "pods", "*"), ("get", "pods", "", "apps"), True),
])
def test_a_rule_allows_exactly_what_it_names(
        world: World, given: JSON, asked: tuple[str, str, str, str], allowed: bool) -> None:
    world.cluster_role("r", given)
    world.bind("b", "ClusterRole", "r", user("ada"))
    verb, resource, subresource, group = asked
    assert world.may("ada", verb, resource, subresource=subresource, group=group) is allowed


def test_resource_names_limit_a_rule_to_these_objects(world: World) -> None:
    world.cluster_role("r", rule("get update", "configmaps", names="a"), rule("get", "configmaps", names="b"))
    world.bind("b", "ClusterRole", "r", user("ada"))
    assert world.may("ada", "get", "configmaps", name="a")
    assert world.may("ada", "get", "configmaps", name="b")
    assert world.may("ada", "update", "configmaps", name="a")
    assert not world.may("ada", "update", "configmaps", name="b")
    assert not world.may("ada", "get", "configmaps", name="c")
    assert not world.may("ada", "get", "configmaps")
    world.cluster_role("r", rule("get", "configmaps", names="a"), rule("get", "configmaps"))
    assert world.may("ada", "get", "configmaps", name="c")


@pytest.mark.parametrize(("pattern", "path", "allowed"), [
    ("/metrics", "/metrics", True), ("/metrics", "/metrics/slis", False), ("/api/*", "/api/v1", True),
    ("/api/*", "/api", False), ("/api*", "/apis", True), ("*", "/anything", True), ("/a/*/c", "/a/b/c", False)])
def test_paths_match_exactly_or_by_a_trailing_star(world: World, pattern: str, path: str, allowed: bool) -> None:
    world.cluster_role("r", {"verbs": ["get"], "nonResourceURLs": [pattern]})
    world.bind("b", "ClusterRole", "r", user("ada"))
    assert world.may_path("ada", "get", path) is allowed
    assert not world.may_path("ada", "post", path)


def test_paths_and_resources_are_different_things(world: World) -> None:
    world.cluster_role("paths", {"verbs": ["*"], "nonResourceURLs": ["*"]})
    world.bind("b", "ClusterRole", "paths", user("ada"))
    assert world.may_path("ada", "get", "/metrics")
    assert not world.may("ada", "get", "pods")


def test_subjects_are_users_groups_and_service_accounts(world: World) -> None:
    world.cluster_role("r", rule("get", "pods"))
    account = {"kind": "ServiceAccount", "name": "robot"}
    world.bind("group", "ClusterRole", "r", {"kind": "Group", "name": "staff"})
    world.bind("here", "ClusterRole", "r", account, namespace="here")
    world.bind("there", "ClusterRole", "r", account | {"namespace": "other"}, namespace="there")
    world.bind("nowhere", "ClusterRole", "r", account)
    assert world.may("x", "get", "pods", groups=("staff",))
    assert not world.may("staff", "get", "pods")
    assert world.may("system:serviceaccount:here:robot", "get", "pods", namespace="here")
    assert not world.may("system:serviceaccount:there:robot", "get", "pods", namespace="there")
    assert world.may("system:serviceaccount:other:robot", "get", "pods", namespace="there")
    assert not world.may("system:serviceaccount::robot", "get", "pods")
    assert not world.may("robot", "get", "pods", namespace="here")


def test_the_reason_names_binding_role_and_subject(world: World) -> None:
    def reason(name: str, namespace: str) -> str:
        return world.rbac.decide(Attributes(UserInfo(name), "get", resource="pods", namespace=namespace)).reason

    world.cluster_role("r", rule("get", "pods"))
    world.role("golden", "r", rule("get", "pods"))
    world.bind("b", "ClusterRole", "r", user("u"))
    world.bind("rb", "Role", "r", {"kind": "ServiceAccount", "name": "robot"}, namespace="golden")
    assert reason("u", "") == 'RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "r" to User "u"'
    assert reason("system:serviceaccount:golden:robot", "golden") == (
        'RBAC: allowed by RoleBinding "rb/golden" of Role "r" to ServiceAccount "robot/golden"')
    assert reason("eve", "golden") == ""


def test_a_missing_role_is_said_and_does_not_stop_the_others(world: World) -> None:
    world.cluster_role("r", rule("get", "pods"))
    world.bind("a", "ClusterRole", "gone", user("ada"))
    world.bind("b", "ClusterRole", "r", user("ada"))
    assert world.may("ada", "get", "pods")
    verdict = world.rbac.decide(Attributes(UserInfo("ada"), "list", resource="pods"))
    assert verdict.reason == 'RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found'


def test_changes_count_from_the_next_question_on(world: World) -> None:
    world.cluster_role("r", rule("get", "pods"))
    assert not world.may("ada", "get", "pods")
    world.bind("b", "ClusterRole", "r", user("ada"))
    assert world.may("ada", "get", "pods")
    world.cluster_role("r", rule("list", "pods"))
    assert not world.may("ada", "get", "pods")
    assert world.may("ada", "list", "pods")
    world.cluster_role_bindings.remove("/b")
    assert not world.may("ada", "list", "pods")


def test_an_aggregated_role_has_the_rules_of_those_it_selects(world: World) -> None:
    selector = {"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]}
    world.cluster_role("whole", rule("delete", "pods"), aggregationRule=selector)
    world.bind("b", "ClusterRole", "whole", user("ada"))
    assert not world.may("ada", "get", "pods")
    world.cluster_roles.put({"metadata": {"name": "part", "labels": {"part": "yes"}}, "rules": [rule("get", "pods")]})
    assert world.may("ada", "get", "pods")
    assert not world.may("ada", "delete", "pods")  # its own rules are the controller's to write, not a person's
    world.cluster_roles.put({"metadata": {"name": "part"}, "rules": [rule("get", "pods")]})
    assert not world.may("ada", "get", "pods")


def test_a_circle_of_aggregation_ends(world: World) -> None:
    for name, label in (("a", "b"), ("b", "a")):
        world.cluster_roles.put({
            "metadata": {"name": name, "labels": {"is": name}}, "rules": [],
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"is": label}}]}})
    world.bind("x", "ClusterRole", "a", user("ada"))
    assert not world.may("ada", "get", "pods")


def test_rules_for_lists_what_a_user_may(world: World) -> None:
    world.cluster_role("r", rule("get", "pods"), {"verbs": ["get"], "nonResourceURLs": ["/metrics"]})
    world.bind("b", "ClusterRole", "r", user("ada"))
    world.bind("gone", "ClusterRole", "gone", user("ada"), namespace="here")
    found = world.rbac.rules_for(UserInfo("ada"), "here")
    assert found.resources == [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]
    assert found.urls == [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]
    assert (found.incomplete, found.error) == (False, 'clusterrole.rbac.authorization.k8s.io "gone" not found')
    assert world.rbac.rules_for(UserInfo("eve"), "here").resources == []


# --- the default policy

DEFAULTS = World(defaults=True)
LOGGED_IN = ("system:authenticated",)


@pytest.mark.parametrize(("who", "groups", "verb", "resource", "more", "allowed"), [
    ("system:kube-scheduler", LOGGED_IN, "create", "pods", {"subresource": "binding", "namespace": "x"}, True),
    ("system:kube-scheduler", LOGGED_IN, "create", "pods", {"namespace": "x"}, False),
    ("system:kube-scheduler", LOGGED_IN, "update", "leases",
     {"group": "coordination.k8s.io", "namespace": "kube-system", "name": "kube-scheduler"}, True),
    ("system:kube-scheduler", LOGGED_IN, "update", "leases",
     {"group": "coordination.k8s.io", "namespace": "kube-system", "name": "kube-controller-manager"}, False),
    ("system:kube-controller-manager", LOGGED_IN, "create", "serviceaccounts", {"subresource": "token"}, True),
    ("system:kube-controller-manager", LOGGED_IN, "delete", "pods", {}, False),
    ("system:serviceaccount:kube-system:namespace-controller", LOGGED_IN, "deletecollection", "pods", {}, True),
    ("system:serviceaccount:default:namespace-controller", LOGGED_IN, "deletecollection", "pods", {}, False),
    ("anybody", LOGGED_IN, "create", "selfsubjectaccessreviews", {"group": "authorization.k8s.io"}, True),
    ("anybody", LOGGED_IN, "create", "subjectaccessreviews", {"group": "authorization.k8s.io"}, False),
    ("system:anonymous", ("system:unauthenticated",), "create", "selfsubjectaccessreviews",
     {"group": "authorization.k8s.io"}, False),
    ("kube-apiserver-kubelet-client", LOGGED_IN, "create", "nodes", {"subresource": "proxy", "name": "n"}, True),
    ("kube-apiserver-kubelet-client", LOGGED_IN, "get", "nodes", {"subresource": "configz", "name": "n"}, True),
    ("kube-apiserver-kubelet-client", LOGGED_IN, "get", "secrets", {"namespace": "x"}, False),
    ("kube-apiserver-kubelet-client", LOGGED_IN, "delete", "nodes", {}, False),
    ("system:bootstrap:abc", ("system:bootstrappers:kubeadm:default-node-token",), "create",
     "certificatesigningrequests", {"group": "certificates.k8s.io"}, True),
    ("system:bootstrap:abc", ("system:bootstrappers",), "create", "certificatesigningrequests",
     {"group": "certificates.k8s.io"}, False),
    ("system:bootstrap:abc", ("system:bootstrappers:kubeadm:default-node-token",), "list", "secrets",
     {"namespace": "kube-system"}, False),
    ("system:node:n", ("system:nodes",), "create", "certificatesigningrequests",
     {"group": "certificates.k8s.io", "subresource": "selfnodeclient"}, True),
    ("system:node:n", ("system:nodes",), "get", "secrets", {"namespace": "default", "name": "s"}, False),
    ("system:anonymous", ("system:unauthenticated",), "get", "configmaps",
     {"namespace": "kube-public", "name": "cluster-info"}, True),
    ("system:anonymous", ("system:unauthenticated",), "get", "configmaps",
     {"namespace": "kube-public", "name": "other"}, False),
    ("admin", ("kubeadm:cluster-admins",), "delete", "nodes", {}, True),
])
def test_the_default_policy(who: str, groups: tuple[str, ...], verb: str, resource: str, more: dict[str, str],
                            allowed: bool) -> None:
    assert DEFAULTS.may(who, verb, resource, groups=groups, **more) is allowed


@pytest.mark.parametrize(("groups", "path", "allowed"), [
    (("system:unauthenticated",), "/healthz", True), (("system:unauthenticated",), "/version", True),
    (("system:unauthenticated",), "/api", False), (("system:unauthenticated",), "/metrics", False),
    (LOGGED_IN, "/apis/apps/v1", True), (LOGGED_IN, "/metrics", False), (("system:monitoring",), "/metrics", True),
    (("system:monitoring",), "/livez/etcd", True), (("system:serviceaccounts",), "/openid/v1/jwks", True),
    (LOGGED_IN, "/openid/v1/jwks", False)])
def test_the_default_policy_for_paths(groups: tuple[str, ...], path: str, allowed: bool) -> None:
    assert DEFAULTS.may_path("somebody", "get", path, *groups) is allowed


def test_admin_edit_and_view_nest() -> None:
    world = World(defaults=True)
    for role in ("admin", "edit", "view"):
        world.bind(role, "ClusterRole", role, user(role), namespace="here")

    def may(verb: str, resource: str, group: str = "") -> list[bool]:
        return [world.may(who, verb, resource, group=group, namespace="here") for who in ("admin", "edit", "view")]

    assert may("get", "pods") == [True, True, True]
    assert may("create", "pods") == [True, True, False]
    assert may("get", "secrets") == [True, True, False]
    assert may("create", "rolebindings", GROUP) == [True, False, False]
    assert may("create", "nodes") == [False, False, False]


def test_a_question_costs_microseconds() -> None:
    asked = [Attributes(UserInfo("system:serviceaccount:default:x", groups=(
        "system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")), "get",
        resource="pods", namespace="default", name=f"p{number}") for number in range(500)]
    DEFAULTS.rbac.decide(asked[0])
    start = time.perf_counter()
    for attributes in asked:
        DEFAULTS.rbac.decide(attributes)
    first = (time.perf_counter() - start) / len(asked)
    start = time.perf_counter()
    for attributes in asked:
        DEFAULTS.rbac.decide(attributes)
    again = (time.perf_counter() - start) / len(asked)
    print(f"rbac first={first * 1e6:.1f}us again={again * 1e6:.1f}us")
    assert (first, again) < (500e-6, 100e-6)
