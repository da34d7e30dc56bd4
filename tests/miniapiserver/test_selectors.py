"""Label and field selectors: grammar, words, matching."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniapiserver.errors import BadRequest
from miniapiserver.selectors import (
    LabelSelector,
    Requirement,
    label_selector_from,
    parse_field_selector,
    parse_label_selector,
)


@pytest.mark.parametrize(("text", "labels", "matches"), [
    ("", {}, True), ("a=b", {"a": "b"}, True), ("a==b", {"a": "b"}, True), ("a=b", {"a": "c"}, False),
    ("a=b", {}, False), ("a!=b", {"a": "c"}, True), ("a!=b", {}, True), ("a!=b", {"a": "b"}, False),
    ("a in (b,c)", {"a": "c"}, True), ("a in (b,c)", {"a": "d"}, False), ("a in (b)", {}, False),
    ("a notin (b,c)", {"a": "d"}, True), ("a notin (b)", {}, True), ("a notin (b)", {"a": "b"}, False),
    ("a", {"a": ""}, True), ("a", {}, False), ("!a", {}, True), ("!a", {"a": "x"}, False),
    ("a=b,c", {"a": "b", "c": "x"}, True), ("a=b,c", {"a": "b"}, False), ("a=", {"a": ""}, True),
    ("a in (,b)", {"a": ""}, True), ("a in ()", {"a": ""}, True), ("a in (in,notin)", {"a": "in"}, True),
    (" a  =  b , c ", {"a": "b", "c": ""}, True), ("in=x", {"in": "x"}, True), ("e.com/a=b", {"e.com/a": "b"}, True),
    ("a>5", {"a": "6"}, True), ("a<5", {"a": "6"}, False), ("a>5", {"a": "x"}, False), ("a>5", {}, False)])
def test_a_label_selector_matches(text: str, labels: dict[str, str], matches: bool) -> None:
    assert parse_label_selector(text).matches(labels) is matches


@pytest.mark.parametrize(("text", "words"), [
    ("a===b", "unable to parse requirement: found '=', expected: identifier"),
    ("a=b=c", "found '=', expected: ',' or 'end of string'"),
    ("a,", "found '', expected: identifier after ','"),
    ("(a)", "found '(', expected: !, identifier, or 'end of string'"),
    ("a in b", "unable to parse requirement: found 'b' expected: '('"),
    ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
    ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
    ("!", "unable to parse requirement: found '', expected: identifier"),
    ("!a=b", "found '=', expected: ',' or 'end of string'"),
    ("a>x", "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be "
            "an integer"),
])
def test_a_malformed_label_selector_is_refused_in_upstreams_words(text: str, words: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse_label_selector(text)
    assert error.value.message == words


@pytest.mark.parametrize(("text", "start"), [
    ("-a=b", 'unable to parse requirement: <nil>: Invalid value: "-a": name part must consist of alphanumeric'),
    ("a/b/c=d", 'unable to parse requirement: <nil>: Invalid value: "a/b/c": a valid label key must consist of'),
    ("/a=b", 'unable to parse requirement: <nil>: Invalid value: "/a": prefix part must be non-empty'),
    ("a=-b", 'unable to parse requirement: values[0][a]: Invalid value: "-b": a valid label must be an empty string'),
    ("a=" + "x" * 64, f'unable to parse requirement: values[0][a]: Invalid value: "{"x" * 64}": must be no more than '
                      "63 bytes")])
def test_keys_and_values_must_be_labels(text: str, start: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(start)):
        parse_label_selector(text)


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse_label_selector(text)
        parse_field_selector(text)
    except BadRequest:
        pass


@given(st.text(alphabet="ab,=!()in <>\\", max_size=20))
def test_any_text_of_special_symbols_is_parsed_or_refused(text: str) -> None:
    test_any_text_is_parsed_or_refused.hypothesis.inner_test(text)  # type: ignore[attr-defined]


KNOWN = ("metadata.name", "metadata.namespace", "spec.nodeName")


@pytest.mark.parametrize(("text", "fields", "matches"), [
    ("", {}, True), ("metadata.name=a", {"metadata.name": "a"}, True),
    ("metadata.name==a", {"metadata.name": "b"}, False),
    ("metadata.name!=a", {"metadata.name": "b"}, True), ("spec.nodeName=", {}, True), ("spec.nodeName!=", {}, False),
    ("metadata.name=a,spec.nodeName=n", {"metadata.name": "a", "spec.nodeName": "n"}, True),
    ("metadata.name=a\\,b", {"metadata.name": "a,b"}, True), ("metadata.name=a\\=b", {"metadata.name": "a=b"}, True),
    ("metadata.name=a\\\\", {"metadata.name": "a\\"}, True)])
def test_a_field_selector_matches(text: str, fields: dict[str, str], matches: bool) -> None:
    assert parse_field_selector(text, KNOWN).matches(fields) is matches


@pytest.mark.parametrize(("text", "known", "words"), [
    ("data.k=v", KNOWN[:2], '"data.k" is not a known field selector: only "metadata.name", "metadata.namespace"'),
    ("data.k=v", KNOWN, "field label not supported: data.k"),
    ("foo", KNOWN, "invalid selector: 'foo'; can't understand 'foo'"),
    ("metadata.name=a\\b", KNOWN, "invalid field selector: invalid escape sequence: \\b"),
    ("metadata.name=a=b", KNOWN, "invalid field selector: unescaped character in value: =")])
def test_a_malformed_field_selector_is_refused_in_upstreams_words(
        text: str, known: tuple[str, ...], words: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse_field_selector(text, known)
    assert error.value.message == words


def test_exact_says_what_a_field_must_be() -> None:
    selector = parse_field_selector("spec.nodeName=n,metadata.name!=a", KNOWN)
    assert (selector.exact("spec.nodeName"), selector.exact("metadata.name")) == ("n", None)


def test_a_selector_of_an_object() -> None:
    assert label_selector_from(None) is None
    assert label_selector_from({}) == LabelSelector()
    selector = label_selector_from({"matchLabels": {"a": "b"}, "matchExpressions": [
        {"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "f", "operator": "DoesNotExist"}]})
    assert selector is not None
    assert selector.matches({"a": "b", "c": "e"})
    assert not selector.matches({"a": "b", "c": "e", "f": ""})
    assert all(isinstance(requirement, Requirement) for requirement in selector.requirements)
