"""What is owned goes with its owner, in the order the owner asked for."""

from typing import Any

from minicontroller.actions import Delete, Patch
from minicontroller.discovery import Collection
from minicontroller.garbage import FOREGROUND, ORPHAN, Graph, Node, decide

COLLECTION = Collection("", "v1", "configmaps", "ConfigMap", True, frozenset({"list", "delete"}))


def node(name: str, *owners: str, finalizers: tuple[str, ...] = (), going: bool = False, blocks: bool = True) -> Node:
    metadata: dict[str, Any] = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1"}
    metadata["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": owner, "blockOwnerDeletion": blocks}
        for owner in owners
    ]
    metadata["finalizers"] = list(finalizers)
    if going:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return Node(COLLECTION, metadata)


def graph(*nodes: Node) -> Graph:
    found = Graph()
    for item in nodes:
        found.put(item)
    return found


def gone(*uids: str) -> Any:
    return lambda reference, node: reference["uid"] in uids


def test_an_object_whose_only_owner_is_gone_is_deleted() -> None:
    [action] = decide(graph(node("child", "parent")), "child", gone("parent"))
    assert isinstance(action, Delete) and action.uid == "child"


def test_an_owner_that_is_only_not_seen_yet_is_not_gone() -> None:
    assert decide(graph(node("child", "parent")), "child", gone()) == []


def test_an_object_with_another_living_owner_only_loses_the_dead_one() -> None:
    [action] = decide(graph(node("child", "dead", "alive"), node("alive")), "child", gone("dead"))
    assert isinstance(action, Patch)
    assert [ref["uid"] for ref in action.body["metadata"]["ownerReferences"]] == ["alive"]


def test_orphaning_takes_the_owner_off_its_dependents_and_then_its_finalizer() -> None:
    whole = graph(node("parent", finalizers=(ORPHAN,), going=True), node("child", "parent"))
    [first] = decide(whole, "parent", gone())
    assert isinstance(first, Patch) and first.body["metadata"]["ownerReferences"] is None
    whole.put(node("child"))
    [second] = decide(whole, "parent", gone())
    assert isinstance(second, Patch) and second.body["metadata"]["finalizers"] is None


def test_foreground_deletion_waits_for_blocking_dependents() -> None:
    whole = graph(node("parent", finalizers=(FOREGROUND,), going=True), node("child", "parent"))
    actions = decide(whole, "parent", gone())
    assert [type(action) for action in actions] == [Delete]
    whole.remove("child")
    [last] = decide(whole, "parent", gone())
    assert isinstance(last, Patch) and last.body["metadata"]["finalizers"] is None


def test_a_dependent_that_does_not_block_is_deleted_but_not_waited_for() -> None:
    whole = graph(node("parent", finalizers=(FOREGROUND,), going=True), node("child", "parent", blocks=False))
    assert [type(action) for action in decide(whole, "parent", gone())] == [Delete, Patch]
