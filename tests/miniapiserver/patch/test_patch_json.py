"""JSON Patch and JSON Merge Patch."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniapiserver.errors import APIError, RequestEntityTooLarge
from miniapiserver.patch import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, document, jsonpatch, mergepatch, read
from miniapiserver.patch.errors import BadPatch, Unprocessable

OBJ = {"metadata": {"name": "a", "labels": {"x": "1"}}, "list": [1, 2, 3], "n": None, "t": True}


def op(name: str, path: str, **more: Any) -> dict[str, Any]:
    return {"op": name, "path": path, **more}


@pytest.mark.parametrize(
    ("patch", "changes"),
    [
        ([op("add", "/metadata/labels/y", value="2")], {"metadata": {"name": "a", "labels": {"x": "1", "y": "2"}}}),
        ([op("add", "/list/1", value=9)], {"list": [1, 9, 2, 3]}),
        ([op("add", "/list/-", value=9)], {"list": [1, 2, 3, 9]}),
        ([op("add", "/list/3", value=9)], {"list": [1, 2, 3, 9]}),
        ([op("remove", "/list/-1")], {"list": [1, 2]}),
        ([op("replace", "/list/0", value={"a": 1})], {"list": [{"a": 1}, 2, 3]}),
        ([op("replace", "/n", value=5)], {"n": 5}),
        ([op("move", "/list/0", **{"from": "/list/2"})], {"list": [3, 1, 2]}),
        ([op("copy", "/n", **{"from": "/list"}), op("add", "/n/0", value=0)], {"n": [0, 1, 2, 3]}),
        ([op("test", "/list/1", value=2), op("add", "/z", value=None)], {"z": None}),
        ([op("add", "/a~1b~0c", value=1)], {"a/b~c": 1}),
        ([op("test", "/missing", value=None)], {}),
        ([], {}),
    ],
)
def test_operations_do_what_rfc_6902_says(patch: list[Any], changes: dict[str, Any]) -> None:
    before = repr(OBJ)
    assert jsonpatch.apply(OBJ, patch) == OBJ | changes
    assert repr(OBJ) == before


@pytest.mark.parametrize(
    "patch",
    [
        [op("nope", "/n")],
        [{"path": "/n"}],
        ["x"],
        [op("remove", "/missing")],
        [op("replace", "/missing", value=1)],
        [op("add", "/missing/x", value=1)],
        [op("add", "/list/4", value=1)],
        [op("add", "/list/x", value=1)],
        [op("test", "/list/0", value=True)],
        [op("test", "/t", value=1)],
        [op("test", "/missing", value=0)],
        [op("add", "n", value=1)],
        [op("add", "/n")],
        [op("copy", "/n", **{"from": "/nope"})],
        [op("remove", "")],
        [op("move", "/metadata/x", **{"from": "/metadata"})],
        [op("add", "/list/-2000", value=1)],
        [{"op": "add", "path": 5}],
    ],
)
def test_an_operation_that_does_not_fit_fails_in_upstreams_words(patch: list[Any]) -> None:
    with pytest.raises(Unprocessable) as error:
        jsonpatch.apply(OBJ, patch)
    assert error.value.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": "Invalid",
        "details": {},
        "message": "the server rejected our request due to an error in our request",
        "code": 422,
    }


def test_too_many_operations_are_refused() -> None:
    with pytest.raises(
        RequestEntityTooLarge, match="The allowed maximum operations in a JSON patch is 10000, got 10001"
    ):
        jsonpatch.apply({}, [op("test", "/a", value=None)] * 10_001)


def test_copies_cannot_grow_without_bound() -> None:
    doubling = [op("add", "/a", value=["x" * 1000])] + [op("copy", "/a/-", **{"from": "/a"})] * 40
    with pytest.raises(Unprocessable):
        jsonpatch.apply({}, doubling)


@pytest.mark.parametrize(
    ("obj", "patch", "result"),
    [  # the table of RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_do_what_rfc_7386_says(obj: Any, patch: Any, result: Any) -> None:
    assert mergepatch.apply(obj, patch) == result


def test_a_merge_patch_shares_nothing_with_its_input() -> None:
    obj: dict[str, Any] = {"a": {"x": [1]}}
    patch: dict[str, Any] = {"b": {"y": [2]}}
    result = mergepatch.apply(obj, patch)
    result["a"]["x"].append(9)
    result["b"]["y"].append(9)
    assert (obj, patch) == ({"a": {"x": [1]}}, {"b": {"y": [2]}})


@pytest.mark.parametrize(
    ("body", "media", "words"),
    [
        (
            b"{}",
            JSON_PATCH,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (
            b"[]",
            MERGE_PATCH,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (b"[]", STRATEGIC_PATCH, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (b"{", MERGE_PATCH, "error decoding patch: unexpected end of JSON input"),
        (b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", MERGE_PATCH, "error decoding patch: exceeded max depth"),
    ],
)
def test_a_body_that_is_no_patch_is_400(body: bytes, media: str, words: str) -> None:
    with pytest.raises(BadPatch) as error:
        read(body, media)
    assert (error.value.code, error.value.message) == (400, words)


def test_problems_of_a_patch_are_named() -> None:
    assert document.read(b'{"data":{"a":"1","a":"2"}}', MERGE_PATCH)[1] == ['duplicate field "data.a"']
    assert document.read(b'[{"op":"add","path":"/a","value":{},"x":1}]', JSON_PATCH)[1] == [
        'json patch unknown field "[0].x"'
    ]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
pointers = st.lists(st.sampled_from(["a", "b", "0", "1", "-", "-1"]), max_size=3).map(
    lambda parts: "".join(f"/{part}" for part in parts)
)


@settings(deadline=None)
@given(
    values,
    st.lists(
        st.fixed_dictionaries(
            {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": pointers},
            optional={"value": values, "from": pointers},
        ),
        max_size=5,
    ),
)
def test_any_json_patch_applies_or_is_refused_and_leaves_its_input_alone(obj: Any, patch: list[Any]) -> None:
    before = repr((obj, patch))
    with contextlib.suppress(APIError):
        jsonpatch.apply(obj, patch)
    assert repr((obj, patch)) == before
