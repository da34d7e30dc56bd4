"""Options of lists, watches, writes and deletes: upstream's numbers, bounds and words."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniapiserver.endpoints import listoptions
from miniapiserver.errors import APIError, BadRequest, Invalid
from miniapiserver.registry.options import DeleteOptions, delete_options


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x", "invalid syntax"),
        ("1_000", "invalid syntax"),
        (" 1", "invalid syntax"),
        ("٣", "invalid syntax"),
        ("0x10", "invalid syntax"),
        ("1e3", "invalid syntax"),
        ("9223372036854775808", "value out of range"),
        ("-9223372036854775809", "value out of range"),
        ("9" * 5000, "value out of range"),
    ],
)
@pytest.mark.parametrize("name", ["limit", "timeoutSeconds"])
def test_what_is_no_int64_is_400(name: str, text: str, complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        listoptions.parse({name: text}, watching=True)


@pytest.mark.parametrize("text", ["-1", "0", "9223372036854775807", "+5", "00012"])
def test_every_int64_is_taken(text: str) -> None:
    assert listoptions.parse({"timeoutSeconds": text}, watching=True).timeout == int(text)


def test_a_negative_limit_is_no_limit() -> None:
    assert listoptions.parse({"limit": "-1"}, watching=False).limit == 0


def test_a_negative_grace_is_one_second() -> None:
    assert delete_options({"gracePeriodSeconds": "-1"}, [], None).grace == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-1", "invalid syntax"),
        ("x", "invalid syntax"),
        ("٣", "invalid syntax"),
        ("18446744073709551616", "value out of range"),
        ("9" * 10_000, "value out of range"),
    ],
)
def test_a_resource_version_that_is_no_uint64_is_400(text: str, complaint: str) -> None:
    with pytest.raises(BadRequest, match=f"strconv.ParseUint: .*{complaint}"):
        _ = listoptions.parse({"resourceVersion": text}, watching=False).revision


def test_resource_version_and_match_go_together() -> None:
    for query in (
        {"resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "x", "resourceVersion": "1"},
        {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
        {"sendInitialEvents": "true"},
        {"resourceVersionMatch": "Exact", "resourceVersion": "5", "continue": "c"},
    ):
        with pytest.raises(Invalid):
            listoptions.parse(query, watching=False)
    assert listoptions.parse({"resourceVersionMatch": "Exact", "resourceVersion": "5"}, watching=False).revision == 5


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"gracePeriodSeconds": "x"}, BadRequest),
        ({"gracePeriodSeconds": "99999999999999999999"}, BadRequest),
        ({"propagationPolicy": "Bogus"}, Invalid),
        ({"propagationPolicy": "Orphan", "orphanDependents": "true"}, Invalid),
    ],
)
def test_a_delete_option_out_of_bounds_is_refused(query: dict[str, str], error: type[APIError]) -> None:
    with pytest.raises(error):
        delete_options(query, [], None)


def test_the_body_of_a_delete_counts_before_its_query() -> None:
    body: dict[str, Any] = {"gracePeriodSeconds": 3, "preconditions": {"uid": "u"}}
    assert delete_options({"gracePeriodSeconds": "9"}, [], body) == DeleteOptions(False, 3, "u", None, "")


@given(
    st.dictionaries(
        st.sampled_from(
            ["limit", "timeoutSeconds", "resourceVersion", "resourceVersionMatch", "sendInitialEvents", "continue"]
        ),
        st.text(max_size=12),
    ),
    st.booleans(),
)
def test_no_query_raises_anything_but_api_errors(query: dict[str, str], watching: bool) -> None:
    with contextlib.suppress(APIError):
        _ = listoptions.parse(query, watching=watching).revision
