"""Words in cells, and quantities."""

import pytest

from miniapiserver.resources.columns import duration, labels_text, selector_text, since
from miniapiserver.resources.quantity import BadQuantity, canonical, parse


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400, "8d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (740 * 86400, "2y10d"),
        (8 * 365 * 86400, "8y"),
    ],
)
def test_durations_are_as_kubectl_shows_them(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_a_missing_time_is_unknown() -> None:
    assert since(None, 0.0) == "<unknown>"
    assert since("garbage", 0.0) == "<unknown>"
    assert since("1970-01-01T00:00:00Z", 30.0) == "30s"
    assert since("1970-01-01T00:00:00.000000Z", 30.0) == "30s"


def test_labels_and_selectors_as_text() -> None:
    assert labels_text({"b": "2", "a": "1"}) == "a=1,b=2"
    assert labels_text({}) == "<none>"
    assert (
        selector_text(
            {
                "matchLabels": {"a": "b"},
                "matchExpressions": [
                    {"key": "c", "operator": "In", "values": ["y", "x"]},
                    {"key": "d", "operator": "DoesNotExist"},
                ],
            }
        )
        == "a=b,c in (x,y),!d"
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1024Ki", "1Mi"),
        ("1536Mi", "1536Mi"),
        ("1e3", "1e3"),
        ("1000", "1k"),
        ("2.5Gi", "2560Mi"),
        ("100", "100"),
        ("0", "0"),
        ("-1", "-1"),
        ("1Ki", "1Ki"),
        ("500Ki", "500Ki"),
    ],
)
def test_quantities_are_written_as_upstream(text: str, written: str) -> None:
    assert canonical(text) == written
    assert parse(text) == parse(written)


def test_text_that_is_no_quantity() -> None:
    with pytest.raises(BadQuantity, match="quantities must match the regular expression"):
        parse("1 Gi")
    assert canonical("nope") == "nope"
