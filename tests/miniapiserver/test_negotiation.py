"""Accept headers: what is asked for, what is answered, and 406 in upstream's words."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniapiserver.endpoints.negotiation import JSON, PROTOBUF, YAML, Representation, View, negotiate
from miniapiserver.errors import NotAcceptable

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Representation()),
        ("*/*", Representation()),
        ("application/*", Representation()),
        (YAML, Representation(YAML)),
        (PROTOBUF, Representation(PROTOBUF)),
        (f"{PROTOBUF},{JSON}", Representation(JSON)),
        (f"{JSON};q=0.5, {YAML}", Representation(YAML)),
        ("text/html;q=0.9, application/json;q=0.1", Representation(JSON)),
        (TABLE, Representation(JSON, View.TABLE)),
        (f"{TABLE},application/json", Representation(JSON, View.TABLE)),
        ("application/json;as=Nope;v=v1;g=meta.k8s.io,application/json", Representation(JSON)),
    ],
)
def test_the_best_range_we_can_serve_wins(accept: str, expected: Representation) -> None:
    assert negotiate(accept, transformable=True) == expected


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", ";;;,,q=nan", "application/jsonx", "\x00"])
def test_nothing_we_can_serve_is_406(accept: str) -> None:
    with pytest.raises(
        NotAcceptable, match=r"application/json, application/yaml, application/vnd\.kubernetes\.protobuf"
    ):
        negotiate(accept)


def test_a_table_of_what_has_none_is_406() -> None:
    with pytest.raises(NotAcceptable, match="only the following media types are accepted"):
        negotiate(TABLE, transformable=False)


@given(st.text(max_size=80))
def test_no_header_does_anything_else(accept: str) -> None:
    with contextlib.suppress(NotAcceptable):
        negotiate(accept, transformable=True)
