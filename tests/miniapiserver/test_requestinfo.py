"""Paths and methods as verbs, names and tails: whatever comes, something is read, and nothing raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniapiserver.requestinfo import RequestInfo, is_true, parse

PODS = "/api/v1/namespaces/n/pods"


def read(method: str, target: str) -> RequestInfo:
    path, _, query = target.partition("?")
    return parse(method, path, dict(pair.split("=", 1) for pair in query.split("&")) if query else {})


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", f"{PODS}/p", ("get", "n", "pods", "p", "")),
        ("HEAD", f"{PODS}/p", ("get", "n", "pods", "p", "")),
        ("GET", PODS, ("list", "n", "pods", "", "")),
        ("GET", f"{PODS}?watch=true", ("watch", "n", "pods", "", "")),
        ("GET", f"{PODS}?watch=0", ("list", "n", "pods", "", "")),
        ("GET", f"{PODS}?watch=1&fieldSelector=metadata.name=p", ("watch", "n", "pods", "p", "")),
        ("DELETE", PODS, ("deletecollection", "n", "pods", "", "")),
        ("POST", f"{PODS}/p/exec", ("create", "n", "pods", "p", "exec")),
        ("GET", f"{PODS}/p/exec", ("get", "n", "pods", "p", "exec")),
        ("PUT", "/api/v1/namespaces/n/finalize", ("update", "n", "namespaces", "n", "finalize")),
        ("GET", "/api/v1/namespaces/n", ("get", "n", "namespaces", "n", "")),
        ("OPTIONS", PODS, ("", "n", "pods", "", "")),
        ("GET", f"{PODS}/%2e%2e%2fx", ("get", "n", "pods", "../x", "")),
        ("GET", f"{PODS}/%ff", ("get", "n", "pods", "�", "")),
    ],
)
def test_verb_namespace_resource_name_subresource(method: str, target: str, expected: tuple[str, ...]) -> None:
    info = read(method, target)
    assert (info.verb, info.namespace, info.resource, info.name, info.subresource) == expected


@pytest.mark.parametrize(
    ("target", "tail"),
    [
        (f"{PODS}/p/proxy", ""),
        (f"{PODS}/p/proxy/", "/"),
        (f"{PODS}/p/proxy/a%2Fb/../c/", "/a%2Fb/../c/"),
        (f"{PODS}/p/%70roxy/x", "/x"),
        (f"{PODS}/proxy/proxy/proxy", "/proxy"),
        ("/api/v1/nodes/n:10250/proxy//x", "//x"),
    ],
)
def test_a_proxied_tail_stays_as_it_was_sent(target: str, tail: str) -> None:
    info = read("GET", target)
    assert (info.subresource, info.tail) == ("proxy", tail)


@pytest.mark.parametrize(
    "path", ["", "*", "/", "//", "api/v1", "host:443", "/api", "/apis/apps/v1", "/healthz", "/..//x"]
)
def test_what_is_no_resource_is_a_path_with_the_method_as_its_verb(path: str) -> None:
    assert parse("TRACE", path, {}) == RequestInfo(False, path, "trace")


@given(st.text(alphabet="/%2Ee.aproxynsw7\\\0 ", max_size=60), st.sampled_from(["GET", "POST", "CONNECT", ""]))
def test_no_path_raises(tail: str, method: str) -> None:
    for prefix in ("/api/v1/", "/apis/g/v1/", "/api/v1/namespaces/", "/"):
        parse(method, prefix + tail, {"fieldSelector": tail})


def test_every_stream_is_long_running_and_nothing_else() -> None:
    streams = ("log", "exec", "attach", "portforward", "proxy")
    assert all(read("GET", f"{PODS}/p/{name}").is_long_running for name in streams)
    assert read("GET", f"{PODS}?watch=1").is_long_running
    assert not any(read("GET", path).is_long_running for path in (PODS, f"{PODS}/p/status", "/metrics"))


def test_query_booleans_are_true_unless_absent_zero_or_false() -> None:
    assert [is_true(value) for value in (None, "0", "false", "FALSE", "", "1", "no")] == [False] * 4 + [True] * 3
