"""Strategic merge patch: keyed lists, and kubectl's directives."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniapiserver.errors import APIError
from miniapiserver.patch import strategic
from miniapiserver.patch.errors import BadPatch, UnmergeablePatch
from miniapiserver.schema import types

JSON = dict[str, Any]
POD = types.find("core.v1.Pod")
LIVE: JSON = {
    "metadata": {"name": "p", "labels": {"a": "1", "b": "2"}, "finalizers": ["x", "y"]},
    "spec": {
        "containers": [
            {
                "name": "c",
                "image": "1",
                "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "args": ["a", "b"],
            },
            {"name": "d", "image": "2"},
        ],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "tolerations": [{"key": "k"}],
        "nodeSelector": {"a": "b"},
    },
}


def patched(patch: JSON) -> JSON:
    before = repr((LIVE, patch))
    result = strategic.apply(LIVE, patch, POD)
    assert repr((LIVE, patch)) == before
    return result


def containers(*patch: JSON, **more: Any) -> list[JSON]:
    found: list[JSON] = patched({"spec": {"containers": list(patch), **more}})["spec"]["containers"]
    return found


def names(items: list[JSON]) -> list[str]:
    return [item["name"] for item in items]


def test_a_keyed_list_merges_by_its_key() -> None:
    first, second = containers({"name": "c", "image": "9"})
    assert first == LIVE["spec"]["containers"][0] | {"image": "9"}
    assert second == LIVE["spec"]["containers"][1]


def test_an_unknown_key_is_added() -> None:
    assert sorted(names(containers({"name": "new", "image": "3"}))) == ["c", "d", "new"]


def test_a_list_in_a_keyed_list_merges_too() -> None:
    first = containers({"name": "c", "env": [{"name": "Y", "value": "9"}, {"name": "Z", "value": "3"}]})[0]
    assert {item["name"]: item["value"] for item in first["env"]} == {"X": "1", "Y": "9", "Z": "3"}


def test_a_list_without_merge_strategy_is_replaced() -> None:
    result = patched({"spec": {"tolerations": [], "containers": [{"name": "c", "args": ["z"]}]}})
    assert result["spec"]["tolerations"] == []
    assert result["spec"]["containers"][0]["args"] == ["z"]


def test_a_map_merges_and_null_deletes() -> None:
    assert patched({"metadata": {"labels": {"a": None, "c": "3"}}})["metadata"]["labels"] == {"b": "2", "c": "3"}
    assert "tolerations" not in patched({"spec": {"tolerations": None}})["spec"]


def test_a_primitive_list_with_merge_strategy_is_united() -> None:
    assert sorted(patched({"metadata": {"finalizers": ["z", "y"]}})["metadata"]["finalizers"]) == ["x", "y", "z"]


def test_delete_from_a_primitive_list() -> None:
    assert patched({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}})["metadata"]["finalizers"] == ["y"]


def test_delete_an_element() -> None:
    assert names(containers({"name": "c", "$patch": "delete"})) == ["d"]


def test_replace_a_list() -> None:
    assert containers({"$patch": "replace"}, {"name": "z"}) == [{"name": "z"}]


def test_replace_and_delete_a_map() -> None:
    assert patched({"metadata": {"labels": {"$patch": "replace", "z": "1"}}})["metadata"]["labels"] == {"z": "1"}
    assert patched({"metadata": {"labels": {"$patch": "delete"}}})["metadata"]["labels"] == {}


def test_replace_a_map_within_an_element() -> None:
    volume = patched({"spec": {"volumes": [{"name": "v", "emptyDir": {"$patch": "replace", "medium": "Memory"}}]}})
    assert volume["spec"]["volumes"] == [{"name": "v", "emptyDir": {"medium": "Memory"}}]


def test_retain_keys_clears_what_is_not_named() -> None:
    patch = {"spec": {"volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "m"}}]}}
    assert patched(patch)["spec"]["volumes"] == [{"name": "v", "configMap": {"name": "m"}}]


def test_retain_keys_must_name_what_the_patch_says() -> None:
    with pytest.raises(BadPatch, match="invalid patch format of retainKeys"):
        patched({"spec": {"volumes": [{"$retainKeys": ["name"], "name": "v", "configMap": {}}]}})


def test_set_element_order_orders_and_keeps_what_it_does_not_name() -> None:
    order = {"$setElementOrder/containers": [{"name": "d"}, {"name": "c"}]}
    assert names(patched({"spec": order})["spec"]["containers"]) == ["d", "c"]
    order = {"$setElementOrder/containers": [{"name": "d"}, {"name": "e"}]}
    result = patched({"spec": order | {"containers": [{"name": "e"}]}})
    assert names(result["spec"]["containers"]) == ["c", "d", "e"]


def test_set_element_order_of_primitives() -> None:
    patch = {"metadata": {"$setElementOrder/finalizers": ["y", "z", "x"], "finalizers": ["z"]}}
    assert patched(patch)["metadata"]["finalizers"] == ["y", "z", "x"]


def test_a_patch_list_must_fit_its_order() -> None:
    with pytest.raises(UnmergeablePatch, match=r"doesn't match \$setElementOrder list"):
        containers({"name": "c"}, **{"$setElementOrder/containers": [{"name": "d"}]})


def test_what_the_kubelet_sends_for_conditions() -> None:
    live = {"status": {"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]}}
    patch = {
        "status": {
            "$setElementOrder/conditions": [{"type": "A"}, {"type": "B"}],
            "conditions": [{"type": "B", "status": "False"}],
        }
    }
    assert strategic.apply(live, patch, types.find("core.v1.Node"))["status"]["conditions"] == [
        {"type": "A", "status": "True"},
        {"type": "B", "status": "False"},
    ]


def test_service_ports_merge_by_port_alone() -> None:
    live = {"spec": {"ports": [{"port": 80, "targetPort": 1}]}}
    patch = {"spec": {"ports": [{"port": 80, "targetPort": 2}, {"port": 81}]}}
    assert strategic.apply(live, patch, types.find("core.v1.Service"))["spec"]["ports"] == [
        {"port": 80, "targetPort": 2},
        {"port": 81},
    ]


def test_a_new_subtree_carries_no_directive_and_no_null() -> None:
    patch = {
        "spec": {
            "affinity": {"$setElementOrder/x": [], "nodeAffinity": {"$patch": "replace", "a": 1}, "podAffinity": None}
        }
    }
    assert patched(patch)["spec"]["affinity"] == {}


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, "map: map[image:x] does not contain declared merge key: name"),
        (
            {"spec": {"containers": [{"name": "c", "$patch": "nope"}]}},
            "unknown patch type: nope in map: map[$patch:nope name:c]",
        ),
        (
            {"spec": {"containers": [{"$patch": "delete"}]}},
            "map: map[$patch:delete] does not contain declared merge key: name",
        ),
        ({"spec": {"containers": [{"$patch": "merge"}]}}, "merging lists cannot yet be specified in the patch"),
        ({"metadata": {"$patch": "nope"}}, "unknown patch type: nope in map: map[$patch:nope]"),
    ],
)
def test_a_patch_that_cannot_be_merged_is_500_with_upstreams_words(patch: JSON, words: str) -> None:
    with pytest.raises(UnmergeablePatch) as error:
        patched(patch)
    assert (error.value.code, error.value.message) == (500, words)


items = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["c", "delete", "replace"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "spec",
                    "containers",
                    "volumes",
                    "$patch",
                    "$retainKeys",
                    "$setElementOrder/containers",
                    "env",
                    "$deleteFromPrimitiveList/finalizers",
                    "metadata",
                    "finalizers",
                    "labels",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["spec", "metadata", "$patch"]), items))
def test_any_patch_merges_or_is_refused_and_leaves_its_input_alone(patch: JSON) -> None:
    before = repr((LIVE, patch))
    with contextlib.suppress(APIError):
        strategic.apply(LIVE, patch, POD)
    assert repr((LIVE, patch)) == before
