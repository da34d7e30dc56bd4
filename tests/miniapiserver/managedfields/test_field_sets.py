"""The algebra of field sets, and apply and tracking over any objects."""

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from miniapiserver.errors import APIError
from miniapiserver.managedfields import fieldset, server_side_apply, track_update
from miniapiserver.schema import complete, conform, types
from miniapiserver.schema.conform import Mismatch

NOW = "2024-01-01T00:00:00Z"
trees = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(st.sampled_from(["f:a", "f:b", 'k:{"name":"c"}', 'v:"x"']), inner, max_size=3),
    max_leaves=8,
)
sets = trees.map(fieldset.decode)


def members(fields: fieldset.FieldSet) -> set[str]:
    return set(fieldset.paths(fields))


@settings(deadline=None)
@given(trees)
def test_a_set_reads_back_as_it_was_written(tree: dict[str, Any]) -> None:
    assert fieldset.encode(fieldset.decode(tree)) == tree


@settings(deadline=None)
@given(sets, sets)
def test_operations_are_those_of_sets_of_paths(left: fieldset.FieldSet, right: fieldset.FieldSet) -> None:
    before = repr((left, right))
    assert members(fieldset.union(left, right)) == members(left) | members(right)
    assert members(fieldset.difference(left, right)) == members(left) - members(right)
    assert members(fieldset.intersection(left, right)) == members(left) & members(right)
    assert repr((left, right)) == before


@settings(deadline=None)
@given(sets, sets)
def test_without_takes_what_is_below_too(left: fieldset.FieldSet, right: fieldset.FieldSet) -> None:
    below = {path for path in members(left) for root in members(right) if path == root or _is_below(path, root)}
    assert members(fieldset.without(left, right)) == members(left) - below


def _is_below(path: str, root: str) -> bool:
    return path.startswith(root) and path[len(root) : len(root) + 1] in (".", "[")


def test_a_member_with_members_below_is_written_with_a_dot() -> None:
    tree = {"f:a": {".": {}, "f:b": {}}, "f:c": {}}
    assert fieldset.encode(fieldset.decode(tree)) == tree
    assert members(fieldset.decode(tree)) == {".a", ".a.b", ".c"}


text = st.sampled_from(["", "a", "b"])
containers = st.lists(
    st.fixed_dictionaries(
        {"name": text},
        optional={
            "image": text,
            "args": st.lists(text, max_size=2),
            "env": st.lists(st.fixed_dictionaries({"name": text}, optional={"value": text}), max_size=3),
            # Not "": as a key that is another than the default, though defaulting makes it the same. Upstream's
            # answer to such a list, applied twice, is a list with the port twice, too.
            "ports": st.lists(
                st.fixed_dictionaries(
                    {"containerPort": st.integers(1, 3)}, optional={"protocol": st.sampled_from(["TCP", "UDP", "a"])}
                ),
                max_size=2,
            ),
            "resources": st.fixed_dictionaries(
                {}, optional={"limits": st.dictionaries(text, st.sampled_from(["1", 1, "1000m", "x"]), max_size=2)}
            ),
        },
    ),
    max_size=3,
)
configs = st.fixed_dictionaries(
    {
        "apiVersion": st.just("v1"),
        "kind": st.just("Pod"),
        "metadata": st.fixed_dictionaries(
            {"name": st.just("p")},
            optional={
                "labels": st.none() | st.dictionaries(text, text, max_size=2),
                "finalizers": st.lists(text, max_size=3),
            },
        ),
    },
    optional={
        "spec": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "containers": st.none() | containers,
                "nodeSelector": st.dictionaries(text, text, max_size=2),
                "hostNetwork": st.none() | st.booleans(),
                "securityContext": st.just({}),
            },
        )
    },
)
POD = types.find("core.v1.Pod")


def applied(live: Any, config: Any, manager: str, force: bool) -> Any:
    obj = server_side_apply(live, config, POD, api_version="v1", manager=manager, force=force, now=NOW)
    assert conform(obj, POD) == []
    complete(obj, POD)
    return obj


@settings(deadline=None)
@given(configs, configs, st.booleans())
def test_whatever_is_applied_merges_or_is_refused_and_applying_it_again_changes_nothing(
    first: Any, second: Any, same: bool
) -> None:
    try:
        live = applied(None, first, "one", False)
        obj = applied(live, second, "one" if same else "two", True)
    except (APIError, Mismatch):
        return
    again = applied(obj, second, "one" if same else "two", False)
    assert _timeless(again) == _timeless(obj)


def _timeless(obj: Any) -> Any:
    found = orjson.loads(orjson.dumps(obj))
    for entry in found["metadata"].get("managedFields", []):
        entry.pop("time", None)
    return found


@settings(deadline=None)
@given(configs, configs)
def test_any_write_is_tracked_and_owned_by_somebody(first: Any, second: Any) -> None:
    try:
        for obj in (first, second):
            conform(obj, POD)
    except Mismatch:
        return
    track_update(None, first, POD, api_version="v1", manager="one", now=NOW)
    track_update(first, second, POD, api_version="v1", manager="two", now=NOW)
    owners = [members(fieldset.decode(entry["fieldsV1"])) for entry in second["metadata"].get("managedFields", [])]
    for left in owners:
        assert all(left is right or not left & right for right in owners)
