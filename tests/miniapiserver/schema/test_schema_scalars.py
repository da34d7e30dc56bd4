"""Quantities, times and durations in Go's forms."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniapiserver.schema import times
from wire import quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("100", "100"),
        ("1e3", "1e3"),
        ("1500m", "1500m"),
        ("0.1Gi", "107374182400m"),
        ("1000k", "1M"),
        ("0.0001", "100u"),
        ("-1", "-1"),
        ("0", "0"),
        ("0Mi", "0"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("1E", "1E"),
        ("12e6", "12e6"),
        ("0.519Ei", "598366260890953580544m"),
        ("1.1n", "2n"),
        (".5", "500m"),
        ("5.", "5"),
    ],
)
def test_quantities_print_as_upstream_prints_them(text: str, canonical: str) -> None:
    assert quantity.canonical(text) == canonical
    assert quantity.canonical(canonical) == canonical


@pytest.mark.parametrize("text", ["", "x", "1x", "1 Gi", "--1", "1gi", "1ee3", "٣", "1e9999"])
def test_other_text_is_no_quantity(text: str) -> None:
    with pytest.raises(quantity.InvalidQuantity):
        quantity.canonical(text)


def test_quantities_compare_as_numbers() -> None:
    assert quantity.nanos("1Gi") > quantity.nanos("1G") > quantity.nanos("999M")


@settings(deadline=None)
@given(st.integers(-(10**15), 10**15), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "u", "n", "e2"]))
def test_the_canonical_form_has_the_same_value(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    assert quantity.nanos(quantity.canonical(text)) == quantity.nanos(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
        ("2024-01-01T00:30:00+01:00", "2023-12-31T23:30:00Z"),
        ("2024-01-01T00:00:00.999Z", "2024-01-01T00:00:00Z"),
    ],
)
def test_times_are_whole_seconds_in_utc(text: str, canonical: str) -> None:
    assert times.canonical(text) == canonical


def test_micro_times_keep_microseconds() -> None:
    assert times.canonical("2024-01-01T00:00:00.5+01:00", micro=True) == "2023-12-31T23:00:00.500000Z"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 'parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006"'),
        ("2024-1-1", 'parsing time "2024-1-1" as "2006-01-02T15:04:05Z07:00": cannot parse "1-1" as "01"'),
        ("2024-01-01", 'parsing time "2024-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T"'),
        ("2023-02-29T00:00:00Z", 'parsing time "2023-02-29T00:00:00Z": day out of range'),
        ("2024-13-01T00:00:00Z", 'parsing time "2024-13-01T00:00:00Z": month out of range'),
        ("2024-01-01T00:00:00Zx", 'parsing time "2024-01-01T00:00:00Zx": extra text: "x"'),
    ],
)
def test_other_text_is_no_time(text: str, words: str) -> None:
    with pytest.raises(times.InvalidTime) as error:
        times.canonical(text)
    assert str(error.value) == words


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("1h", "1h0m0s"),
        ("90s", "1m30s"),
        ("1.5h", "1h30m0s"),
        ("100ms", "100ms"),
        ("1us", "1µs"),
        ("0", "0s"),
        ("-1m", "-1m0s"),
        ("1h2m3.5s", "1h2m3.5s"),
        ("1500ms", "1.5s"),
    ],
)
def test_durations_print_as_go_prints_them(text: str, printed: str) -> None:
    assert times.render_duration(times.parse_duration(text)) == printed


@pytest.mark.parametrize("text", ["", "1", "h", "1x", "1h ", "9999999999h"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(times.InvalidTime):
        times.parse_duration(text)


@settings(deadline=None)
@given(st.integers(-(2**62), 2**62))
def test_a_printed_duration_reads_back(nanos: int) -> None:
    assert times.parse_duration(times.render_duration(nanos)) == nanos
